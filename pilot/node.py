"""A node: the actors and their ports, put together.

`Node` is what another asyncio program embeds: it brings a TaskQueue, and may bring any other
port. `real_ports` is what stands behind `python -m pilot`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from actors.credential_vault import CredentialVault
from actors.job_agent import AgentOptions, AgentPorts, JobAgent
from actors.messages import Drain, StopAll
from actors.monitor import MonitorOptions
from actors.ports import AgentIdentity, Authority, Clock, ProcessTable, TaskQueue, WrapperLauncher
from actors.reporter import JobLog
from actors.runtime import ActorSystem, Address, SystemStatistics
from actors.supervision import ChildSpec, Restart
from actors.work_unit import WorkOptions
from pilot import children
from pilot.agent_log import AgentLog
from pilot.authority import NodeAuthority
from pilot.bundle import take_bundle
from pilot.clock import SystemClock
from pilot.containers.dialects import chosen_dialects, split_list
from pilot.containers.ladder import ContainerTools, Ladder
from pilot.containers.memory import Memory
from pilot.containers.runtime import Bind
from pilot.containers.search import find_runtimes, inspect_file
from pilot.containers.trial import Trial
from pilot.images import ImageStore, StoreOptions
from pilot.launching import LauncherOptions, NodeLauncher
from pilot.process_table import LocalProcessTable, own_mark
from pilot.procfs import AGENT_VARIABLE
from pilot.queue import QueuePolicy
from pilot.settings import Settings
from transport.messages import CredentialKind
from transport.session import LinkOptions

CANCELLED_S = 30.0
"""Beyond the jobs' own grace: for what a cancelled node still has to save and clean up."""


class NodePorts(msgspec.Struct, frozen=True, kw_only=True):
    """What a node needs from the world, but for its queue."""

    launcher: WrapperLauncher
    table: ProcessTable
    authority: Authority
    clock: Clock
    log: Callable[[str, str], None]
    job_log: Callable[[int, int], JobLog]
    note_crash: Callable[[str, Exception], None]
    identity: AgentIdentity | None = None
    """The agent's own, for services that ask who it is; kept by the vault."""


class Node:
    """One agent with its vault, running the jobs that a queue gives it."""

    def __init__(self, queue: TaskQueue, ports: NodePorts, options: AgentOptions) -> None:
        self._queue = queue
        self._ports = ports
        self._options = options
        self._system = ActorSystem(on_crash=ports.note_crash)
        self._agent: Address | None = None
        self._before_start: list[Drain | StopAll] = []

    async def run(self) -> None:
        """Run jobs until drained; cancelled, it gives its jobs back first.

        Cancelling takes the jobs' grace and half a minute more at most, and leaves nothing
        running.

        Raises `actors.runtime.ActorCrashed` when the agent itself is lost.
        """
        async with self._system as system:
            vault = system.spawn(
                ChildSpec(
                    name="vault",
                    make=partial(
                        CredentialVault,
                        self._ports.authority,
                        self._ports.clock,
                        identity=self._ports.identity,
                    ),
                    restart=Restart.TRANSIENT,
                )
            )
            ports = AgentPorts(
                queue=self._queue,
                launcher=self._ports.launcher,
                table=self._ports.table,
                clock=self._ports.clock,
                vault=vault,
                log=self._ports.log,
                job_log=self._ports.job_log,
            )
            make = partial(JobAgent, ports, self._options)
            self._agent = system.spawn(ChildSpec(name="agent", make=make))
            for message in self._before_start:
                self._agent.tell(message)
            try:
                await self._agent.wait_ended()
            except asyncio.CancelledError:
                await self._stop_soon(self._agent)
                raise

    async def _stop_soon(self, agent: Address) -> None:
        """Give the jobs back and wait, within a bound, until nothing of them runs."""
        self.stop("node", "the program that runs this node cancelled it")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.work.stop_grace_s + CANCELLED_S):
                await agent.wait_ended()

    def drain(self, why: str) -> None:
        """Take no more jobs; `run` returns when the present ones have ended."""
        self._tell(Drain(why=why))

    def stop(self, by: str, why: str) -> None:
        """Drain, and stop the present jobs: they are given back to the queue."""
        self._tell(StopAll(by=by, why=why))

    def statistics(self) -> SystemStatistics:
        """Return what each actor's mailbox holds and has seen."""
        return self._system.statistics()

    def _tell(self, message: Drain | StopAll) -> None:
        if self._agent is None:
            self._before_start.append(message)
        else:
            self._agent.tell(message)


