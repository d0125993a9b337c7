"""The commands, each a few lines over the queue or the node."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from pilot.cli import views
from pilot.cli.bundling import bundle_line, made_bundle
from pilot.cli.logs import job_logs
from pilot.cli.probing import plain_report, probe_node, probe_options, report_json, show_report
from pilot.cli.running import Campaign, run_agent, run_campaign
from pilot.cli.submitting import parse_files, submit_all
from pilot.cli.surveying import survey
from pilot.clock import SystemClock
from pilot.containers.ladder import ContainerPolicy
from pilot.images import from_directory, local_path, parse_reference
from pilot.jdl import unknown_keys_note
from pilot.node import queue_policy
from pilot.printable import printable
from pilot.queue import KillAnswer, QueueStore
from pilot.settings import Effective, Settings, load_settings
from transport.errors import UserError

app = typer.Typer(
    name="pilot",
    help="The two-layer job pilot: runs a grid's jobs on this node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StateFlag = Annotated[
    str, typer.Option("--state", help="Directory of the queue, the jobs and the logs.")
]
SettingsFlag = Annotated[str, typer.Option("--settings", help="Settings file (TOML).")]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
JobId = Annotated[int, typer.Argument(help="The job's number.", metavar="ID")]
Files = Annotated[list[Path], typer.Argument(help="JDL files.", metavar="JDL...")]


@app.command()
def run(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="JDL files to submit and see through.", metavar="JDL..."),
    ] = None,
    state: StateFlag = "",
    settings_file: SettingsFlag = "",
    container: Annotated[
        ContainerPolicy | None, typer.Option(help="Whether jobs must run in a container.")
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="Container runtimes to try, in this order, with commas between.")
    ] = "",
    image: Annotated[str, typer.Option(help="Container image for jobs that name none.")] = "",
    image_digest: Annotated[str, typer.Option(help="sha256:... that this image must have.")] = "",
    cores: Annotated[int | None, typer.Option(help="Cores to offer.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "",
    log_format: Annotated[str, typer.Option(help="console or json.")] = "",
    log_file: Annotated[str, typer.Option(help='The agent\'s log; "-": stderr.')] = "",
    as_json: JsonFlag = False,
) -> None:
    """Run an agent; with JDL files: submit them, and run until all are final.

    Ctrl-C once: no new jobs, the present ones are finished. Twice: they are stopped and given
    back. Exit code 0 only if every given job ended DONE; 1 if one didn't; 2 for a mistake in
    what was given; 3 when the pilot itself couldn't work.
    """
    settings = _settings(
        settings_file,
        state=state,
        container=container,
        runtimes=runtime,
        image_digest=image_digest,
        image=from_directory(image, Path()) if image else image,
        cores=cores,
        log_level=log_level,
        log_format=log_format,
        log_file=log_file,
    ).settings
    _check_image(settings)
    if not files:
        raise typer.Exit(asyncio.run(run_agent(settings)))
    parsed = parse_files(files, settings.catalogue)
    campaign = Campaign(parsed, as_json=as_json)
    raise typer.Exit(asyncio.run(run_campaign(settings, campaign)))


@app.command()
def submit(
    files: Files, state: StateFlag = "", settings_file: SettingsFlag = "", as_json: JsonFlag = False
) -> None:
    """Put jobs into the queue; an agent (`pilot run`) takes them from there."""
    settings = _settings(settings_file, state=state).settings
    parsed = parse_files(files, settings.catalogue)
    for jdl in parsed:
        if note := unknown_keys_note(jdl.description):
            sys.stderr.write(f"pilot: {jdl.path}: {printable(note)}\n")
    with _store(settings) as store:
        ids = submit_all(store, parsed, SystemClock().now())
        for row in store.jobs(ids):
            print_line(views.as_json(views.row_json(row)) if as_json else views.plain_line(row))


@app.command()
def jobs(
    state: StateFlag = "", settings_file: SettingsFlag = "", as_json: JsonFlag = False
) -> None:
    """List the jobs of the queue."""
    with _existing_store(_settings(settings_file, state=state).settings) as store:
        rows = store.jobs()
    if as_json:
        for row in rows:
            print_line(views.as_json(views.row_json(row)))
    elif rows:
        Console(highlight=False).print(views.job_table(rows))
    else:
        print_line("There are no jobs.")


@app.command()
def show(
    job_id: JobId,
    state: StateFlag = "",
    settings_file: SettingsFlag = "",
    as_json: JsonFlag = False,
) -> None:
    """Tell everything about a job: history, processes, usage, outputs, traces."""
    with _existing_store(_settings(settings_file, state=state).settings) as store:
        job = store.job(job_id)
    if as_json:
        print_line(views.as_json(views.detail_json(job)))
    else:
        for line in views.told(job):
            print_line(line)


@app.command()
def logs(
    job_id: JobId,
    state: StateFlag = "",
    settings_file: SettingsFlag = "",
    which: Annotated[
        str, typer.Option(help="stdout, stderr, wrapper, or all.", metavar="NAME")
    ] = "all",
    as_json: JsonFlag = False,
) -> None:
    """Print a job's stdout and stderr, and the wrapper's own log."""
    settings = _settings(settings_file, state=state).settings
    with _existing_store(settings) as store:
        job = store.job(job_id)
    found = job_logs(settings.state_directory, job, which)
    if as_json:
        texts = {name: text.decode(errors="replace") for name, text in found.items()}
        print_line(views.as_json({"id": job_id, **texts}))
        return
    for name, text in found.items():
        if len(found) > 1:
            print_line(f"--- {name}")
        sys.stdout.flush()
        sys.stdout.buffer.write(text if not text or text.endswith(b"\n") else text + b"\n")
        sys.stdout.flush()


@app.command()
def kill(
    job_id: JobId,
    state: StateFlag = "",
    settings_file: SettingsFlag = "",
    why: Annotated[str, typer.Option(help="The reason, for the job's story.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """End a job: it becomes KILLED, with the outputs that there are."""
    settings = _settings(settings_file, state=state).settings
    by = f"user {_user_name()}"
    with _existing_store(settings) as store:
        answer = store.request_kill(job_id, by, why or "killed by its owner", SystemClock().now())
        row = store.jobs([job_id])[0]
    if as_json:
        print_line(views.as_json({**views.row_json(row), "answer": answer.value}))
    else:
        print_line(_KILL_SENTENCES[answer].format(id=job_id, status=row.status))


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # No variable names it, nor does the password file.
        return str(os.getuid())


_KILL_SENTENCES = {
    KillAnswer.KILLED: "Job {id} was waiting; it is KILLED now.",
    KillAnswer.RECORDED: "Job {id} is {status}; its agent is told at the next heartbeat.",
    KillAnswer.ALREADY_FINAL: "Job {id} has ended before, as {status}; nothing changed.",
}


@app.command()
def probe(
    state: StateFlag = "",
    settings_file: SettingsFlag = "",
    image: Annotated[
        str, typer.Option(help="Run the full check in this image, and show each step.")
    ] = "",
    runtime_config: Annotated[
        str, typer.Option(help="Probe as if this were the site's apptainer.conf.", metavar="FILE")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Tell what this node supports, why, and what its administrator should change."""
    settings = _settings(settings_file, state=state).settings
    image = from_directory(image, Path()) if image else image
    if runtime_config and not (
        os.access(runtime_config, os.R_OK) and Path(runtime_config).is_file()
    ):
        raise UserError(f"The configuration {runtime_config} can't be read.")
    options = probe_options(settings, os.environ, image=image, runtime_config=runtime_config)
    report = probe_node(options)
    if as_json:
        print_line(views.as_json(report_json(report)))
    elif sys.stdout.isatty():
        show_report(report, Console(highlight=False))
    else:
        for line in plain_report(report):
            print_line(line)


