"""The errors of the whole project, split by who must act.

They stand on the lowest floor because every floor raises them. Expected refusals
(a stale update, no match, no room) are replies, never one of these.
"""

from __future__ import annotations


class PilotError(Exception):
    """Root of every error that this project raises on purpose.

    The text is a sentence for a person: what, where, and what to do next.
    """


class InternalError(PilotError):
    """Raised when one of our own rules is broken; whoever sees it has found a bug of ours."""


class PeerError(PilotError):
    """Raised when the other side of a link breaks the protocol."""


class OperatorError(PilotError):
    """Raised when the node, its settings or its services need the operator's hand."""


class UserError(PilotError):
    """Raised when what the user wrote (a JDL, a flag, a file) needs the user's hand."""
