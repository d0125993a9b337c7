"""The wrapper's stager, for directories that this process can see.

Every job has the wrapper import this before it says Hello; so what does the work is imported
when it is needed. It blocks, and runs in a thread that looks between two chunks whether anybody
still waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from actors.ports import SavedOutputs, StagedFile
from pilot.staging.input_data_list import write_input_data_list
from transport.messages import InputFile, JobDescription, OutputSpec

T = TypeVar("T")

_STOP_S = 5.0


class LocalStager:
    """Copies inputs from, and saves outputs to, directories that this process can see.

    A cancelled call stops at the next chunk and leaves no half-written file.
    """

    async def prepare(self, work_directory: str) -> None:
        """Make the job's tmp directory, for it alone."""

        def prepare(_stop: threading.Event) -> None:
            # Both now: by the end of a long job, another version may stand in their place.
            from pilot.staging import stage_in, stage_out  # noqa: F401 - for later

            stage_in.prepare(work_directory)

        await _in_thread(prepare)

    async def stage_in(self, inputs: Sequence[InputFile], work_directory: str) -> list[StagedFile]:
        """Copy the inputs that are to be staged, keeping which are executable.

        Raises `UserError` naming the input that can't be had or named so, and `OperatorError`
        when the work directory can't take it.
        """

        def copy(stop: threading.Event) -> list[StagedFile]:
            from pilot.staging.stage_in import stage_in

            return stage_in(tuple(inputs), work_directory, stop)

        return await _in_thread(copy)

    async def write_input_list(self, description: JobDescription, work_directory: str) -> None:
        """Write the list of input data in the format asked for; nothing where there is none."""
        if description.input_data:
            write_input_data_list(
                work_directory,
                description.input_data_list,
                description.input_data_list_format,
                description.input_data,
            )

    async def stage_out(
        self, outputs: Sequence[OutputSpec], work_directory: str, output_directory: str
    ) -> SavedOutputs:
        """Save the outputs; raises `OperatorError` when the output directory can't take one.

        A pattern is a shell's: ``*`` doesn't cross a ``/`` nor match a leading dot, and finds
        nothing in tmp unless the pattern says so. How much and how many at most is in
        `pilot.staging.bounds`.
        """

        def save(stop: threading.Event) -> SavedOutputs:
            from pilot.staging.stage_out import StageOut

            return StageOut(work_directory, output_directory, stop).save(tuple(outputs))

        return await _in_thread(save)


async def _in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run blocking work in a thread; when cancelled, tell it so and give it time to clean up."""
    stop = threading.Event()
    future = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        stop.set()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({future}, timeout=_STOP_S)
        raise
    return future.result()
