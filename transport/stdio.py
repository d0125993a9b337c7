"""The stdio link: a link over two pipe descriptors.

The parent makes the pipes and starts the wrapper with them as its stdin and stdout. The child
moves them away from fd 0 and 1 before anything heavy is imported (pilot/wrapper_boot.py), so
that no print of a library or a grandchild can reach the protocol.
"""

from __future__ import annotations

import asyncio
import os
from typing import cast

from transport.link import Link
from transport.session import LinkOptions, Role, Session

LINGER_S = 5.0
"""How long a closed link's last words wait for a peer that doesn't read."""


class _PipeStream(asyncio.Protocol):
    """Both halves of a pipe pair as one `ByteStream`, feeding one link."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._reader: asyncio.ReadTransport | None = None
        self._writer: asyncio.WriteTransport | None = None
        self._has_ended = False

    # The read half tells the link; the write half's end means that the peer is gone too.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._reader = cast("asyncio.ReadTransport", transport)

    def writer_made(self, transport: asyncio.WriteTransport) -> None:
        """Write to this from now on; asyncio's own types don't tell the halves apart."""
        self._writer = transport

    def data_received(self, data: bytes) -> None:
        self._link.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._link.eof_received()
        self.close()

    def write(self, data: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)

    def unwritten_bytes(self) -> int:
        return 0 if self._writer is None else self._writer.get_write_buffer_size()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._writer is not None and not self._writer.is_closing():
            self._writer.close()
            if self.unwritten_bytes():
                self._loop.call_later(LINGER_S, self._writer.abort)


class _WriteHalf(asyncio.BaseProtocol):
    """Keeps the write transport's end apart: data unread by us must still be read."""

    def __init__(self, stream: _PipeStream) -> None:
        self._stream = stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream.writer_made(cast("asyncio.WriteTransport", transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """Do nothing: a peer that closed its stdin may still talk; the read half tells its end."""


async def stdio_link(
    role: Role,
    *,
    read_fd: int,
    write_fd: int,
    epoch: int = 0,
    options: LinkOptions | None = None,
    release: str = "",
) -> Link:
    """Return a link over two pipe descriptors, which it owns and closes.

    ``epoch`` is for the agent's end. The descriptors become non-blocking; they must not be
    shared with a process that expects them to block. Raises `ValueError` for one that is
    neither a pipe, a socket nor a terminal; both are closed then too.
    """
    loop = asyncio.get_running_loop()
    session = Session(role, now=loop.time(), epoch=epoch, options=options, release=release)
    link = Link(session, loop=loop)
    stream = _PipeStream(link, loop)
    reader, writer = os.fdopen(read_fd, "rb", 0), os.fdopen(write_fd, "wb", 0)
    try:
        await loop.connect_write_pipe(lambda: _WriteHalf(stream), writer)
        link.attach(stream)
        await loop.connect_read_pipe(lambda: stream, reader)
    except BaseException:
        link.close("the descriptors make no link")
        reader.close()
        writer.close()
        raise
    return link
