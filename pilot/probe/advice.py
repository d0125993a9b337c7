"""What an administrator is to change: one sentence for each thing that holds a node back.

A table of rules, each a pure function from what was found to the advice that follows from it,
or none. A rule speaks only where its cause was seen to matter: `allow pid ns = no` in the file
of a runtime that gave its container a PID namespace all the same is nobody's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pilot.containers.runtime import Reason
from pilot.probe.facts import Facts, HostFacts, RuntimeFacts
from pilot.probe.verdict import NodeClass, classify
from transport.messages import Record

NAMESPACES = 15000
_SYSCTL_FILE = "/etc/sysctl.d/90-pilot.conf"
_BROKEN = frozenset(
    {
        Reason.NO_ANSWER,
        Reason.FLOODED,
        Reason.NONSENSE,
        Reason.SILENT,
        Reason.WRONG_ANSWER,
    }
)


class Advice(Record, frozen=True, kw_only=True):
    """One thing to change."""

    code: str
    """Short and stable, for counting over a grid: ``enable-underlay``."""
    where: str
    """A file, with the line where there is one; or ``the node``."""
    change: str
    why: str

    def __str__(self) -> str:
        preposition = "In" if self.where.startswith("/") else "On"
        return f"{preposition} {self.where}, {self.change}: {self.why}."


def advise(facts: Facts) -> tuple[Advice, ...]:
    """Return everything to change, what matters most first, each once."""
    found: dict[tuple[str, str], Advice] = {}
    for advice in (*_of_runtimes(facts), *_of_host(facts)):
        found.setdefault((advice.code, advice.where), advice)
    return tuple(found.values())


def _of_runtimes(facts: Facts) -> Iterator[Advice]:
    # Where the kernel refuses namespaces, that is what fails, whatever the runtime makes of it.
    is_explained = classify(facts) is _BEST or _namespaces_off(facts) is not None
    for runtime in facts.runtimes:
        if runtime.in_cvmfs:
            continue
        given = [advice for rule in RUNTIME_RULES if (advice := rule(runtime, facts.host))]
        yield from given
        if runtime.works is False and not given and not is_explained:
            yield _repair(runtime)


def _of_host(facts: Facts) -> Iterator[Advice]:
    yield from (advice for rule in HOST_RULES if (advice := rule(facts)))


# --- one runtime -----------------------------------------------------------------------------


def _set(runtime: RuntimeFacts, code: str, directive: str, value: str, why: str) -> Advice:
    assert runtime.conf is not None, "a directive is set in a file that was read"
    return Advice(
        code=code,
        where=runtime.conf.where(directive),
        change=f"set '{directive} = {value}'",
        why=why,
    )


def _underlay(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.conf is None or runtime.conf.has_underlay:
        return None
    why = "without underlay a directory that an image lacks can't be bound "
    why += "but through overlay" if runtime.has_overlay else "at all"
    return _set(runtime, "enable-underlay", "enable underlay", "yes", why)


def _binds(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.works or runtime.conf is None or not runtime.conf.is_no("user bind control"):
        return None
    why = "a job's own directories can't be bound into its container"
    return _set(runtime, "user-bind-control", "user bind control", "yes", why)


def _pid_namespace(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.own_pid_namespace is not False or runtime.conf is None:
        return None
    if not runtime.conf.is_no("allow pid ns"):
        return None
    why = "without a PID namespace what a job leaves running outlives its container"
    return _set(runtime, "allow-pid-ns", "allow pid ns", "yes", why)


def _user_namespace(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.works is not False or runtime.conf is None:
        return None
    if not runtime.conf.is_no("allow user ns") or not _gave(runtime, Reason.NO_USER_NAMESPACE):
        return None
    why = "the runtime isn't installed setuid and needs a user namespace"
    return _set(runtime, "allow-user-ns", "allow user ns", "yes", why)


def _limits(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.conf is None or not _gave(runtime, Reason.IMAGE_FORBIDDEN):
        return None
    for kind in ("owners", "groups", "paths"):
        directive = f"limit container {kind}"
        if runtime.conf.is_limited(directive):
            return Advice(
                code="limit-container",
                where=runtime.conf.where(directive),
                change=f"take '{directive}' out, or add what holds the experiment's images",
                why="the images of jobs may not be run",
            )
    return None


def _image_kinds(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.conf is None or not _gave(runtime, Reason.IMAGE_FORBIDDEN):
        return None
    for kind in ("dir", "squashfs", "sif"):
        directive = f"allow container {kind}"
        if runtime.conf.is_no(directive):
            why = "images of this kind may not be run"
            return _set(runtime, "allow-container", directive, "yes", why)
    return None


def _loop_devices(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.squashfs_works is not False or runtime.mode != "setuid" or runtime.conf is None:
        return None
    if runtime.conf.number("max loop devices") != 0:
        return None
    why = "image files are mounted through loop devices"
    return _set(runtime, "max-loop-devices", "max loop devices", "256", why)


def _fuse(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.squashfs_works is not False or runtime.mode == "setuid":
        return None
    if host.has_fuse is False:
        return Advice(
            code="dev-fuse",
            where="the node",
            change="load the module fuse (`modprobe fuse`) and let all users read and write "
            "/dev/fuse (`chmod 0666 /dev/fuse`)",
            why="image files (SIF, squashfs) can't be mounted by ordinary users",
        )
    if "squashfuse" in runtime.squashfs_detail:
        return Advice(
            code="squashfuse",
            where="the node",
            change=f"install the package squashfuse ({_install(host, 'squashfuse')})",
            why="image files (SIF, squashfs) can't be mounted by ordinary users",
        )
    return None


def _unknown_user(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.works is not False or not _gave(runtime, Reason.UNKNOWN_USER):
        return None
    return Advice(
        code="passwd-entry",
        where="the node",
        change="give the pilot's user an entry in /etc/passwd or the directory service",
        why=f"{runtime.path} refuses a uid without a name",
    )


def _broken(runtime: RuntimeFacts, host: HostFacts) -> Advice | None:
    if runtime.works is not False or not runtime.steps or runtime.steps[-1].reason not in _BROKEN:
        return None
    return _repair(runtime)


def _repair(runtime: RuntimeFacts) -> Advice:
    if runtime.steps and runtime.steps[-1].reason is Reason.NO_DAEMON:
        return Advice(
            code="start-daemon",
            where="the node",
            change=f"start the daemon of {runtime.path}, if jobs are to use it",
            why="the program is there and its daemon doesn't answer",
        )
    last = runtime.steps[-1].detail if runtime.steps else "it doesn't run the wrapper's self-check"
    return Advice(
        code="repair-runtime",
        where="the node",
        change=f"repair or reinstall {runtime.path}",
        why=f"it is there and doesn't work ({last})",
    )


RuntimeRule = Callable[[RuntimeFacts, HostFacts], Advice | None]
RUNTIME_RULES: tuple[RuntimeRule, ...] = (
    _underlay,
    _binds,
    _user_namespace,
    _limits,
    _image_kinds,
    _unknown_user,
    _broken,
    _pid_namespace,
    _loop_devices,
    _fuse,
)


# --- the node --------------------------------------------------------------------------------


def _no_runtime(facts: Facts) -> Advice | None:
    is_local = any(not runtime.in_cvmfs for runtime in facts.runtimes)
    if is_local:
        return None
    return Advice(
        code="install-apptainer",
        where="the node",
        change=f"install the package apptainer ({_install(facts.host, 'apptainer')})",
        why="it has no container runtime of its own",
    )


def _namespaces_off(facts: Facts) -> Advice | None:
    host = facts.host
    if host.user_namespace in (None, "yes") or _works_setuid(facts):
        return None
    why = "without user namespaces no container runtime works unless it is installed setuid"
    if host.max_user_namespaces is not None and host.max_user_namespaces < 1:
        return _sysctl("user.max_user_namespaces", NAMESPACES, why)
    if host.unprivileged_userns_clone == 0:
        return _sysctl("kernel.unprivileged_userns_clone", 1, why)
    if host.apparmor_restricts_userns == 1:
        return _sysctl("kernel.apparmor_restrict_unprivileged_userns", 0, why)
    if host.user_namespace == "ENOSPC":
        return _sysctl("user.max_user_namespaces", NAMESPACES, f"all are in use, and {why}")
    inside = "" if host.running_in in (None, "None") else f" of {host.running_in}"
    return Advice(
        code="user-namespaces",
        where="the node",
        change=f"let the pilot's surroundings{inside} call unshare(CLONE_NEWUSER), which a seccomp "
        "profile or a security module refuses",
        why=why,
    )


def _proc_masked(facts: Facts) -> Advice | None:
    works = [runtime for runtime in facts.runtimes if runtime.works]
    if not works or any(runtime.own_pid_namespace for runtime in works):
        return None
    if facts.host.nested_pid_namespace in (None, "yes"):
        return None
    if any(runtime.conf is not None and runtime.conf.is_no("allow pid ns") for runtime in works):
        return None
    return Advice(
        code="nested-pid-namespace",
        where="the node",
        change="run the pilot where /proc can be mounted (in Kubernetes 'procMount: Unmasked', "
        "in Docker '--security-opt systempaths=unconfined')",
        why="its containers get no PID namespace, and what a job leaves running outlives them",
    )


def _cvmfs_hung(facts: Facts) -> Advice | None:
    if not facts.host.cvmfs_hung:
        return None
    return Advice(
        code="cvmfs-hung",
        where="the node",
        change="restart CVMFS (`cvmfs_config killall`, then `cvmfs_config probe`)",
        why="/cvmfs doesn't answer",
    )


HostRule = Callable[[Facts], Advice | None]
HOST_RULES: tuple[HostRule, ...] = (_no_runtime, _namespaces_off, _proc_masked, _cvmfs_hung)


def _sysctl(name: str, value: int, why: str) -> Advice:
    return Advice(
        code=name,
        where="the node",
        change=f"run `sysctl -w {name}={value}` and write '{name} = {value}' into {_SYSCTL_FILE}",
        why=why,
    )


def _install(host: HostFacts, package: str) -> str:
    families = {host.os_release.get("ID", ""), *host.os_release.get("ID_LIKE", "").split()}
    if families & {"rhel", "fedora", "centos", "almalinux", "rocky"}:
        return f"`dnf install epel-release {package}`"
    if families & {"debian", "ubuntu"}:
        return f"`apt-get install {package}`"
    if families & {"suse", "opensuse", "sles"}:
        return f"`zypper install {package}`"
    return "with the node's package manager"


def _gave(runtime: RuntimeFacts, reason: Reason) -> bool:
    return any(step.reason is reason for step in runtime.steps)


def _works_setuid(facts: Facts) -> bool:
    return any(runtime.works and runtime.mode == "setuid" for runtime in facts.runtimes)


_BEST = NodeClass.FULLY_COMPATIBLE
