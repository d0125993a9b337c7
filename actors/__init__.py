"""Behaviour: the actor runtime, the four actors and their pure cores."""
