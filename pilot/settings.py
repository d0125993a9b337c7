"""Settings: one TOML file, the environment's ``PILOT_*``, flags; weak to strong in this order.

Each value remembers where it came from, so that `pilot settings` can tell. A value that can't
be used is a `UserError` that names the place and the key.
"""

from __future__ import annotations

import os
import platform
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_type_hints

import msgspec

from actors.slots import Resources
from pilot.confinement.ladder import BareConfinement
from pilot.containers.dialects import chosen_dialects, split_list
from pilot.containers.ladder import ContainerPolicy
from pilot.images import check_digest
from transport.errors import UserError
from transport.messages import Record

DEFAULT_FILES = ("pilot.toml",)
MEMORY_PER_CORE_BYTES = 8_000_000_000
_VARIABLE_PREFIX = "PILOT_"
_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    dict[str, str]: 'a table of lines like "/alice/cern.ch" = "directory"',
    ContainerPolicy: " or ".join(ContainerPolicy),
    BareConfinement: " or ".join(BareConfinement),
}


class Settings(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, with its default."""

    state: str = ".pilot"
    """Directory of the embedded queue, the jobs, and the logs."""
    node: str = msgspec.field(default_factory=platform.node)
    site: str = ""
    cores: int = 0
    """0: as many as the machine lets this process use."""
    memory_bytes: int = 0
    """0: 8 GB a core or what the machine has, whichever is more. It is what jobs may *ask* for;
    what they use is measured."""
    disk_bytes: int = 0
    """0: 10 GB a core or what is free in the state directory, whichever is more."""
    time_left_s: float = 7 * 86400.0
    container: ContainerPolicy = ContainerPolicy.PREFER
    runtimes: str = ""
    """Which container runtimes to try and in which order, separated by commas; empty: all."""
    image: str = ""
    """For jobs that name none."""
    image_digest: str = ""
    """``sha256:...`` that this image must have; empty: whatever it is."""
    image_cache: str = ""
    """Directory for images that were fetched or unpacked; empty: in the state directory."""
    image_cache_bytes: int = 20_000_000_000
    """How much it may hold; what is in use stays."""
    binds: str = "/cvmfs"
    """Directories of the node that jobs see, read-only, at the same place in their container,
    separated by commas; one that isn't there is left out."""
    container_check_s: float = 30.0
    """For one try of a container runtime; one that takes longer doesn't work."""
    bare_confinement: BareConfinement = BareConfinement.PREFER
    """Whether wrappers without a container are confined by namespaces and Landlock."""
    bundle: str = ""
    """Directory with published bundles (``pilot bundle DIR``), on CVMFS say. Where this very
    release's isn't among them, or where it is empty, one is made in the state directory."""
    catalogue: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    """Catalogue prefix (``/alice/cern.ch``) to the directory that stands for it here."""
    packages_command: str = ""
    """What prints the environment of a job's Packages, given joined by commas:
    ``/cvmfs/alice.cern.ch/bin/alienv printenv``; empty: they are not set up."""
    heartbeat_s: float = 5.0
    poll_s: float = 1.0
    lease_s: float = 60.0
    zombie_s: float = 60.0
    attempts_max: int = 3
    stop_grace_s: float = 5.0
    saving_s: float = 300.0
    sample_s: float = 1.0
    link_heartbeat_s: float = 10.0
    link_silence_s: float = 60.0
    trust_domain: str = "pilot.local"
    certificate_lifetime_s: float = 21600.0
    token_file: str = ""
    """A bearer token (0600) to hand to every job, read again every hour; empty: none."""
    log_level: str = "info"
    log_format: str = "console"
    log_file: str = ""
    """Empty: agent.log in the state directory; "-": stderr."""

    @property
    def state_directory(self) -> Path:
        """The state directory, absolute."""
        return Path(self.state).absolute()

    @property
    def image_directory(self) -> Path:
        """Where images are kept."""
        return Path(self.image_cache or self.state_directory / "images").absolute()

    @property
    def queue_file(self) -> Path:
        """The embedded queue's file."""
        return self.state_directory / "queue.sqlite"

    @property
    def published_bundles(self) -> Path | None:
        """Where published bundles are; None where there are none."""
        return Path(self.bundle).absolute() if self.bundle else None

    def resources(self) -> Resources:
        """Return what the node offers to jobs."""
        cores = self.cores or len(os.sched_getaffinity(0))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Resources(
            cpu_cores=cores,
            memory_bytes=self.memory_bytes or max(memory, cores * MEMORY_PER_CORE_BYTES),
            disk_bytes=self.disk_bytes or max(_free_bytes(self.state), cores * 10_000_000_000),
        )


class Effective(Record, frozen=True, kw_only=True):
    """Settings as they came out, and where each value is from."""

    settings: Settings
    origins: dict[str, str]


def load_settings(
    flags: Mapping[str, object], *, file: str = "", environment: Mapping[str, str]
) -> Effective:
    """Put settings together; ``flags`` holds only what was given on the command line.

    Raises `UserError` for an unknown key, a value of the wrong kind, or an unreadable file.
    """
    values: dict[str, object] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, "default")
    for origin, layer in (_from_file(file), _from_environment(environment), ("flag", flags)):
        for name, value in layer.items():
            values[name] = value
            origins[name] = f"{origin} {_variable(name)}" if origin == "environment" else origin
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(_explained(str(error), values, origins)) from error
    _check(settings, origins)
    return Effective(settings=settings, origins=origins)


