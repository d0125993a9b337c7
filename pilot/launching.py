"""Launches wrappers as child processes: in a container where that was found to work, or bare.

Everything that depends on the node is decided before (`pilot.container_choice`), everything
about the command line is pure (`pilot.container`, and `bare_command` here). What is left is to
make the directories and the pipes, and to start.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from actors.outputs import outputs_to_save
from actors.ports import LaunchedWrapper, LaunchOrder, WrapperExit, WrapperPaths
from pilot.children import OWN_CHILDREN, wait_child
from pilot.container import (
    BUNDLE_INSIDE,
    WORK_INSIDE,
    Bind,
    ContainerLaunch,
    launch_command,
    launch_environment,
)
from pilot.container_check import classify_stderr
from pilot.container_choice import Choice, ContainerChoice, ContainerPolicy
from pilot.job_files import PATH_INSIDE, JobFiles, batch_trace, payload_environment
from pilot.packages import packages_environment
from pilot.plain_files import is_plain_directory, read_plain
from pilot.procfs import MARK_VARIABLE
from pilot.recovery import write_owner
from pilot.staging import LocalStager
from transport.errors import OperatorError, UserError
from transport.link import Link
from transport.messages import InputFile, JobDescription, Record, SavedFile
from transport.session import LinkOptions, Role
from transport.stdio import stdio_link

INPUTS_INSIDE = "/tmp/inputs"  # noqa: S108 - inside the container, in a /tmp that is the job's own
DIAGNOSIS_BYTES_MAX = 16_384
_WRAPPER_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TZ")
"""What a bare wrapper keeps of the agent's environment: what its interpreter may need."""


Spawned = tuple[subprocess.Popen[bytes], int, int]
"""A child, and our ends of its stdout and its stdin."""


class LauncherOptions(Record, frozen=True, kw_only=True):
    """What the settings say about launching."""

    state: Path
    site: str = ""
    policy: ContainerPolicy = ContainerPolicy.PREFER
    image: str = ""
    """For jobs that name none."""
    packages_command: str = ""
    link: LinkOptions = msgspec.field(default_factory=LinkOptions)


class ContainerTools(Record, frozen=True, kw_only=True):
    """What a launch in a container needs, made when the first job wants one."""

    choice: ContainerChoice
    bundle_root: Path
    wrapper_command: tuple[str, ...]
    """Of the bundle, as seen inside."""