@app.command("settings")
def show_settings(
    state: StateFlag = "", settings_file: SettingsFlag = "", as_json: JsonFlag = False
) -> None:
    """Print the settings in effect, and where each comes from."""
    effective = _settings(settings_file, state=state)
    for name in Settings.__struct_fields__:
        value = msgspec.to_builtins(getattr(effective.settings, name))
        origin = effective.origins[name]
        if as_json:
            print_line(views.as_json({"name": name, "value": value, "origin": origin}))
        else:
            print_line(f"{name} = {value!r}  # {origin}")


@app.command("bundle")
def make_bundle(
    directory: Annotated[Path, typer.Argument(help="Where to make it.", metavar="DIR")],
    as_json: JsonFlag = False,
) -> None:
    """Make the wrapper's bundle for containers in DIR, ready to be published."""
    made = made_bundle(directory.absolute())
    print_line(views.as_json(made) if as_json else bundle_line(made))


app.command()(survey)


def print_line(text: str) -> None:
    """Print a line of the command's result; what came from a job can't move the cursor."""
    sys.stdout.write(f"{printable(text)}\n")


def _settings(file: str, **flags: object) -> Effective:
    given = {name: value for name, value in flags.items() if value not in ("", None)}
    return load_settings(given, file=file, environment=os.environ)


def _store(settings: Settings) -> QueueStore:
    return QueueStore.open(settings.queue_file, queue_policy(settings))


def _existing_store(settings: Settings) -> QueueStore:
    """Open a queue to look at; don't make one where the user mistyped the directory."""
    if not settings.queue_file.exists():
        raise UserError(
            f"There is no queue in {settings.state_directory}: name the directory that "
            "`pilot run` or `pilot submit` used with --state (or PILOT_STATE)."
        )
    return _store(settings)


def _check_image(settings: Settings) -> None:
    if settings.container is not ContainerPolicy.REQUIRE or not settings.image:
        return
    parse_reference(settings.image)
    path = local_path(settings.image)
    if path and not os.access(path, os.R_OK):
        raise UserError(
            f"The container image {settings.image} can't be read; give --image one that can, "
            "or use --container prefer."
        )
