"""The verdict on an attempt: one status, one reason, one kill, decided once from all facts."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from actors.lifecycle import status_after_wrapper_death, status_of
from transport.messages import JobStatus, KillReason, Outcome


class Verdict(NamedTuple):
    """How an attempt ended, for its final report."""

    status: JobStatus
    reason: str
    kill: KillReason | None


def verdict(
    last: JobStatus,
    outcome: Outcome | None,
    kill: KillReason | None,
    trouble: str,
    *,
    has_another_way: bool = False,
) -> Verdict:
    """Return the verdict on an attempt whose processes are all gone.

    ``outcome`` is the wrapper's last word, None where there was none; ``kill`` the agent's
    reason to stop it, ``trouble`` what else went wrong. ``has_another_way``: the wrapper died
    before its first word, and would be launched otherwise the next time: the job is given back.

    A stop that came too late, since the wrapper had finished already, is no kill: the outcome
    doesn't know of it. Where both know of one, the agent's is the first: that of a wrapper
    which the node told to stop may have come after.
    """
    if outcome is None:
        reason = kill.why if kill is not None else trouble or "the wrapper ended without a word"
        status = status_after_wrapper_death(last, kill)
        if has_another_way and status is JobStatus.ERROR_A:
            return Verdict(JobStatus.WAITING, f"launched otherwise next time: {reason}", None)
        return Verdict(status, reason, kill)
    if outcome.kill is None:
        return Verdict(status_of(outcome), outcome.reason, None)
    agreed = kill or outcome.kill
    return Verdict(status_of(msgspec.structs.replace(outcome, kill=agreed)), agreed.why, agreed)
