"""A process that wants an image: ``python -m tests.pilot.images.wanting CACHE REFERENCE``.

It prints the digest that it got, holds the image until its stdin ends, and says whether the
image is still there.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pilot.images import ImageStore, StoreOptions


async def main() -> None:
    """Get it, hold it, look again."""
    store = ImageStore(Path(sys.argv[1]), StoreOptions(timeout_s=100))
    image = await store.get(sys.argv[2])
    with await store.hold(image):
        sys.stdout.write(f"{image.digest}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        sys.stdout.write(f"{(Path(image.path) / 'etc/motd').exists()}\n")


if __name__ == "__main__":
    asyncio.run(main())
