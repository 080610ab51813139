"""What can go wrong, as types; every layer may raise and catch these."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a source has no answer: the bounded set behind the ``reason`` label."""

    PENDING = "pending"  # not asked yet
    MISSING = "missing"  # no socket, file, pidfile or object of that name
    REFUSED = "refused"  # a socket file is there and nobody listens behind it
    PERMISSION = "permission"  # this user may not
    TIMEOUT = "timeout"  # no answer before the deadline
    CLOSED = "closed"  # the peer hung up before its answer was whole
    GARBAGE = "garbage"  # the answer is not of the protocol or the form
    TOO_LARGE = "too_large"  # the answer is over the limit
    ANSWERED_ERROR = "answered_error"  # the peer answered that it can't or won't
    STALE = "stale"  # the last answer is too old to be believed
    INTERNAL = "internal"  # our own fault: the log has the traceback


NOBODY = frozenset({Reason.MISSING, Reason.REFUSED})
"""No file or socket, or nobody behind it: that a daemon does not run is known; of a silent one it is not."""


class MecExporterError(Exception):
    """The root of what this program raises on purpose."""


class SourceError(MecExporterError):
    """A source could not be read.

    Attributes:
        reason: the class of failure, a label value.
        why: one line for people; names the culprit (path, address, user).
    """

    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


class ConfigError(MecExporterError):
    """The configuration, a web configuration or the command line is wrong; the text names key and place."""
