"""What one launch is: its command, its environment, and where things are for the wrapper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from actors.ports import ImageUsed, LaunchOrder, WrapperPaths
from pilot.job_files import JobFiles, payload_environment
from transport.messages import Record


class Attempt(Record, frozen=True, kw_only=True):
    """One launch's own: the order, its directories, its mark, and the node around it."""

    order: LaunchOrder
    files: JobFiles
    mark: str
    site: str
    host: Mapping[str, str]
    """The agent's own environment."""

    def payload_environment(self, work_directory: str, path: str) -> dict[str, str]:
        """Return the payload's environment, for a work directory as the payload sees it."""
        return payload_environment(
            self.order.description,
            job_id=self.order.job_id,
            attempt=self.order.attempt,
            site=self.site,
            work_directory=work_directory,
            mark=self.mark,
            path=path,
        )


class LaunchPlan(Record, frozen=True, kw_only=True):
    """Everything about one launch."""

    command: tuple[str, ...]
    environment: dict[str, str]
    container: str | None
    image: ImageUsed | None = None
    traces: tuple[str, ...]
    paths: WrapperPaths
    launch_failed: Callable[[str], bool] = lambda _: False
    """Takes why it died before its first word; returns whether there is another way."""


def is_own_state(path: str, state: str) -> bool:
    """Tell whether a path is the pilot's own: below its state, but for jobs' saved outputs."""
    if path != state and not path.startswith(f"{state}/"):
        return False
    parts = Path(path).relative_to(state).parts
    return not (len(parts) > 4 and parts[0] == "jobs" and parts[3] == "output")
