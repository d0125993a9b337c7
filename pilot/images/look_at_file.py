"""A look at an image's path that a dead file system can't make endless.

An image may lie on CVMFS or another network file system, and a mount that is dead hangs
whoever touches it. So a shell with a deadline looks, and prints what it saw: the file's status,
by which it is known again, and its first bytes, which tell what it is.
"""

from __future__ import annotations

from pilot.bounded_process import run_bounded
from pilot.images.content import HEAD_BYTES
from transport.errors import OperatorError, UserError
from transport.messages import Record

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_LOOK = f"""
case $1 in /cvmfs/*)
  repository=${{1#/cvmfs/}}
  [ -d "/cvmfs/${{repository%%/*}}/." ] || exit 12
esac
[ -e "$1" ] || exit 10
[ -r "$1" ] || exit 11
if [ -d "$1" ]; then
  [ -x "$1" ] || exit 11
  stat -L -c 'd %s %d.%i.%.9Y.%.9Z' -- "$1"
elif [ -f "$1" ]; then
  stat -L -c 'f %s %d.%i.%.9Y.%.9Z' -- "$1" && head -c {HEAD_BYTES} -- "$1"
else
  exit 13
fi || exit 14
"""
_USERS = {
    10: "there is no such file or directory",
    11: "it may not be read by the pilot's user",
    13: "it is neither a file nor a directory",
}
_OPERATORS = {14: "reading it fails; look at the node's disks and mounts"}


class Seen(Record, frozen=True, kw_only=True):
    """What is at a path."""

    is_directory: bool
    size: int
    state: str
    """Another one when the file is another one, or was changed."""
    head: bytes
    """The first bytes of a file."""


async def look_at_file(path: str, *, timeout_s: float) -> Seen:
    """Return what is there; waits ``timeout_s`` at most.

    Raises `UserError` and `OperatorError`, both with a fragment of a sentence.
    """
    finished = await run_bounded(
        ("/bin/sh", "-c", _LOOK, "sh", path),
        environment={"PATH": _SYSTEM_PATH, "LC_ALL": "C"},
        timeout_s=timeout_s,
    )
    code = finished.exit_code
    if code is None:
        raise OperatorError(f"its file system doesn't answer in {timeout_s:g} s")
    if code == 12:
        raise OperatorError(f"this node has no /cvmfs/{path.split('/')[2]}")
    if code in _USERS:
        raise UserError(_USERS[code])
    line, newline, head = finished.stdout.partition(b"\n")
    words = line.decode(errors="replace").split()
    if code or not newline or len(words) != 3 or not words[1].isdecimal():
        raise OperatorError(_OPERATORS[14])
    return Seen(is_directory=words[0] == "d", size=int(words[1]), state=words[2], head=head)
