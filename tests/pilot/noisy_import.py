"""A library that prints while it is imported."""

import os

print("imported, and proud of it")  # noqa: T201
os.write(1, b"\x00\x00\x00\x04junk")
os.system("echo from a shell at import time")