class NodeLauncher:
    """Launches on this node; `actors.ports.WrapperLauncher`."""

    def __init__(
        self,
        options: LauncherOptions,
        host: Mapping[str, str],
        make_tools: Callable[[], Awaitable[ContainerTools]],
    ) -> None:
        """``host`` is the agent's own environment; ``make_tools`` is called once, when needed."""
        self._options = options
        self._host = dict(host)
        self._make_tools = make_tools
        self._tools: ContainerTools | None = None
        self._marks: dict[tuple[int, int], str] = {}
        self._tools_lock = asyncio.Lock()

    async def launch(self, order: LaunchOrder) -> LaunchedWrapper:
        """Start a wrapper for ``order``; see `actors.ports.WrapperLauncher`."""
        files = self._files(order)
        await asyncio.to_thread(self._check_sources, order.description)
        await asyncio.to_thread(self._make_room, files)
        image = order.description.container_image or self._options.image
        mark = secrets.token_hex(16)
        self._marks[order.job_id, order.attempt] = mark
        OWN_CHILDREN.add_mark(mark)
        if not image and self._options.policy is not ContainerPolicy.REQUIRE:
            plan = self._bare(order, files, mark, ("bare: no container image is asked for",))
        else:
            plan = await self._contained(order, files, mark, image)
        plan = await self._with_packages(order.description, plan)
        await asyncio.to_thread(write_owner, files, mark)
        child, read_fd, write_fd = await _spawned(plan, files.log)
        try:
            link = await stdio_link(
                Role.AGENT,
                read_fd=read_fd,
                write_fd=write_fd,
                epoch=secrets.randbits(31) + 1,
                options=self._options.link,
            )
        except BaseException:
            _abandon(child)  # Nobody will hold it; the descriptors are the link's to close.
            raise
        return ChildWrapper(child, link, plan, files, mark)

    async def rescue(self, order: LaunchOrder) -> tuple[SavedFile, ...]:
        """Save what a wrapper left that died before it could; as for a failed job."""
        files = self._files(order)
        if not (is_plain_directory(files.work) and is_plain_directory(files.output)):
            raise OperatorError(f"{files.root} was tampered with; nothing is saved from it")
        specs = outputs_to_save(order.description, job_id=order.job_id, has_failed=True)
        saved = await LocalStager().stage_out(specs, str(files.work), str(files.output))
        return saved.files

    async def clean(self, order: LaunchOrder) -> None:
        """Remove what the attempt left on the node's disk, but for its outputs and its log."""
        OWN_CHILDREN.discard_mark(self._marks.pop((order.job_id, order.attempt), ""))
        await asyncio.to_thread(self._files(order).remove_transient)

    async def _with_packages(self, description: JobDescription, plan: LaunchPlan) -> LaunchPlan:
        """Add what the job's packages need to the payload's environment; its own values win."""
        if not description.packages:
            return plan
        command, own = self._options.packages_command, plan.paths.environment
        if not command:
            text = "Packages are named, but the setting packages_command is not: none is set up"
            return msgspec.structs.replace(plan, traces=(*plan.traces, text))
        found = await packages_environment(command, description.packages, path=own["PATH"])
        environment = {**found, **own, "PATH": found.get("PATH", own["PATH"])}
        paths = msgspec.structs.replace(plan.paths, environment=environment)
        text = f"packages: {', '.join(description.packages)} ({len(found)} variables)"
        return msgspec.structs.replace(plan, paths=paths, traces=(*plan.traces, text))

    def _check_sources(self, description: JobDescription) -> None:
        """Refuse to show a job the pilot's own state: keys, queue and other jobs' directories."""
        state = os.path.realpath(self._options.state)
        for file in (*description.inputs, *description.input_data):
            if is_own_state(os.path.realpath(file.source), state):
                raise UserError(f"input {file.name}: {file.source} is the pilot's own")
        image = description.container_image
        if image.startswith("/"):
            place = os.path.realpath(image).rstrip("/") + "/"
            if f"{state}/".startswith(place) or place.startswith(f"{state}/"):
                raise UserError(f"the container image {image} holds the pilot's own state")

    def _files(self, order: LaunchOrder) -> JobFiles:
        return JobFiles.of(self._options.state, order.job_id, order.attempt)

    def _make_room(self, files: JobFiles) -> None:
        files.remove_earlier_attempts()
        files.make()

    # --- bare ----------------------------------------------------------------------------

    def _bare(
        self, order: LaunchOrder, files: JobFiles, mark: str, reasons: Sequence[str]
    ) -> LaunchPlan:
        kept = {name: self._host[name] for name in _WRAPPER_VARIABLES if name in self._host}
        work = str(files.work)
        return LaunchPlan(
            command=bare_command(sys.executable),
            environment={**kept, "LANG": "C.UTF-8", MARK_VARIABLE: mark},
            container=None,
            traces=(*batch_trace(self._host), *reasons),
            paths=WrapperPaths(
                work_directory=work,
                output_directory=str(files.output),
                private_directory=str(files.private),
                inputs=(*order.description.inputs, *order.description.input_data),
                environment=self._payload_environment(
                    order, work, mark, self._host.get("PATH", PATH_INSIDE)
                ),
            ),
        )

    def _payload_environment(
        self, order: LaunchOrder, work: str, mark: str, path: str
    ) -> dict[str, str]:
        return payload_environment(
            order.description,
            job_id=order.job_id,
            attempt=order.attempt,
            site=self._options.site,
            work_directory=work,
            mark=mark,
            path=path,
        )

    # --- in a container ------------------------------------------------------------------

    async def _contained(
        self, order: LaunchOrder, files: JobFiles, mark: str, image: str
    ) -> LaunchPlan:
        policy = self._options.policy
        if policy is ContainerPolicy.NEVER:
            return self._bare(order, files, mark, ("bare: containers are switched off",))
        try:
            tools = await self._container_tools()
            choice = await tools.choice.choose(image, policy)
        except OperatorError as error:
            if policy is ContainerPolicy.REQUIRE:
                raise
            return self._bare(order, files, mark, (f"bare: {error}",))
        if choice.runtime is None:
            return self._bare(order, files, mark, (*choice.reasons, "bare: no container works"))
        return self._container_plan(order, files, mark, image, tools, choice)

    async def _container_tools(self) -> ContainerTools:
        async with self._tools_lock:
            if self._tools is None:
                self._tools = await self._make_tools()
            return self._tools

    def _container_plan(
        self,
        order: LaunchOrder,
        files: JobFiles,
        mark: str,
        image: str,
        tools: ContainerTools,
        choice: Choice,
    ) -> LaunchPlan:
        assert choice.runtime is not None, "a plan for a container has a runtime"
        inputs, input_binds = mapped_inputs(order.description)
        work = f"{WORK_INSIDE}/work"
        launch = ContainerLaunch(
            runtime=choice.runtime,
            image=image,
            binds=(
                # One mount each: a mount point can't be moved or replaced from inside, and what
                # else the agent keeps beside them is not seen there.
                *(
                    Bind(source=str(directory), destination=f"{WORK_INSIDE}/{directory.name}")
                    for directory in (files.work, files.output, files.private)
                ),
                Bind(source=str(tools.bundle_root), destination=BUNDLE_INSIDE, read_only=True),
                *input_binds,
            ),
            working_directory=work,
            scratch_directory=str(files.scratch),
            own_pid_namespace=choice.own_pid_namespace,
            use_userns=choice.use_userns,
            environment={MARK_VARIABLE: mark},
        )
        pid = "its own" if choice.own_pid_namespace else "no own"
        version = choice.runtime.version or "of unknown version"
        used = f"container: {choice.runtime.path} ({version}), {pid} PID namespace"
        return LaunchPlan(
            command=(*launch_command(launch), *tools.wrapper_command, "run"),
            environment=launch_environment(launch, self._host),
            container=choice.runtime.kind.value,
            traces=(*batch_trace(self._host), *choice.reasons, f"{used}, image {image}"),
            paths=WrapperPaths(
                work_directory=work,
                output_directory=f"{WORK_INSIDE}/output",
                private_directory=f"{WORK_INSIDE}/private",
                inputs=inputs,
                environment=self._payload_environment(order, work, mark, PATH_INSIDE),
            ),
        )


