"""Charliecloud: how a launch is said to ``ch-run``.

The rules, each seen with the real program (tests/pilot/containers/test_real_runtimes.py):

- It gives a user and a mount namespace, and no more. So it is started in PID, IPC and mount
  namespaces of its own (`pilot.containers.own_namespaces`).
- It knows no read-only bind. What is to be read-only is made so before, in those namespaces:
  a mount from an outer user namespace can't be made writable again in the inner one.
- The image is the root as it is, read-only; it must have /dev, /proc, /sys and /tmp ("can't
  bind: destination not found"). $TMPDIR is what is seen as /tmp, and in there mount points
  are made.
- It wants $USER, and hands the whole environment on.
- Who is root inside has the capabilities of that namespace. So an ordinary user is itself
  inside, and root is nobody; it is still root's files that it can write.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilot.containers import own_namespaces
from pilot.containers.mounts import TMP_BASE
from pilot.containers.own_root import quoted
from pilot.containers.runtime import (
    SYSTEM_PATH,
    Cause,
    ContainerLaunch,
    ImageForm,
    Layers,
    NotExpressible,
    Reason,
    Rung,
    Runtime,
    RuntimeKind,
    bind_path,
    checked_image,
    handed_on_by_name,
)
from transport.messages import Record

_OUTSIDE = """\
uid=$(id -u) gid=$(id -g)
[ "$uid" != 0 ] || uid=65534 gid=65534
mkdir -p "$TMPDIR" || exit 1
"""
# Its arguments: uid, gid, how many binds there are, three for each, and what is for ch-run.
# Mount points in /tmp are made here: ch-run makes none in what was mounted before.
_INSIDE = """\
ids="--uid=$1 --gid=$2" count=$3
shift 3
make() { if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "${2%/*}" && : >>"$2"; fi || exit 1; }
while [ "$count" -gt 0 ]; do
  case $3 in /tmp/*) make "$1" "$TMPDIR${3#/tmp}" ;; esac
  if [ "$1" != "$2" ]; then
    make "$1" "$2"
    mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" || exit 1
  fi
  count=$((count - 1))
  shift 3
done
"""


class CharliecloudDialect(Record, frozen=True, kw_only=True):
    """The program ``ch-run``, of 0.26 (2022) and later."""

    kind: RuntimeKind = RuntimeKind.CHARLIECLOUD
    programs: tuple[str, ...] = ("ch-run",)
    image_forms: frozenset[ImageForm] = frozenset({ImageForm.DIRECTORY})
    layers: Layers = Layers()

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What it writes to stderr, and what ``unshare`` and ``mount`` do."""
        return CAUSES

    def configuration(self, runtime: Runtime) -> tuple[str, ...]:
        """Return nothing: it has no such file."""
        return ()

    def rungs(self, runtime: Runtime, *, is_root: bool) -> tuple[Rung, ...]:
        """Return both ways; it is always in a user namespace."""
        return (Rung(use_userns=True), Rung(own_pid_namespace=False, use_userns=True))

    def command(self, launch: ContainerLaunch) -> tuple[str, ...]:
        """Return the command line; see `pilot.containers.runtime.Dialect`."""
        if not launch.scratch_directory:
            raise NotExpressible("Charliecloud can't be used without a directory for /tmp.")
        binds: list[str] = []
        options: list[str] = []
        for number, bind in enumerate(launch.binds):
            source, destination = (
                bind_path(path, self.kind, forbidden=":")
                for path in (bind.source, bind.destination)
            )
            place = f"{launch.scratch_directory}/read-only/{number}" if bind.read_only else source
            binds += [source, place, destination]
            options += ["-b", f"{place}:{destination}"]
        program = quoted(launch.runtime.path, *launch.runtime.arguments)
        start = own_namespaces.start_in_own_namespaces(
            launch.rung,
            f'{_INSIDE}exec {program} $ids "$@"',
            '"$uid"',
            '"$gid"',
            str(len(launch.binds)),
        )
        options += ["-c", launch.working_directory, checked_image(launch.image), "--"]
        return ("/bin/sh", "-c", f"{_OUTSIDE}{start}\n", "sh", *binds, *options)

    def environment(self, launch: ContainerLaunch, host: Mapping[str, str]) -> dict[str, str]:
        """Return the environment: the wrapper's, and what ch-run itself needs."""
        handed_on_by_name(launch.environment, self.kind)
        tmp = f"{launch.scratch_directory}{TMP_BASE}"
        needed = {"USER": host.get("USER", "pilot"), "TMPDIR": tmp}
        return {"PATH": SYSTEM_PATH, **launch.environment, **needed}


CAUSES = (
    *own_namespaces.CAUSES,
    *(
        Cause(pattern=pattern, reason=reason, meaning=meaning)
        for pattern, reason, meaning in (
            (
                r"unknown image type|can't (stat|execve\(2\)|chdir).*Not a directory",
                Reason.IMAGE_FORMAT,
                "what is named as the image is no directory with a system in it",
            ),
            (
                r"can't bind: destination not found|can't mkdir: .*Read-only file system",
                Reason.NO_MOUNT_POINT,
                "the image lacks a directory that is to be mounted on, and it can't be made",
            ),
            (
                r"can't bind: source not found|mount: .*special device \S+ does not exist",
                Reason.MISSING_FILE,
                "something that is to be bound is not on the node",
            ),
            (
                r"can't (init|unshare|set up) .*user ?n(ame)?s|can't open: /proc/self/uid_map",
                Reason.NO_USER_NAMESPACE,
                "this node has no user namespaces for this user",
            ),
            (
                r"[Ee]xec format error",
                Reason.ARCHITECTURE,
                "the image is for another architecture",
            ),
        )
    ),
)
"""What is found in a line of stderr, and what that means; the first that fits is the cause."""

CHARLIECLOUD = CharliecloudDialect()
