"""A probe's report: what `pilot probe --json` prints, a contract (docs/probe.md).

A survey of a whole grid reads these, of many ages. So a field never changes its meaning, new
ones are added, and `SCHEMA` goes up only for a change that an old reader can't take.
"""

from __future__ import annotations

from pilot.containers.ladder import Choice
from pilot.probe.advice import advise
from pilot.probe.facts import Facts, RuntimeFacts, Value
from pilot.probe.keys import keys_of
from pilot.probe.verdict import NodeClass, classify, reasons
from transport.messages import Record

SCHEMA = "pilot-probe/1"


class AdviceLine(Record, frozen=True, kw_only=True):
    """One thing for the administrator to change."""

    code: str
    where: str
    change: str
    why: str
    sentence: str
    """All three, for a person."""


class RuntimeLine(Record, frozen=True, kw_only=True):
    """One container runtime."""

    name: str
    path: str
    version: str
    works: bool | None
    reason: str
    """A code, empty where it works."""
    detail: str
    """What is behind the code, for a person."""
    mode: str | None
    own_pid_namespace: bool | None
    in_cvmfs: bool
    underlay: bool | None
    overlay: bool | None
    mount_points: bool | None
    squashfs: bool | None
    configuration: str | None
    """The file that was read."""
    steps: tuple[str, ...]
    """What was tried before, a sentence each."""


class ImageStep(Record, frozen=True, kw_only=True):
    """A step of the ladder, in the image that was asked for."""

    runtime: str
    how: str
    on: str
    """The directory of the image that the job was mapped onto."""
    reason: str
    detail: str


class ImageLine(Record, frozen=True, kw_only=True):
    """What a job with one image would get here."""

    image: str
    works: bool | None
    """None: no time was left."""
    runtime: str | None
    how: str | None
    on: str | None
    digest: str | None
    steps: tuple[ImageStep, ...]
    reasons: tuple[str, ...]


class Report(Record, frozen=True, kw_only=True, rename={"class_": "class"}):
    """All of it, in the order in which it is printed."""

    schema: str = SCHEMA
    node: str
    site: str
    at: float
    """Unix time."""
    seconds: float
    class_: NodeClass
    reasons: tuple[str, ...]
    advice: tuple[AdviceLine, ...]
    runtimes: tuple[RuntimeLine, ...]
    keys: dict[str, Value]
    missing: tuple[str, ...]
    """What could not be found out; each is among the reasons, too."""
    image: ImageLine | None = None


def make_report(
    facts: Facts, *, node: str, site: str, at: float, seconds: float, image: ImageLine | None
) -> Report:
    """Judge what was found."""
    return Report(
        node=node,
        site=site,
        at=at,
        seconds=round(seconds, 3),
        class_=classify(facts),
        reasons=reasons(facts),
        advice=tuple(
            AdviceLine(
                code=advice.code,
                where=advice.where,
                change=advice.change,
                why=advice.why,
                sentence=str(advice),
            )
            for advice in advise(facts)
        ),
        runtimes=tuple(map(_runtime_line, facts.runtimes)),
        keys=keys_of(facts),
        missing=facts.missing,
        image=image,
    )


def _runtime_line(runtime: RuntimeFacts) -> RuntimeLine:
    failed = runtime.steps[-1] if runtime.steps and not runtime.works else None
    return RuntimeLine(
        name=runtime.name.value,
        path=runtime.path,
        version=runtime.version,
        works=runtime.works,
        reason=failed.reason.value if failed else ("" if runtime.works else "not-seen"),
        detail=failed.detail if failed else "",
        mode=runtime.mode,
        own_pid_namespace=runtime.own_pid_namespace,
        in_cvmfs=runtime.in_cvmfs,
        underlay=runtime.has_underlay,
        overlay=runtime.has_overlay,
        mount_points=runtime.makes_mount_points,
        squashfs=runtime.squashfs_works,
        configuration=None if runtime.conf is None else runtime.conf.path,
        steps=tuple(f"{step.how} [{step.reason}]: {step.detail}" for step in runtime.steps),
    )


def image_line(image: str, choice: Choice | None) -> ImageLine:
    """Tell what the ladder chose for an image; None: it had no time to."""
    works = choice is not None and choice.runtime is not None
    return ImageLine(
        image=image,
        works=None if choice is None else works,
        runtime=choice.runtime.path if choice is not None and choice.runtime is not None else None,
        how=str(choice.rung) if choice is not None and works else None,
        on=choice.layout.base if choice is not None and works else None,
        digest=choice.image.digest or None if choice is not None and choice.image else None,
        steps=()
        if choice is None
        else tuple(
            ImageStep(
                runtime=step.runtime.path,
                how="" if step.rung is None else str(step.rung),
                on=step.base,
                reason=step.reason.value,
                detail=step.detail,
            )
            for step in choice.steps
        ),
        reasons=("There was no time to try it.",) if choice is None else choice.reasons,
    )