class LaunchPlan(Record, frozen=True, kw_only=True):
    """Everything about one launch."""

    command: tuple[str, ...]
    environment: dict[str, str]
    container: str | None
    traces: tuple[str, ...]
    paths: WrapperPaths


class ChildWrapper:
    """A wrapper that was started as a child process; `actors.ports.LaunchedWrapper`."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        link: Link,
        plan: LaunchPlan,
        files: JobFiles,
        mark: str,
    ) -> None:
        self._child = child
        self._files = files
        self.link = link
        self.launcher_pid = child.pid
        self.container = plan.container
        self.traces = plan.traces
        # All that the job can write: a container's /tmp and the outputs count, too.
        self.work_directory = str(files.root)
        self.paths = plan.paths
        self.mark = mark

    async def wait(self) -> WrapperExit:
        """Wait until the launched process has ended, and say what it left in its log."""
        try:
            code = await wait_child(self._child)
        finally:
            OWN_CHILDREN.discard(self._child.pid)
        diagnosis = await asyncio.to_thread(self._diagnose) if code else ""
        if code < 0:
            return WrapperExit(signal=-code, diagnosis=diagnosis)
        return WrapperExit(exit_code=code, diagnosis=diagnosis)

    def host_path(self, location: str) -> str:
        """Return where a saved file is on the host: in the attempt's output directory.

        Where that directory is, the wrapper isn't asked; a place outside it is taken as a name.
        """
        inside = os.path.relpath(location, self.paths.output_directory)
        if inside.split("/")[0] == "..":
            inside = os.path.basename(location)
        return str(self._files.output / inside)

    def signal(self, number: int) -> None:
        """Signal the launched process; its session is its own, so KILL takes all of that."""
        if self._child.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGKILL:
                os.killpg(self._child.pid, number)
            else:
                self._child.send_signal(number)

    def _diagnose(self) -> str:
        try:
            said = classify_stderr(read_plain(self._files.log, bytes_max=DIAGNOSIS_BYTES_MAX))
        except OSError:
            return ""
        return f"it said: {said}" if said else ""


def bare_command(executable: str) -> tuple[str, ...]:
    """Return the command line of a bare wrapper: this interpreter, isolated, without site.

    ``-I -S`` keeps the user's own modules and .pth files out; the directories that the
    third-party modules are in are named instead.
    """
    boot = Path(__file__).with_name("wrapper_boot.py")
    return (executable, "-I", "-S", str(boot), "run", *_module_directories())


def is_own_state(path: str, state: str) -> bool:
    """Tell whether a path is the pilot's own: below its state, but for jobs' saved outputs."""
    if path != state and not path.startswith(f"{state}/"):
        return False
    parts = Path(path).relative_to(state).parts
    return not (len(parts) > 4 and parts[0] == "jobs" and parts[3] == "output")


def mapped_inputs(description: JobDescription) -> tuple[tuple[InputFile, ...], tuple[Bind, ...]]:
    """Return the inputs as seen in a container, and the binds that show them there.

    One that can't be read here keeps its path, so that the wrapper's complaint names it.
    """
    mapped, binds = [], []
    for number, file in enumerate((*description.inputs, *description.input_data)):
        if file.is_staged and os.access(file.source, os.R_OK):
            inside = f"{INPUTS_INSIDE}/{number}"
            binds.append(Bind(source=file.source, destination=inside, read_only=True))
            file = msgspec.structs.replace(file, source=inside)
        mapped.append(file)
    return tuple(mapped), tuple(binds)


def _module_directories() -> tuple[str, ...]:
    import cryptography

    files = (msgspec.__file__, cryptography.__file__)
    return tuple(dict.fromkeys(str(Path(file).parent.parent) for file in files if file))


async def _spawned(plan: LaunchPlan, log: Path) -> Spawned:
    """Start the plan's command in a thread; cancelled, end what is started all the same."""
    spawning = asyncio.get_running_loop().run_in_executor(None, _spawn, plan, log)
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        spawning.add_done_callback(_undo)
        raise


def _undo(spawning: asyncio.Future[Spawned]) -> None:
    if not spawning.cancelled() and spawning.exception() is None:
        child, read_fd, write_fd = spawning.result()
        os.close(read_fd)
        os.close(write_fd)
        _abandon(child)


def _abandon(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    OWN_CHILDREN.discard(child.pid)


def _spawn(plan: LaunchPlan, log: Path) -> Spawned:
    """Start the plan's command; return the child and our ends of its stdout and stdin."""
    child_reads, write_fd = os.pipe()
    read_fd, child_writes = os.pipe()
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as stderr:
            child = subprocess.Popen(
                plan.command,
                env=plan.environment,
                stdin=child_reads,
                stdout=child_writes,
                stderr=stderr,
                cwd="/",
                start_new_session=True,
            )
            OWN_CHILDREN.add(child.pid)
    except OSError as error:
        os.close(write_fd)
        os.close(read_fd)
        raise OperatorError(f"{plan.command[0]} can't be started: {error.strerror}") from error
    finally:
        os.close(child_reads)
        os.close(child_writes)
    return child, read_fd, write_fd
