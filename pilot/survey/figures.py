"""The figures of the 2019 talk, each a question that a node's keys answer yes, no or not at all.

The talk found Singularity on 78 % of the nodes; loopback mounting disabled on 65.8 % and enabled
on 6.2 %; underlay disabled on 1.9 % and enabled on 0.1 %. They don't add up to 78 %, as most
installations had no answer: a Singularity without the option, or a probe that couldn't
read the configuration. So a third answer is counted beside yes and no, and is never taken for a
no. "Ideal" is the talk's word for Singularity with underlay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

from pilot.survey.values import Value, value_text

Answer = Literal["yes", "no", "unknown"]
Keys = Mapping[str, str]

_YES = frozenset({"true", "yes", "y", "on", "1", "enabled"})
_NO = frozenset({"false", "no", "n", "off", "0", "disabled"})


def answer(keys: Keys, name: str) -> Answer:
    """Return what a key says, in whichever of the usual words."""
    said = keys.get(name, "").strip().lower()
    if said in _YES:
        return "yes"
    return "no" if said in _NO else "unknown"


def singularity(keys: Keys) -> Answer:
    """Tell whether there is a Singularity or Apptainer, on the node or in CVMFS."""
    answers = {
        answer(keys, "SINGULARITY_LOCAL_SUPPORTED"),
        answer(keys, "SINGULARITY_CVMFS_SUPPORTED"),
    }
    if "yes" in answers:
        return "yes"
    return "no" if "no" in answers else "unknown"


def loop_devices(keys: Keys) -> Answer:
    """Tell whether loop devices are shared, so that many jobs can mount images."""
    return answer(keys, "shared_loop_devices")


def underlay(keys: Keys) -> Answer:
    """Tell whether a directory can be bound to where the image has none."""
    return answer(keys, "UNDERLAY_ENABLED")


def ideal(keys: Keys) -> Answer:
    """Tell whether it is Singularity with underlay."""
    answers = {singularity(keys), underlay(keys)}
    if "no" in answers:
        return "no"
    return "unknown" if "unknown" in answers else "yes"


FIGURES: Mapping[str, Callable[[Keys], Answer]] = {
    "singularity": singularity,
    "loop_devices": loop_devices,
    "underlay": underlay,
    "ideal": ideal,
}
ANSWERS: tuple[Answer, ...] = ("yes", "no", "unknown")

_ASKED = (
    "SINGULARITY_LOCAL_SUPPORTED",
    "SINGULARITY_CVMFS_SUPPORTED",
    "shared_loop_devices",
    "UNDERLAY_ENABLED",
)
"""The keys that the figures above look at."""


def answers(keys: Mapping[str, Value]) -> tuple[tuple[str, Answer], ...]:
    """Return each figure's name with a node's answer; nodes that say the same are asked once."""
    return _answers(tuple([value_text(keys.get(name)) for name in _ASKED]))


@lru_cache(maxsize=1024)
def _answers(said: tuple[str, ...]) -> tuple[tuple[str, Answer], ...]:
    keys = dict(zip(_ASKED, said, strict=True))
    return tuple((name, figure(keys)) for name, figure in FIGURES.items())
