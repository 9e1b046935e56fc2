"""The two callbacks of work under way: one for how far it is, one for a line of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """A callback for how far a piece of work is; it may show a bar, print a line, or do nothing."""

    def __call__(self, label: str, done: int, total: int, note: str = "") -> None:
        """Take note of how far a piece of work is.

        Args:
            label: what is being done ("reading train images").
            done: how much of it is done, in whatever unit `total` has.
            total: how much there is in all.
            note: anything else worth a few words ("loss 1.234").
        """
        ...


Notify = Callable[[str], None]
"""A callback for one line of text for a person: something is about to be stored, something was left out."""


def silent(*_: object, **__: object) -> None:
    """A `Progress` and a `Notify` that say nothing."""


def prefixed(progress: Progress, prefix: str) -> Progress:
    """A callback for one part of a larger piece of work, which passes everything on with `prefix` before the label."""

    def labelled(label: str, done: int, total: int, note: str = "") -> None:
        progress(prefix + label, done, total, note)

    return labelled
