"""Behaviour: the actor runtime, the four actors and their pure cores.

Only the runtime's names are here, which a wrapper needs anyway: every job pays for what this
package imports. The actors themselves are in the modules of their names.
"""

from actors.effects import (
    Call,
    CancelWork,
    Effect,
    Effects,
    Recipient,
    Reply,
    Run,
    Schedule,
    SpawnChild,
    StopChild,
    StopSelf,
    Tell,
    Unschedule,
    WorkFailed,
)
from actors.runtime import (
    Actor,
    ActorCrashed,
    ActorSystem,
    Address,
    MailboxStatistics,
    NoAnswer,
    SystemStatistics,
    handles,
)
from actors.supervision import (
    ChildEnded,
    ChildRestarted,
    ChildSpec,
    Ending,
    Intensity,
    Restart,
)

__all__ = [
    "Actor",
    "ActorCrashed",
    "ActorSystem",
    "Address",
    "Call",
    "CancelWork",
    "ChildEnded",
    "ChildRestarted",
    "ChildSpec",
    "Effect",
    "Effects",
    "Ending",
    "Intensity",
    "MailboxStatistics",
    "NoAnswer",
    "Recipient",
    "Reply",
    "Restart",
    "Run",
    "Schedule",
    "SpawnChild",
    "StopChild",
    "StopSelf",
    "SystemStatistics",
    "Tell",
    "Unschedule",
    "WorkFailed",
    "handles",
]
