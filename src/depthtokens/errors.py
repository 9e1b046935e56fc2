"""Every error a user can cause: one line that says what is wrong and what to do next."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 4000
"""Characters of the longest message; what files say stands in some."""
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class DepthTokensError(Exception):
    """Base of all errors of this package; its message is one line for a person.

    Example:
        >>> from depthtokens import load_clip
        >>> try:
        ...     load_clip("RN50", weights="openia")
        ... except DepthTokensError as error:
        ...     print(error)
        unknown weights tag of RN50 'openia': did you mean 'openai'?
    """

    exit_code = 1

    def __str__(self) -> str:
        """The message, fit for a terminal whatever a file brought into it."""
        return cut(printable(super().__str__()), LONGEST)


class UsageError(DepthTokensError):
    """What was asked for makes no sense as asked (an unknown name, words that do not match bins, ...).

    Example:
        >>> from depthtokens import Experiment
        >>> Experiment(data="nyu:ROOT", epochs=0)
        Traceback (most recent call last):
            ...
        depthtokens.errors.UsageError: epochs must be at least 1, not 0
    """

    exit_code = 2


class DataError(DepthTokensError):
    """A data set, image or depth file is missing, unreadable or not what it should be.

    Example:
        >>> from depthtokens import Folder
        >>> Folder("nowhere")
        Traceback (most recent call last):
            ...
        depthtokens.errors.DataError: no folder nowhere
    """


class WeightsError(DepthTokensError):
    """CLIP weights or a token file are missing, damaged, unsafe, or of another model.

    Example:
        >>> from depthtokens import load_clip
        >>> load_clip("nowhere.pt")
        Traceback (most recent call last):
            ...
        depthtokens.errors.WeightsError: no CLIP file or folder at nowhere.pt
    """


class TrainingError(DepthTokensError):
    """Training cannot start or cannot go on.

    Example:
        >>> from depthtokens import DepthTokens, load_clip, make_optimizer
        >>> make_optimizer(DepthTokens(load_clip("bundled"), depth="depth-7"), total_steps=100)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        depthtokens.errors.TrainingError: nothing to learn: use --depth learned:N, ...
    """


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
    name = cut(name, 80)
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
    return UsageError(f"unknown {kind} '{name}': {hint}")


def first_line(error: BaseException) -> str:
    """The start of what a library says, in one line."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return text[:160] or type(error).__name__


def printable(text: str) -> str:
    """Text without what a terminal obeys: control characters, but for tabs and line ends, stand there as Python writes them."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def cut(text: str, longest: int) -> str:
    """Text of at most so many characters: of more, the start and the end."""
    return text if len(text) <= longest else f"{text[: longest * 3 // 4]} ... {text[len(text) - longest // 4 + 5 :]}"
