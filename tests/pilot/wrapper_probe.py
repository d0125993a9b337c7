"""A real wrapper up to its Hello: how long that takes, and what it has imported by then."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence

from pilot.bundle import Bundle
from pilot.launching import bare_command
from transport.frames import FrameKind, FrameSplitter, decode_envelope

PATIENCE_S = 60.0

# Runs a boot script as an interpreter would, beside a thread that waits to tell the modules.
_SPY = """
import _thread, os, sys
def tell(ask, answer):
    os.read(ask, 1)
    os.write(answer, " ".join(sorted(sys.modules)).encode())
    os.close(answer)
_thread.start_new_thread(tell, (int(sys.argv[1]), int(sys.argv[2])))
del sys.argv[:3]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"),
     {"__name__": "__main__", "__file__": sys.argv[0]})
"""

# What no wrapper written with asyncio and msgspec can be below: it imports them and starts a
# program. The modules go to stdout when that is done.
_FLOOR = """
import sys
sys.path[:0] = sys.argv[1:]
import asyncio, msgspec
modules = " ".join(sys.modules)
async def main():
    program = await asyncio.create_subprocess_exec("/bin/true")
    await program.wait()
asyncio.run(main())
print(modules)
"""


def seconds_to_hello(command: Sequence[str]) -> float:
    """Launch a wrapper over stdio and return the seconds until its Hello was decoded."""
    begun = time.perf_counter()
    with _launched(command) as wrapper:
        _wait_hello(wrapper)
        seconds = time.perf_counter() - begun
        wrapper.kill()
    return seconds


def modules_at_hello(command: Sequence[str]) -> set[str]:
    """Return what a wrapper, launched over stdio, has imported when it says Hello."""
    ask, asked = os.pipe()
    told, answer = os.pipe()
    boot = _boot_index(command)
    spying = (*command[:boot], "-c", _SPY, str(ask), str(answer), *command[boot:])
    with _launched(spying, (ask, answer)) as wrapper, os.fdopen(told) as answers:
        os.close(answer)
        _wait_hello(wrapper)
        # It waits for its Welcome now, and imports nothing more.
        os.write(asked, b".")
        modules = set(answers.read().split())
        wrapper.kill()
    os.close(ask)
    os.close(asked)
    return modules


def floor_command(executable: str) -> tuple[str, ...]:
    """Return the command line of a child that imports asyncio and msgspec and starts /bin/true."""
    command = bare_command(executable)
    boot = _boot_index(command)
    return (*command[:boot], "-c", _FLOOR, *command[boot + 2 :])


def bundled_floor_command(bundle: Bundle) -> tuple[str, ...]:
    """Return the command line of the same child, run from a bundle."""
    *python, _ = bundle.command(str(bundle.root))
    return (*python, "-c", _FLOOR, f"{bundle.root}/app", f"{bundle.root}/site")


def modules_of_floor(command: Sequence[str]) -> set[str]:
    """Return what asyncio and msgspec alone import."""
    done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


_ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": os.defpath}


def _boot_index(command: Sequence[str]) -> int:
    """Return where a wrapper's command line names its boot script."""
    return next(number for number, word in enumerate(command) if word.endswith("_boot.py"))


def _launched(command: Sequence[str], descriptors: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=_ENVIRONMENT,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=descriptors,
        bufsize=0,
        start_new_session=True,
    )


def _wait_hello(wrapper: subprocess.Popen[bytes]) -> None:
    assert wrapper.stdout is not None, "a wrapper is launched with a pipe"
    splitter = FrameSplitter()
    while (frame := splitter.next_frame()) is None:
        data = os.read(wrapper.stdout.fileno(), 65536)
        assert data, f"the wrapper ended with {wrapper.wait(PATIENCE_S)} before it said Hello"
        splitter.feed(data)
    kind = decode_envelope(frame).kind
    assert kind == FrameKind.HELLO, f"the wrapper's first word was a frame of kind {kind}"
