"""`pilot bundle`: the wrapper's bundle, made in a directory, and what there is to say of it."""

from __future__ import annotations

import platform
import time
from pathlib import Path

from pilot.bundle import build_bundle


def made_bundle(directory: Path) -> dict[str, str | int | float]:
    """Make the bundle, or find it; return its path, name and size, and how long it took."""
    begun = time.monotonic()
    bundle = build_bundle(directory)
    seconds = time.monotonic() - begun
    sizes = [path.stat().st_size for path in bundle.root.rglob("*") if path.is_file()]
    return {
        "path": str(bundle.root),
        "hash": bundle.root.name.partition("-")[2],
        "bytes": sum(sizes),
        "files": len(sizes),
        "seconds": round(seconds, 3),
        "python": platform.python_version(),
        "glibc": platform.libc_ver()[1],
        "architecture": platform.machine(),
    }


def bundle_line(made: dict[str, str | int | float]) -> str:
    """Return the line for a person."""
    return (
        f"{made['path']}: {int(made['bytes']) / 1e6:.1f} MB in {made['files']} files, "
        f"Python {made['python']}, glibc {made['glibc']}, {made['architecture']}; "
        f"{made['seconds']:.1f} s"
    )
