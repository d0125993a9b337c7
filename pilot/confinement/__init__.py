"""What the kernel gives an ordinary user: namespaces and Landlock, for wrappers without a container.

A wrapper imports parts of this before it says Hello, so nothing is gathered here.
"""
