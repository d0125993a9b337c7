"""What the kernel gives an ordinary user, for wrappers without a container: namespaces, Landlock.

A wrapper imports parts of this before it says Hello, so nothing is gathered here.
"""