def agent_options(settings: Settings) -> AgentOptions:
    """Return the agent's options, as set."""
    tokens = (CredentialKind.TOKEN,) if settings.token_file else ()
    return AgentOptions(
        node=settings.node,
        site=settings.site,
        resources=settings.resources(),
        time_left_s=settings.time_left_s,
        heartbeat_s=settings.heartbeat_s,
        poll_s=settings.poll_s,
        work=WorkOptions(
            stop_grace_s=settings.stop_grace_s,
            saving_s=settings.saving_s,
            log_level=settings.log_level,
            log_format=settings.log_format,
            credentials=(CredentialKind.CERTIFICATE, *tokens),
            monitor=MonitorOptions(interval_s=settings.sample_s),
        ),
    )


def queue_policy(settings: Settings) -> QueuePolicy:
    """Return the embedded queue's policy, as set."""
    return QueuePolicy(
        lease_s=settings.lease_s, zombie_s=settings.zombie_s, attempts_max=settings.attempts_max
    )


def real_launcher(settings: Settings) -> NodeLauncher:
    """Return what launches wrappers on this machine."""
    options = LauncherOptions(
        state=settings.state_directory,
        site=settings.site,
        policy=settings.container,
        image=settings.image,
        image_digest=settings.image_digest,
        bare=settings.bare_confinement,
        packages_command=settings.packages_command,
        link=LinkOptions(heartbeat_s=settings.link_heartbeat_s, silence_s=settings.link_silence_s),
    )
    return NodeLauncher(options, os.environ, partial(make_ladder, settings))


def real_ports(
    settings: Settings, log: AgentLog, launcher: WrapperLauncher, *, is_own_process: bool
) -> NodePorts:
    """Return the adapters of this machine.

    ``is_own_process``: the process is the pilot's alone, so orphans may come to it and be
    swept. Embedded in another program it must be False: that program's children are its own.
    """
    clock = SystemClock()
    mark = ""
    if is_own_process and children.become_subreaper():
        mark = own_mark()
        os.environ[AGENT_VARIABLE] = mark
    state = settings.state_directory
    authority = NodeAuthority.open(
        str(state / "authority"),
        clock=clock,
        trust_domain=settings.trust_domain,
        lifetime_s=settings.certificate_lifetime_s,
        token_file=settings.token_file,
    )
    identity = authority.agent_identity(settings.node)
    log.agent()("info", f"this agent is {identity.spiffe_id}")
    return NodePorts(
        launcher=launcher,
        table=LocalProcessTable(mark),
        authority=authority,
        clock=clock,
        log=log.agent(),
        job_log=log.job,
        note_crash=log.crash,
        identity=identity,
    )


async def make_ladder(settings: Settings) -> Ladder:
    """Find the runtimes and build the bundle: when the first job wants a container."""
    dialects = chosen_dialects(settings.runtimes)
    runtimes = await find_runtimes(os.environ.get("PATH", os.defpath), dialects)
    taken = await take_bundle(settings.state_directory, settings.published_bundles, os.environ)
    scratch = settings.state_directory / "checks"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    trial = Trial(
        bundle=taken.bundle,
        scratch_directory=scratch,
        make_nonce=partial(secrets.token_hex, 8),
        host=os.environ,
        site_binds=await _site_binds(split_list(settings.binds)),
        timeout_s=settings.container_check_s,
    )
    options = StoreOptions(bytes_max=settings.image_cache_bytes)
    images = await asyncio.to_thread(ImageStore, settings.image_directory, options)
    notes = (taken.note,) if taken.note else ()
    tools = ContainerTools(runtimes=runtimes, images=images, trial=trial, notes=notes)
    memory = await asyncio.to_thread(Memory, settings.state_directory / "verified.json")
    return Ladder(tools, memory, SystemClock())


async def _site_binds(paths: Sequence[str]) -> tuple[Bind, ...]:
    """Return those that are there; a dead mount is none, and is not waited for."""
    looks = await asyncio.gather(*(inspect_file(path) for path in paths))
    return tuple(
        Bind(source=path, destination=path, read_only=True)
        for path, look in zip(paths, looks, strict=True)
        if not look.problem
    )
