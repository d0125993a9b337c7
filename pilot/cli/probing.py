"""`pilot probe`: what this node supports, for a person or for a survey."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pilot.clock import SystemClock
from pilot.containers.dialects import chosen_dialects, split_list
from pilot.printable import printable
from pilot.probe import MEANINGS, NodeClass, Probe, ProbeOptions, Report
from pilot.probe.report import ImageLine, RuntimeLine
from pilot.settings import Settings

_SIDE_BY_SIDE = 24  # looks and trials at once; more than a node ever has
_STYLES = {
    NodeClass.FULLY_COMPATIBLE: "bold green",
    NodeClass.UNDERLAY_DISABLED: "bold yellow",
    NodeClass.CVMFS_ONLY: "bold yellow",
    NodeClass.NONE: "bold red",
}
_LONG = ("CPU_", "OS_", "RAM_", "UNAME")
_PLACES = ("/tmp", "/var/tmp")  # noqa: S108 - a new directory of its own is made there
_SHOWN = frozenset({"CPU_model_name", "OS_PRETTY_NAME"})
"""Of the long families, what a person is shown; the rest is in the JSON."""


def probe_options(settings: Settings, host: Mapping[str, str], **given: str) -> ProbeOptions:
    """Return what to probe: as set, with ``image`` and ``runtime_config`` as given."""
    state = str(settings.state_directory)
    config = given.get("runtime_config", "")
    return ProbeOptions(
        node=settings.node,
        site=settings.site,
        host=dict(host),
        places=(state, host.get("TMPDIR", tempfile.gettempdir()), *_PLACES),
        bundle_place=state if settings.state_directory.is_dir() else "",
        image_cache=str(settings.image_directory) if settings.state_directory.is_dir() else "",
        image_cache_bytes=settings.image_cache_bytes,
        published=str(settings.published_bundles or ""),
        runtimes=tuple(dialect.kind for dialect in chosen_dialects(settings.runtimes)),
        runtime_arguments=("-c", str(Path(config).absolute())) if config else (),
        image=given.get("image", ""),
        binds=split_list(settings.binds),
    )


def probe_node(options: ProbeOptions) -> Report:
    """Probe this node; takes ten seconds at most, longer only for an image to be checked."""
    return asyncio.run(_probe(options))


async def _probe(options: ProbeOptions) -> Report:
    # What hangs keeps its thread for a while; the default has few on a node with few cores.
    executor = ThreadPoolExecutor(_SIDE_BY_SIDE)
    asyncio.get_running_loop().set_default_executor(executor)
    probe = Probe(options, clock=SystemClock(), make_nonce=partial(secrets.token_hex, 8))
    return await probe.run()


def report_json(report: Report) -> object:
    """Return what `probe --json` prints."""
    return msgspec.to_builtins(report)


# --- for a person ----------------------------------------------------------------------------


def show_report(report: Report, console: Console) -> None:
    """Print a report as tables."""
    head = Text("class    ") + Text(report.class_.value, style=_STYLES[report.class_])
    console.print(head + Text(f"  {MEANINGS[report.class_]}"))
    console.print(f"node     {report.node}" + (f"  site {report.site}" if report.site else ""))
    for reason in report.reasons:
        console.print(Text(f"  {printable(reason)}"))
    if report.advice:
        console.print(Text("\nadvice for the administrator", style="bold"))
        for advice in report.advice:
            console.print(Text(f"  {printable(advice.sentence)}"))
    if report.runtimes:
        console.print(Text("\nruntimes", style="bold"))
        console.print(_runtime_table(report.runtimes))
    if report.image is not None:
        console.print(Text("\nimage", style="bold"))
        for line in _image_lines(report.image):
            console.print(Text(f"  {printable(line)}"))
    console.print(Text("\nkeys", style="bold"))
    console.print(_key_table(report))


def plain_report(report: Report) -> Iterator[str]:
    """Yield a report as lines, for where no terminal is."""
    yield f"class: {report.class_.value} ({MEANINGS[report.class_]})"
    yield f"node: {report.node}" + (f", site {report.site}" if report.site else "")
    yield from (f"reason: {reason}" for reason in report.reasons)
    yield from (f"advice: {advice.sentence}" for advice in report.advice)
    for runtime in report.runtimes:
        yield f"runtime: {', '.join(cell for cell in _runtime_cells(runtime) if cell)}"
    if report.image is not None:
        yield from (f"image: {line}" for line in _image_lines(report.image))
    for name, value in _shown_keys(report):
        yield f"{name}: {value}"


def _runtime_table(runtimes: tuple[RuntimeLine, ...]) -> Table:
    table = Table(box=None, pad_edge=True)
    for title in ("name", "path", "version", "works", "mode", "PID ns", "layers"):
        table.add_column(title, overflow="fold")
    for runtime in runtimes:
        table.add_row(*(Text(printable(cell)) for cell in _runtime_cells(runtime)))
    return table


def _runtime_cells(runtime: RuntimeLine) -> tuple[str, ...]:
    works = {True: "works", False: f"doesn't work [{runtime.reason}]", None: "not seen"}
    pid = {True: "own PID namespace", False: "no PID namespace", None: ""}
    layers = [n for n, has in (("underlay", runtime.underlay), ("overlay", runtime.overlay)) if has]
    return (
        runtime.name,
        runtime.path,
        runtime.version,
        works[runtime.works],
        runtime.mode or "",
        pid[runtime.own_pid_namespace],
        " and ".join(layers),
    )


def _image_lines(image: ImageLine) -> Iterator[str]:
    for step in image.steps:
        on = f" on its {step.on}" if step.on else ""
        how = f" {step.how}" if step.how else ""
        yield f"{step.runtime}{how}{on}: [{step.reason}] {step.detail}"
    if image.works:
        yield f"{image.image} works with {image.runtime} {image.how}, mounted on its {image.on}"
        return
    yield f"{image.image} doesn't work here; a job would run bare"
    if not image.steps:
        yield from image.reasons


def _shown_keys(report: Report) -> Iterator[tuple[str, str]]:
    for name, value in report.keys.items():
        if not name.startswith(_LONG) or name in _SHOWN:
            yield name, "unknown" if value is None else printable(str(value))


def _key_table(report: Report) -> Table:
    table = Table(box=None, pad_edge=True, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _shown_keys(report):
        table.add_row(name, Text(value))
    return table
