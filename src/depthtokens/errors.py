"""Every error a user can cause: one line that says what is wrong and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DepthTokensError(Exception):
    """Base of all errors of this package; its message is one line for a person."""

    exit_code = 1


class UsageError(DepthTokensError):
    """What was asked for makes no sense as asked (an unknown name, words that do not match bins, ...)."""

    exit_code = 2


class DataError(DepthTokensError):
    """A data set, image or depth file is missing, unreadable or not what it should be."""


class WeightsError(DepthTokensError):
    """CLIP weights or a token file are missing, damaged, unsafe, or of another model."""


class TrainingError(DepthTokensError):
    """Training cannot start or cannot go on."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A `UsageError` for a name that is not known, which suggests the nearest known one, or lists all where none is near.

    Args:
        kind: what the name is of ("protocol").
        name: as it was written.
        known: all names that there are.

    Example:
        >>> str(unknown("protocol", "auty2022", ["auty2023", "pooled"]))
        "unknown protocol 'auty2022': did you mean 'auty2023'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
    return UsageError(f"unknown {kind} '{name}': {hint}")
