"""A wrapper's end of a link in a process of its own, for the conformance suite.

Run as ``echo`` it obeys orders (`EchoPeer`) over its stdin and stdout; as ``raw HEX`` it
writes those bytes and reads nothing until it is killed; as ``gone HEX`` it writes and exits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from tests.transport.peers import EchoPeer
from transport.session import Role
from transport.stdio import stdio_link


async def obey() -> None:
    """Obey until the link is closed."""
    link = await stdio_link(Role.WRAPPER, read_fd=os.dup(0), write_fd=os.dup(1), release="child")
    for descriptor in (0, 1):
        os.close(descriptor)
    EchoPeer(link)
    await link.wait_closed()
    await asyncio.sleep(0)


def main() -> None:
    """Do as the command line says."""
    match sys.argv[1:]:
        case ["echo"]:
            asyncio.run(obey())
        case ["gone", data]:
            os.write(1, bytes.fromhex(data))
        case ["raw", data]:
            os.write(1, bytes.fromhex(data))
            signal.pause()


if __name__ == "__main__":
    main()
