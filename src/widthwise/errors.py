"""What can go wrong, for the person at the keyboard.

    WidthwiseError
    ├── UsageError     a name, key, value or argument that cannot be used    exit code 2
    ├── DataError      data, features or files that are not what they say    exit code 2
    └── StorageError   a disk that is full or cannot be written              exit code 1

    NumericsWarning    a number that is right but would mislead

A message says what was given, what is allowed and what to do.
"""

import difflib
from collections.abc import Iterable


class WidthwiseError(Exception):
    """The root of every error that Widthwise raises on purpose."""

    exit_code = 1


class UsageError(WidthwiseError, ValueError):
    """A name, key, value or argument that cannot be used."""

    exit_code = 2


class DataError(WidthwiseError, ValueError):
    """Data, features or files that are not what they say they are."""

    exit_code = 2


class StorageError(WidthwiseError, OSError):
    """A disk that is full or cannot be written."""


class NumericsWarning(UserWarning):
    """A number that is computed correctly but would mislead if read without care."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Return ' Did you mean X?' for the allowed name nearest to `given`, or nothing."""
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""
