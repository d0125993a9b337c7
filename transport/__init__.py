"""Words and wires: the vocabulary, the confirmed session and its links.

The vocabulary itself is `transport.messages`. `transport.memory` is left out here on purpose:
a wrapper never needs it, and every job pays for what this package imports.
"""

from transport.errors import InternalError, OperatorError, PeerError, PilotError, UserError
from transport.events import (
    CloseCause,
    Closed,
    Detached,
    FrameRefused,
    MessageConfirmed,
    MessageReceived,
    MessageUnsupported,
    Opened,
    Refusal,
    SessionEvent,
)
from transport.link import ByteStream, Link
from transport.messages import AgentMessage, Delivery, Message, Record, WrapperMessage
from transport.secret import Secret
from transport.session import LinkOptions, Role, Session, SessionState, SessionStatistics
from transport.stdio import stdio_link

__all__ = [
    "AgentMessage",
    "ByteStream",
    "CloseCause",
    "Closed",
    "Delivery",
    "Detached",
    "FrameRefused",
    "InternalError",
    "Link",
    "LinkOptions",
    "Message",
    "MessageConfirmed",
    "MessageReceived",
    "MessageUnsupported",
    "Opened",
    "OperatorError",
    "PeerError",
    "PilotError",
    "Record",
    "Refusal",
    "Role",
    "Secret",
    "Session",
    "SessionEvent",
    "SessionState",
    "SessionStatistics",
    "UserError",
    "WrapperMessage",
    "stdio_link",
]
