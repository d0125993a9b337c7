"""A child that does everything wrong with stdout, except where it counts.

It takes the protocol's descriptors first, as the wrapper does, and then prints into what is
left of fd 1: while importing, from C, and from a grandchild.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), *sys.argv[1:]]

from pilot.wrapper_boot import claim_stdio  # noqa: E402 - the order is what is tested

read_fd, write_fd = claim_stdio()

import tests.pilot.noisy_import  # noqa: E402, F401 - prints garbage


def print_in_every_way() -> None:
    """Write to fd 1 by print, by C's own stdio, by a system call and from a grandchild."""
    import ctypes
    import os
    import subprocess

    print("a library says hello")  # noqa: T201
    libc = ctypes.CDLL(None)
    libc.puts(b"C says hello")
    libc.fflush(None)
    os.write(1, b"\xff\xff\xff\xff a raw write")
    subprocess.run(["/bin/sh", "-c", "echo a grandchild says hello; cat"], check=True)


async def main() -> None:
    """Speak the protocol amid the noise."""
    from transport.events import MessageReceived
    from transport.messages import TraceWritten
    from transport.session import Role
    from transport.stdio import stdio_link

    link = await stdio_link(Role.WRAPPER, read_fd=read_fd, write_fd=write_fd, release="noisy")

    def take(event: object) -> None:
        if isinstance(event, MessageReceived):
            link.confirm(event.sequence)

    link.open(take)
    for number in range(100):
        print_in_every_way()
        link.tell(TraceWritten(text=f"line {number}", at=0.0))
        if number % 10 == 9:
            await link.wait_settled()
    await link.wait_settled()
    link.close("said it all")
    await link.wait_closed()


asyncio.run(main())
