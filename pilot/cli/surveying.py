"""`pilot survey`: what a whole grid supports, from its nodes' probe reports."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pilot.cli.views import as_json as json_line
from pilot.survey import Survey, survey_csv, survey_json
from pilot.survey.charts import check_plotting, site_label
from pilot.survey.page import survey_page
from pilot.survey.summary import FIGURE_TITLES, keys_lines, not_counted, place, summary
from pilot.survey.tally import Classes, Tally
from transport.errors import OperatorError, UserError

SITES_SHOWN_MAX = 20
_KEYS_SHOWN_MAX = 40
_COLUMNS = ("full", "no underlay", "CVMFS", "none")


def survey(
    reports: Annotated[
        list[str],
        typer.Argument(
            help="Reports of `pilot probe --json`: files, directories, or - for stdin.",
            metavar="REPORT...",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, one line a site.")] = False,
    html: Annotated[str, typer.Option(help="Write a page with charts.", metavar="FILE")] = "",
    is_all: Annotated[bool, typer.Option("--all", help="Every site and key.")] = False,
) -> None:
    """Count what the nodes of a grid support, by site and overall.

    The newest report of a node counts. Reports that can't be used are named on stderr. Exit code
    2 if none can be used; 3 if --html is asked for and there is no plotting library.
    """
    if as_json and as_csv:
        raise UserError("--json and --csv can't be had at once: run the survey once for each.")
    if html:
        check_plotting()
    counted = Survey.of(reports)
    if not counted.reports:
        raise UserError(_nothing_usable(counted, reports))
    if html:
        write_whole(Path(html), survey_page(counted, sites_max=None if is_all else 200))
    if as_json:
        _write([json_line(survey_json(counted))])
    elif as_csv:
        _write(survey_csv(counted))
    else:
        _print_tables(counted, is_all=is_all)
    sys.stdout.flush()
    for line in not_counted(counted):
        sys.stderr.write(f"{line}\n")


def _nothing_usable(counted: Survey, reports: Iterable[str]) -> str:
    where = ", ".join(islice(reports, 3))
    if not counted.troubles:
        return (
            f"There is no report in {where}: give files with the output of `pilot probe --json`, "
            "or directories with such files (*.json, *.jsonl, *.ndjson, also with .gz)."
        )
    first = place(*counted.troubles[0])
    return f"No report of {counted.broken:,} in {where} can be used; the first: {first}"


def write_whole(path: Path, text: str) -> None:
    """Write a file such that it is never seen half written; raises `OperatorError`."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OperatorError(f"{path} can't be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0o077)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OperatorError(f"{path} can't be written: {error.strerror}") from error


def _write(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _print_tables(counted: Survey, *, is_all: bool) -> None:
    console = Console(highlight=False)
    overall = counted.overall()
    for sentence in summary(counted, overall):
        console.print(Text(sentence))
    for part in (
        _figure_table(overall),
        _site_table(counted, overall.classes, None if is_all else SITES_SHOWN_MAX),
        _key_table(overall, None if is_all else _KEYS_SHOWN_MAX),
    ):
        console.print()
        console.print(part)


def _figure_table(overall: Tally) -> Table:
    table = _table("of all nodes, %", ("yes", "no", "unknown"))
    for name, title in FIGURE_TITLES.items():
        counts = overall.figure(name).values()
        table.add_row(title, *(_share(count, overall.nodes) for count in counts))
    return table


def _site_table(counted: Survey, overall: Classes, sites_max: int | None) -> Table:
    table = _table("site, % of its nodes", ("nodes", *_COLUMNS))
    rest, left_out = Classes(), 0
    for number, site in enumerate(counted.sites()):
        classes = counted.classes(site)
        if sites_max is None or number < sites_max:
            table.add_row(Text(site_label(site)), *_site_row(classes))
        else:
            left_out += 1
            rest.add(classes)
    if left_out:
        table.add_row(f"{left_out:,} smaller sites (--all)", *_site_row(rest))
    table.add_row("all", *_site_row(overall), style="bold")
    return table


def _site_row(classes: Classes) -> list[str]:
    shares = (_share(count, classes.nodes) for count in classes.each().values())
    return [f"{classes.nodes:,}", *shares]


def _key_table(overall: Tally, keys_max: int | None) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    table.add_column("values, % of all nodes", overflow="fold")
    for name, line in keys_lines(overall, keys_max):
        table.add_row(Text(name), Text(line))
    return table


def _table(first: str, others: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _share(count: int, nodes: int) -> str:
    return f"{100 * count / nodes:.1f}"
