"""The failures whose message is meant for the user.

The command line prints the message of a :class:`VqtokError` without a traceback; anything else
that escapes is a bug of ours.
"""

from __future__ import annotations


class VqtokError(Exception):
    """Work failed; the message says what was wrong, with which file or shape, and what to do."""


class UsageError(VqtokError, ValueError):
    """The request itself is wrong (an unknown option value, a missing input): exit code 2."""


class DataError(VqtokError, ValueError):
    """An input file is malformed, truncated, damaged or hostile: exit code 1."""
