"""Finding a runtime's configuration file: it says itself, or it lies where it always does."""

from __future__ import annotations

from collections.abc import Mapping

from pilot.bounded_process import run_bounded
from pilot.containers.runtime import Runtime, RuntimeKind, host_environment
from pilot.probe.runtime_conf import RuntimeConf, parse_conf
from pilot.probe.workshop import TOOLS
from transport.messages import Record

CONF_BYTES_MAX = 256 * 1024
WITH_CONF = (RuntimeKind.APPTAINER, RuntimeKind.SINGULARITY)
# Its own word (since Singularity 3.0), and whether it can be asked for underlay (Apptainer 1.3).
_ASK = """
"$@" buildcfg 2>/dev/null </dev/null | grep '_CONF_FILE='
"$@" exec --help 2>/dev/null </dev/null | grep -o -e '--underlay' | head -n 1
"""
_READ = """
for file; do
  if [ -f "$file" ] && [ -r "$file" ]; then printf '%s\\n' "$file"; exec cat "$file"; fi
done
exit 1
"""


class FoundConf(Record, frozen=True, kw_only=True):
    """A runtime's configuration, and what it can be asked."""

    conf: RuntimeConf | None = None
    takes_underlay: bool = False
    """It has the option ``--underlay``."""


async def find_conf(runtime: Runtime, *, host: Mapping[str, str], timeout_s: float) -> FoundConf:
    """Ask a runtime for its configuration file and read it; wait ``timeout_s`` at most, twice."""
    if runtime.kind not in WITH_CONF:
        return FoundConf()
    asked = await run_bounded(
        ("/bin/sh", "-c", _ASK, "sh", runtime.path, *runtime.arguments),
        environment=host_environment(host) | TOOLS,
        timeout_s=timeout_s,
    )
    answer = asked.stdout.decode(errors="surrogateescape").splitlines()
    read = await run_bounded(
        ("/bin/sh", "-c", _READ, "sh", *_candidates(runtime, answer)),
        environment=TOOLS,
        timeout_s=timeout_s,
        output_bytes_max=CONF_BYTES_MAX,
    )
    path, _, text = read.stdout.decode(errors="replace").partition("\n")
    conf = parse_conf(path, text) if read.exit_code == 0 and path else None
    return FoundConf(conf=conf, takes_underlay="--underlay" in answer)


def _candidates(runtime: Runtime, answer: list[str]) -> tuple[str, ...]:
    """Return where it may be, the likeliest first; what it was told counts alone."""
    if "-c" in runtime.arguments:
        return (runtime.arguments[runtime.arguments.index("-c") + 1],)
    told = [line.partition("=")[2] for line in answer if "_CONF_FILE=" in line]
    prefix, is_installed, _ = runtime.path.rpartition("/bin/")
    usual = f"{prefix.removesuffix('/usr')}/etc/{runtime.kind}/{runtime.kind}.conf"
    return tuple(
        path for path in (*told, *([usual] if is_installed else [])) if path.startswith("/")
    )
