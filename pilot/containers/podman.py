"""Podman: how a launch is said to it, with nothing of its own kept anywhere.

The rules, each seen with the real program (tests/pilot/containers/test_real_runtimes.py):

- The root is a directory of the attempt's own with the image's entries bound into it
  (`pilot.containers.own_root`): ``--rootfs IMAGE`` would write /etc/hosts and mount points
  into the image itself.
- Podman's monitor leaves the process tree, and for an ordinary user a process stays behind to
  keep a user namespace. So Podman is started in namespaces of its own
  (`pilot.containers.own_namespaces`), and told that its user namespace is there already: all
  that it starts stays below the launched process and dies with it, and no line in /etc/subuid
  is needed. Inside, the wrapper has uid 0, which is the pilot's own uid outside.
- Its state and its locks are in a /dev/shm of its own: another's containers are never in its
  way, nor it in theirs, and no path is too long for it ("runroot is longer than 50").
- A batch slot's cgroup is kept with ``--cgroups=disabled``, which only ``crun`` can do; crun in
  turn refuses a node with both versions of cgroups, where ``runc`` is taken.
- As root Podman raises the limits of open files and processes to what a container is not
  always allowed; they are the pilot's own limits instead.
- ``-e NAME`` hands a variable on from the environment; a value is never in argv.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilot.containers import oci, own_namespaces, own_root
from pilot.containers.mounts import TMP_BASE
from pilot.containers.runtime import (
    SYSTEM_PATH,
    Bind,
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
    handed_on_by_name,
)
from transport.messages import Record

_OWN = "/dev/shm"  # noqa: S108 - a memory file system of the launch's own
_GLOBAL = (
    "--log-level=error --events-backend=none --storage-driver=vfs --cgroup-manager=cgroupfs "
    f"--root={_OWN}/storage --runroot={_OWN}/run --tmpdir={_OWN}/state"
)
_OPTIONS = (
    "--rm -i --network=host --ipc=private --uts=private --pid=private "
    "--log-driver=none --http-proxy=false "
    "--cap-drop=all --security-opt=no-new-privileges --security-opt=label=disable "
    "--read-only --read-only-tmpfs=false --shm-size=1g"
)
_PREPARE = """\
scratch=SCRATCH
mkdir -p "$scratch/root/etc" "$scratch/tmp" || exit 1
"""
_START = """\
for limit in $(sed -n -e 's/^Max processes  *\\([^ ]*\\) *\\([^ ]*\\).*/nproc=\\1:\\2/p' \
    -e 's/^Max open files  *\\([^ ]*\\) *\\([^ ]*\\).*/nofile=\\1:\\2/p' /proc/self/limits |
    sed 's/unlimited/-1/g'); do
  set -- --ulimit "$limit" "$@"
done
if command -v crun >/dev/null && [ ! -e /sys/fs/cgroup/unified/cgroup.controllers ]; then
  runtime=crun
  set -- --cgroups=disabled "$@"
else
  runtime=runc
fi
"""
_IN_USERNS = "_CONTAINERS_USERNS_CONFIGURED=done _CONTAINERS_ROOTLESS_UID=$(id -u)"


class PodmanDialect(Record, frozen=True, kw_only=True):
    """The program ``podman``, of 4.0 (2022) and later."""

    kind: RuntimeKind = RuntimeKind.PODMAN
    programs: tuple[str, ...] = ("podman",)
    image_forms: frozenset[ImageForm] = frozenset({ImageForm.DIRECTORY})
    layers: Layers = Layers(makes_tmp=True)
    """Mount points can't be made below the image's own directories; in /tmp they always can."""

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What it writes to stderr, its OCI runtimes included."""
        return CAUSES

    def configuration(self, runtime: Runtime) -> tuple[str, ...]:
        """Return the node's own; the user's are not read."""
        return ("/etc/containers/containers.conf", "/etc/containers/storage.conf")

    def rungs(self, runtime: Runtime, *, is_root: bool) -> tuple[Rung, ...]:
        """Only root has a choice about the user namespace, and tries one first.

        Without a PID namespace its monitor would outlive the launch.
        """
        return tuple(Rung(use_userns=use_userns) for use_userns in ((True, False)[: 1 + is_root]))

    def command(self, launch: ContainerLaunch) -> tuple[str, ...]:
        """Return the command line; see `pilot.containers.runtime.Dialect`."""
        if not launch.scratch_directory:
            raise NotExpressible("Podman can't be used without a directory for its own files.")
        scratch = bind_path(launch.scratch_directory, self.kind, forbidden=',"')
        return own_root.command_in_own_root(
            launch.image,
            prepare=_PREPARE.replace("SCRATCH", own_root.quoted(scratch)),
            bind=oci.BIND_ENTRY,
            link='ln -sfn -- "$target" "$scratch/root$inside" || exit 1',
            start=_start(launch),
            options=(
                *_OPTIONS.split(),
                *(f"--env={name}" for name in handed_on_by_name(launch.environment, self.kind)),
                oci.bind_option(
                    Bind(source=f"{scratch}{TMP_BASE}", destination=TMP_BASE), self.kind
                ),
                *(oci.bind_option(bind, self.kind) for bind in launch.binds),
                f"--workdir={launch.working_directory}",
                "--rootfs",
                f"{scratch}/root",
            ),
        )

    def environment(self, launch: ContainerLaunch, host: Mapping[str, str]) -> dict[str, str]:
        """Return the environment: the wrapper's, for ``-e NAME``, and Podman's own."""
        handed_on_by_name(launch.environment, self.kind)
        needed = {"PATH": SYSTEM_PATH, "HOME": _OWN, "XDG_RUNTIME_DIR": _OWN}
        return {**launch.environment, **needed}


def _start(launch: ContainerLaunch) -> str:
    """Return shell that starts Podman in namespaces of its own."""
    podman = own_root.quoted(launch.runtime.path, *launch.runtime.arguments)
    inside = (
        f"mount -t tmpfs none {_OWN} || exit 1\nruntime=$1\nshift\n"
        f'exec {podman} {_GLOBAL} --runtime="$runtime" run "$@"'
    )
    return (
        _START
        + (f"export {_IN_USERNS}\n" if launch.rung.use_userns else "")
        + own_namespaces.start_in_own_namespaces(launch.rung, inside, '"$runtime"')
    )


CAUSES = (
    *own_root.CAUSES,
    *own_namespaces.CAUSES,
    Cause(
        pattern=r"OCI runtime \"?\S+\"? not found|requested OCI runtime",
        reason=Reason.MISSING_FILE,
        meaning="neither crun nor runc, of which Podman needs one, is on the node",
    ),
    Cause(
        pattern=r"statfs \S+: no such file",
        reason=Reason.MISSING_FILE,
        meaning="something that is to be bound is not on the node",
    ),
    *oci.CAUSES,
)
"""What is found in a line of stderr, and what that means; the first that fits is the cause."""

PODMAN = PodmanDialect()
