"""Docker: how a launch is said to it, where a daemon answers.

The rules, each seen with the real program (tests/pilot/containers/test_real_docker.py):

- Docker runs images of its own only. So the root is an image that holds nothing but the links
  of the image directory's top level, into which everything else is bound
  (`pilot.containers.own_root`): nothing is copied. It is imported once and found again by its
  content; a node keeps a few kilobytes for each kind of image.
- The daemon starts the wrapper, so it isn't below the launched process: it is found, and
  killed, by its marker. And it leaves the batch slot's cgroup, which is why Docker comes last.
- Binds are the daemon's: what it can't see (it runs elsewhere, or in a container) is an error
  with ``--mount``, and not an empty directory as with ``--volume``.
- Who may use Docker is root in the end, but files are to be the pilot's: its uid is asked for,
  and mount points in its directory, which the daemon would make as root, are made before.
- ``-e NAME`` hands a variable on from the environment; a value is never in argv.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilot.containers import oci, own_root
from pilot.containers.mounts import TMP_BASE
from pilot.containers.runtime import (
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
    handed_on_by_name,
    host_environment,
)
from transport.messages import Record

_OPTIONS = (
    "--rm -i --network=host --ipc=private --log-driver=none --cap-drop=ALL "
    "--security-opt=no-new-privileges --security-opt=label=disable --read-only --shm-size=1g"
)
_CLIENT_VARIABLES = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
)
"""By which the client finds its daemon."""
_TMP = f"{TMP_BASE}/"
_ROOT = "THE-ROOT"  # the word that the shell replaces
_PREPARE = "names= links=\n"
_LINK = 'names="$names.$inside\n" links="$links$inside $target\n"'
# Into the command line's middle, as the wrapper's own is behind it, and in the image's place.
_START = """\
root=pilot-root:$(printf '%s' "$links" | sha256sum | cut -c1-32)
DOCKER image inspect --format . "$root" >/dev/null 2>&1 ||
  printf '%s' "$names" | tar -C "$image" --no-recursion --verbatim-files-from -T - -c |
    DOCKER import - "$root" >/dev/null || exit 1
for word; do
  shift
  [ "$word" != THE-ROOT ] || word=$root
  set -- "$@" "$word"
done
exec DOCKER run --user="$(id -u):$(id -g)" "$@"
"""


class DockerDialect(Record, frozen=True, kw_only=True):
    """The program ``docker``, of 20.10 (2020) and later, with its daemon."""

    kind: RuntimeKind = RuntimeKind.DOCKER
    programs: tuple[str, ...] = ("docker",)
    image_forms: frozenset[ImageForm] = frozenset({ImageForm.DIRECTORY})
    layers: Layers = Layers(makes_tmp=True)
    """Mount points can't be made below the image's own directories; in /tmp they always can."""

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What the client writes to stderr."""
        return CAUSES

    def configuration(self, runtime: Runtime) -> tuple[str, ...]:
        """Return nothing: those files are the daemon's."""
        return ()

    def rungs(self, runtime: Runtime, *, is_root: bool) -> tuple[Rung, ...]:
        """Whether there is a user namespace is the daemon's to say."""
        return (Rung(), Rung(own_pid_namespace=False))

    def command(self, launch: ContainerLaunch) -> tuple[str, ...]:
        """Return the command line; see `pilot.containers.runtime.Dialect`."""
        if not launch.scratch_directory:
            raise NotExpressible("Docker can't be used without a directory for /tmp.")
        tmp = Bind(source=launch.scratch_directory, destination=TMP_BASE)
        docker = own_root.quoted(launch.runtime.path, *launch.runtime.arguments)
        return own_root.command_in_own_root(
            launch.image,
            prepare=_PREPARE + _mount_points(launch),
            bind=oci.BIND_ENTRY,
            link=_LINK,
            start=_START.replace("DOCKER", docker),
            options=(
                *_OPTIONS.split(),
                *(() if launch.rung.own_pid_namespace else ("--pid=host",)),
                *(f"--env={name}" for name in handed_on_by_name(launch.environment, self.kind)),
                *(oci.bind_option(bind, self.kind) for bind in (tmp, *launch.binds)),
                f"--workdir={launch.working_directory}",
                _ROOT,
            ),
        )

    def environment(self, launch: ContainerLaunch, host: Mapping[str, str]) -> dict[str, str]:
        """Return the environment: the wrapper's, for ``-e NAME``, and the client's own."""
        handed_on_by_name(launch.environment, self.kind)
        client = {name: host[name] for name in _CLIENT_VARIABLES if name in host}
        return {**launch.environment, **host_environment(host), **client}


def _mount_points(launch: ContainerLaunch) -> str:
    """Return shell that makes the mount points in /tmp: the daemon's would be root's."""
    lines = []
    for bind in launch.binds:
        if bind.destination.startswith(_TMP):
            point = f"{launch.scratch_directory}/{bind.destination.removeprefix(_TMP)}"
            source, place, parent = map(
                own_root.quoted, (bind.source, point, point.rpartition("/")[0])
            )
            lines.append(
                f"mkdir -p {parent} && "
                f"if [ -d {source} ]; then mkdir -p {place}; else : >>{place}; fi || exit 1\n"
            )
    return "".join(lines)


CAUSES = (
    *own_root.CAUSES,
    Cause(
        pattern=r"Cannot connect to the Docker daemon|failed to connect to the docker API",
        reason=Reason.NO_DAEMON,
        meaning="no Docker daemon answers",
    ),
    Cause(
        pattern=r"permission denied while trying to connect",
        reason=Reason.NO_ACCESS,
        meaning="this user may not speak to the Docker daemon",
    ),
    Cause(
        pattern=r"bind source path does not exist",
        reason=Reason.MISSING_FILE,
        meaning="something that is to be bound is not where the daemon runs",
    ),
    *oci.CAUSES,
    # Its last line is never the one that tells.
    Cause(
        pattern=r"^docker: |Error response from daemon",
        reason=Reason.UNKNOWN,
        meaning="Docker refuses",
    ),
)
"""What is found in a line of stderr, and what that means; the first that fits is the cause."""

DOCKER = DockerDialect()
