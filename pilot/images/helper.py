"""The process that a task for images is done in, and how it is started and asked.

``python -P -m pilot.images.helper TASK``: the task is JSON in argv, the answer one line of JSON on
stdout. Its memory is limited, so that a document or header which asks for more than an image
may need ends this process and not the node.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import time
from pathlib import Path

import msgspec

from pilot.bounded_process import Finished, run_bounded
from pilot.clock import SystemClock
from pilot.images.tasks import Answer, Task, perform
from transport.errors import OperatorError, PilotError, UserError

_MEMORY_BYTES_MAX = 3 << 30
_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_QUOTED_MAX = 300
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


async def ask_helper(task: Task, *, timeout_s: float) -> str:
    """Have a task done in a helper process, and return the digest; waits ``timeout_s`` at most.

    Raises `UserError` and `OperatorError`, both with a fragment of a sentence.
    """
    command = (sys.executable, "-P", "-m", __name__, msgspec.json.encode(task).decode())
    finished = await run_bounded(command, environment=_environment(), timeout_s=timeout_s)
    answer = _answer(finished, timeout_s)
    if answer.problem:
        raise (UserError if answer.is_users else OperatorError)(answer.problem)
    return answer.digest


def _environment() -> dict[str, str]:
    names = (*_VARIABLES, *_PROXIES, *(name.lower() for name in _PROXIES))
    kept = {name: os.environ[name] for name in names if name in os.environ}
    modules = [str(Path(entry).absolute()) for entry in sys.path]
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONPATH": os.pathsep.join(modules)}


def _answer(finished: Finished, timeout_s: float) -> Answer:
    if finished.is_timed_out:
        raise OperatorError(f"it could not be had in {timeout_s:g} s")
    try:
        return msgspec.json.decode(finished.stdout, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = finished.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise OperatorError(
            f"the helper process for images ended with {finished.exit_code}: "
            f"{said[-_QUOTED_MAX:] or 'it said nothing'}"
        ) from None


def main() -> None:
    """Do the task of the command line."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    os.umask(0o022)
    task = msgspec.json.decode(sys.argv[1], type=Task)
    sys.stdout.buffer.write(msgspec.json.encode(_done(task)))


def _done(task: Task) -> Answer:
    try:
        return Answer(digest=perform(task, now=SystemClock().now, sleep=time.sleep))
    except PilotError as error:
        return Answer(problem=str(error).rstrip("."), is_users=isinstance(error, UserError))
    except MemoryError:
        problem = "it takes more memory to read than any image should; build it again"
        return Answer(problem=problem, is_users=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        problem = f"{where}{error.strerror or error}"
        if error.errno in _NO_ROOM:
            problem = f"there is no room on the disk of the image cache ({problem})"
        return Answer(problem=problem)


if __name__ == "__main__":
    main()
