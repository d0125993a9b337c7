"""The class of a node, and why: a pure function of what was found.

The classes are those of the 2019 talk, from best to worst:

``fully-compatible``
    A runtime of the node's own - Apptainer or Singularity, not from CVMFS - ran the wrapper's
    self-check, and underlay is enabled for it, so that any path can be bound in any image.
``underlay-disabled``
    A runtime of the node's own truly works, but not with underlay. With overlay alone, bind
    targets are made by that, which has had trouble with images on CVMFS and fails for some
    users' file systems; with neither layer, jobs are shown their directories below /tmp or over
    a directory that the image has. Bubblewrap, Podman, Docker and Charliecloud have no underlay
    and count here, whatever else they can.
``cvmfs-only``
    No runtime of the node's own works, but one that comes with CVMFS does.
``none``
    Nothing works, or nothing is there: jobs run bare.

Works means seen to: what is only there, or could not be seen in time, doesn't count. What was
not found out is not taken for a no; it is said in the reasons, as it may hide a better class.
"""

from __future__ import annotations

from enum import StrEnum

from pilot.probe.facts import Facts, RuntimeFacts


class NodeClass(StrEnum):
    """What a node is good for, best first."""

    FULLY_COMPATIBLE = "fully-compatible"
    UNDERLAY_DISABLED = "underlay-disabled"
    CVMFS_ONLY = "cvmfs-only"
    NONE = "none"


MEANINGS = {
    NodeClass.FULLY_COMPATIBLE: "fully compatible: a local container runtime works, with underlay",
    NodeClass.UNDERLAY_DISABLED: "compatible, underlay disabled",
    NodeClass.CVMFS_ONLY: "only through CVMFS: no local container runtime works",
    NodeClass.NONE: "no container support: jobs run bare",
}
_RANKS = tuple(NodeClass)


def class_of(runtime: RuntimeFacts) -> NodeClass:
    """Return the class that a node has by this one runtime."""
    if not runtime.works:
        return NodeClass.NONE
    if runtime.in_cvmfs:
        return NodeClass.CVMFS_ONLY
    if runtime.has_underlay:
        return NodeClass.FULLY_COMPATIBLE
    return NodeClass.UNDERLAY_DISABLED


def classify(facts: Facts) -> NodeClass:
    """Return the best class that any of the runtimes gives."""
    return min(map(class_of, facts.runtimes), key=_RANKS.index, default=NodeClass.NONE)


def best_runtime(facts: Facts) -> RuntimeFacts | None:
    """Return the runtime that makes the node's class: the first of the best."""
    ranked = sorted(facts.runtimes, key=lambda runtime: _RANKS.index(class_of(runtime)))
    return ranked[0] if ranked and ranked[0].works else None


def reasons(facts: Facts) -> tuple[str, ...]:
    """Return why the node has its class: a sentence each."""
    said = [_reason(runtime) for runtime in facts.runtimes]
    said += [_about_image_files(runtime) for runtime in facts.runtimes if runtime.squashfs_detail]
    if not facts.runtimes:
        said.append("No container runtime was found, neither in PATH nor in CVMFS.")
    if facts.host.cvmfs_hung:
        said.append("CVMFS doesn't answer, so a runtime in it is not counted.")
    elif facts.host.cvmfs_mounted is False and not any(r.works for r in facts.runtimes):
        said.append("CVMFS is not mounted, so no runtime can come from there.")
    return (*said, *(f"Not found out: {what}." for what in facts.missing))


def _reason(runtime: RuntimeFacts) -> str:
    what = f"{runtime.path} ({runtime.version or 'of unknown version'})"
    if runtime.works is None:
        return f"{what} was found, but there was no time to see it work."
    if not runtime.works:
        if not runtime.steps:
            return f"{what} doesn't work."
        last = runtime.steps[-1]
        return f"{what} doesn't work [{last.reason}]: {last.detail}."
    how = f"{what} works" + (f", {runtime.rung}" if runtime.rung else "")
    match class_of(runtime):
        case NodeClass.CVMFS_ONLY:
            return f"{how}; it comes from CVMFS and isn't the node's own."
        case NodeClass.FULLY_COMPATIBLE:
            return f"{how}, and underlay is enabled."
        case _:
            return f"{how}, but {_layers(runtime)}."


def _about_image_files(runtime: RuntimeFacts) -> str:
    if runtime.squashfs_works is None:
        return f"Not found out: whether {runtime.path} runs image files: {runtime.squashfs_detail}."
    return f"{runtime.path} can't run image files (SIF, squashfs): {runtime.squashfs_detail}."


def _layers(runtime: RuntimeFacts) -> str:
    if runtime.has_underlay is None:
        return "whether underlay is enabled could not be found out"
    if not runtime.can_have_underlay:
        return f"{runtime.name} has no underlay"
    if runtime.has_overlay:
        return "underlay is disabled: missing mount points are made by overlay alone"
    return "neither underlay nor overlay is enabled: no mount point can be made in an image"
