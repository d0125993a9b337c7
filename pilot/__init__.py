"""The world: command line, settings, and the adapters behind the ports."""
