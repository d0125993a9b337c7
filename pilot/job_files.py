"""Where an attempt's files are on the node, and what its payload's environment is.

STATE/jobs/12/1/work       the payload's work directory (removed at the end)
/private    0700: the job's key, certificate and token (removed)
/scratch    a container's /tmp (removed)
/mounts     mount points, for an image that has none (removed)
/output     what was saved
/log        wrapper.log: the wrapper's own log, and a runtime's stderr
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pilot.plain_files import remove_tree
from pilot.procfs import MARK_VARIABLE
from transport.errors import OperatorError
from transport.messages import JobDescription, Record

PATH_INSIDE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class JobFiles(Record, frozen=True, kw_only=True):
    """The directories of one attempt."""

    root: Path

    @classmethod
    def of(cls, state: Path, job_id: int, attempt: int) -> JobFiles:
        """Return where attempt ``attempt`` of job ``job_id`` is kept below ``state``."""
        return cls(root=state / "jobs" / str(job_id) / str(attempt))

    @property
    def work(self) -> Path:
        """The payload's work directory."""
        return self.root / "work"

    @property
    def private(self) -> Path:
        """The wrapper's own: keys and tokens."""
        return self.root / "private"

    @property
    def scratch(self) -> Path:
        """A container's /tmp and its runtime's own files."""
        return self.root / "scratch"

    @property
    def mounts(self) -> Path:
        """An empty tree of mount points."""
        return self.root / "mounts"

    @property
    def output(self) -> Path:
        """Where outputs are saved."""
        return self.root / "output"

    @property
    def log(self) -> Path:
        """The wrapper's own log."""
        return self.root / "log" / "wrapper.log"

    @property
    def owner(self) -> Path:
        """Which agent runs this attempt, and its processes' marker; gone when it has ended."""
        return self.root / "owner.json"

    def make(self) -> None:
        """Make them all; raises `OperatorError` when the disk can't take them."""
        try:
            for directory in (self.work, self.private, self.scratch, self.output, self.log.parent):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OperatorError(
                f"the job's directories can't be made in {self.root}: {error.strerror}"
            ) from error

    def remove_transient(self) -> None:
        """Remove all but the outputs and the log, whatever it is called: the keys first.

        Raises `OperatorError` for what can't be removed, when all else is.
        """
        kept = {self.output.name, self.log.parent.name, self.owner.name}
        others = [path for path in self.root.glob("*") if path.name not in kept]
        troubles = []
        for path in sorted(others, key=lambda path: path != self.private):
            try:
                remove_tree(path)
            except OperatorError as error:
                troubles.append(str(error))
        if troubles:
            raise OperatorError("; ".join(troubles))
        remove_tree(self.owner)

    def remove_earlier_attempts(self) -> None:
        """Remove what attempts left whose agent died."""
        for earlier in self.root.parent.glob("*"):
            if earlier.name.isdigit() and int(earlier.name) < int(self.root.name):
                # What can't be removed stays for the operator; this attempt goes on.
                with suppress(OperatorError):
                    JobFiles(root=earlier).remove_transient()


def payload_environment(
    description: JobDescription,
    *,
    job_id: int,
    attempt: int,
    site: str,
    work_directory: str,
    mark: str,
    path: str,
) -> dict[str, str]:
    """Return a payload's environment, built from nothing but this.

    Names are those of AliEn's jobs; the credentials' paths are added by the wrapper. The
    pilot's own surroundings aren't passed on: they are not the payload's business.
    """
    variables = {f"ALIEN_JDL_{name}": value for name, value in description.variables.items()}
    temporary = os.path.join(work_directory, "tmp")
    return {
        **variables,
        "ALIEN_PROC_ID": str(job_id),
        "ALIEN_MASTERJOB_ID": str(description.master_job_id or job_id),
        "ALIEN_SITE": site,
        "ALIEN_USER": description.user,
        "HOME": work_directory,
        "LANG": "C.UTF-8",
        "PATH": path,
        "PILOT_ATTEMPT": str(attempt),
        MARK_VARIABLE: mark,
        "TMP": temporary,
        "TMPDIR": temporary,
    }


BATCH_VARIABLES = (
    "CONDOR_PARENT_ID",
    "SLURM_JOBID",
    "SLURM_JOB_ID",
    "LSB_BATCH_JID",
    "LSB_JOBID",
    "PBS_JOBID",
    "JOB_ID",
    "CREAM_JOBID",
    "GRID_GLOBAL_JOBID",
)


def batch_trace(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return a trace of the batch system's ids, where the pilot runs under one."""
    found = [f"{name}={environment[name]}" for name in BATCH_VARIABLES if name in environment]
    return (f"batch system: {' '.join(found)}",) if found else ()