def _from_file(file: str) -> tuple[str, dict[str, object]]:
    chosen = file or next((name for name in DEFAULT_FILES if Path(name).is_file()), "")
    if not chosen:
        return "", {}
    try:
        content = tomllib.loads(Path(chosen).read_text())
    except OSError as error:
        raise UserError(f"The settings file {chosen} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The settings file {chosen} is not TOML: {error}.") from error
    for name in content:
        if name not in Settings.__struct_fields__:
            known = ", ".join(Settings.__struct_fields__)
            raise UserError(f"{chosen}: there is no setting {name!r}; there are {known}.")
    # A directory in a file is meant relative to that file.
    if isinstance(catalogue := content.get("catalogue"), dict):
        here = Path(chosen).absolute().parent
        content["catalogue"] = {name: str(here / str(place)) for name, place in catalogue.items()}
    return chosen, content


def _from_environment(environment: Mapping[str, str]) -> tuple[str, dict[str, object]]:
    names = (name for name in Settings.__struct_fields__ if name != "catalogue")
    found = {name: environment[_variable(name)] for name in names if _variable(name) in environment}
    return "environment", dict(found)


def _variable(name: str) -> str:
    return _VARIABLE_PREFIX + name.upper()


def _explained(error: str, values: Mapping[str, object], origins: Mapping[str, str]) -> str:
    name = error.rpartition("$.")[2].rstrip("`").partition("[")[0]
    if name in values:
        return (
            f"The setting {name} = {values[name]!r} ({origins[name]}) can't be used: "
            f"write {_KINDS[get_type_hints(Settings)[name]]}."
        )
    return f"The settings can't be used: {error}."


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        may_be_zero = name in ("cores", "memory_bytes", "disk_bytes", "stop_grace_s")
        if isinstance(value, int | float) and not (value >= 0 if may_be_zero else value > 0):
            raise UserError(
                f"The setting {name} = {value} ({origins[name]}) can't be used: "
                f"it must be {'0 or more' if may_be_zero else 'more than 0'}."
            )
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise UserError(
            f"The setting log_level = {settings.log_level!r} ({origins['log_level']}) can't be "
            "used: write debug, info, warning or error."
        )
    try:
        chosen_dialects(settings.runtimes)
    except UserError as error:
        raise UserError(f"{error} It is the setting runtimes ({origins['runtimes']}).") from None
    for path in split_list(settings.binds):
        if not path.startswith("/"):
            raise UserError(
                f"The setting binds = {settings.binds!r} ({origins['binds']}) can't be used: "
                f"{path!r} is not an absolute path."
            )
    if settings.image_digest and not settings.image:
        raise UserError(
            f"The setting image_digest ({origins['image_digest']}) can't be used without image: "
            "it is the digest that this image must have."
        )
    if settings.image_digest:
        check_digest(settings.image_digest, f"The setting image_digest ({origins['image_digest']})")
    if settings.log_format not in ("console", "json"):
        raise UserError(
            f"The setting log_format = {settings.log_format!r} ({origins['log_format']}) can't be "
            "used: write console or json."
        )


def _free_bytes(state: str) -> int:
    place = Path(state).absolute()
    while not place.exists():
        place = place.parent
    try:
        status = os.statvfs(place)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
