"""The launch of a wrapper in a container, as the ladder chose it."""

from __future__ import annotations

import msgspec

from actors.ports import ImageUsed, WrapperPaths
from pilot.bundle import WRAPPER_VARIABLES
from pilot.containers.dialects import dialect_of
from pilot.containers.ladder import Choice, ContainerTools
from pilot.containers.mounts import MountPlan, Wanted, plan_mounts
from pilot.containers.runtime import ContainerLaunch
from pilot.containers.sources import look_at_sources
from pilot.job_files import PATH_INSIDE, batch_trace
from pilot.launching.plan import Attempt, LaunchPlan
from pilot.procfs import MARK_VARIABLE
from transport.messages import InputFile, JobDescription


async def contained_mounts(attempt: Attempt, choice: Choice, tools: ContainerTools) -> MountPlan:
    """Return where everything goes in the container that was chosen; waits for a look at it."""
    files, inputs = attempt.files, _sources(attempt.order.description)
    site = [bind.source for bind in tools.site_binds]
    wanted = Wanted(
        work=str(files.work),
        output=str(files.output),
        private=str(files.private),
        bundle=str(tools.bundle.root),
        mount_tree=str(files.mounts),
        inputs=inputs,
        site=tools.site_binds,
        kinds=await look_at_sources([*inputs.values(), *site]),
    )
    return plan_mounts(wanted, choice.layout.base, choice.tree, choice.layout.layers)


def contained_plan(
    attempt: Attempt, choice: Choice, tools: ContainerTools, mounts: MountPlan
) -> LaunchPlan:
    """Return the launch in the container that was chosen, with these mounts."""
    assert choice.runtime is not None, "a plan for a container has a runtime"
    assert choice.image is not None, "a container has an image"
    runtime, dialect = choice.runtime, dialect_of(choice.runtime.kind)
    launch = ContainerLaunch(
        runtime=runtime,
        image=choice.image.path,
        image_form=choice.image.form,
        binds=mounts.binds,
        working_directory=mounts.work,
        scratch_directory=str(attempt.files.scratch),
        rung=choice.rung,
        environment={**WRAPPER_VARIABLES, MARK_VARIABLE: attempt.mark},
    )
    digest = f" ({choice.image.digest})" if choice.image.digest else ""
    used = (
        f"container: {runtime.path} ({runtime.version or 'of unknown version'}), {choice.rung}, "
        f"image {choice.image.reference}{digest}"
    )
    return LaunchPlan(
        command=(*dialect.command(launch), *tools.bundle.command(mounts.bundle), "run"),
        environment=dialect.environment(launch, attempt.host),
        container=runtime.kind.value,
        image=ImageUsed(reference=choice.image.reference, digest=choice.image.digest),
        traces=(*batch_trace(attempt.host), *tools.notes, *choice.reasons, *mounts.notes, used),
        paths=WrapperPaths(
            work_directory=mounts.work,
            output_directory=mounts.output,
            private_directory=mounts.private,
            inputs=_mapped(attempt.order.description, mounts),
            environment=attempt.payload_environment(mounts.work, PATH_INSIDE),
        ),
    )


def _sources(description: JobDescription) -> dict[int, str]:
    """Return the inputs to show in the container, by number."""
    files = enumerate((*description.inputs, *description.input_data))
    return {number: file.source for number, file in files if file.is_staged}


def _mapped(description: JobDescription, mounts: MountPlan) -> tuple[InputFile, ...]:
    """Return the inputs as seen in the container.

    One that isn't shown there keeps its path, so that the wrapper's complaint names it.
    """
    shown = {bind.destination for bind in mounts.binds}
    return tuple(
        msgspec.structs.replace(file, source=mounts.input(number))
        if mounts.input(number) in shown
        else file
        for number, file in enumerate((*description.inputs, *description.input_data))
    )
