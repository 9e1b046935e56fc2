"""How work under way tells where it stands: one callback for progress, one for a line of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called as often as there is something new; what it does with it (a bar, a line, nothing) is its own affair."""

    def __call__(self, label: str, done: int, total: int, note: str = "") -> None:
        """Say how far a piece of work is.

        Args:
            label: what is being done ("reading train images").
            done: how much of it is done.
            total: of how much.
            note: anything else worth a few words ("loss 1.234").
        """
        ...


Notify = Callable[[str], None]
"""Called with one line for a person, now and then: something is about to be stored, something was left out."""


def silent(*_: object, **__: object) -> None:
    """A `Progress` and a `Notify` that say nothing."""


def prefixed(progress: Progress, prefix: str) -> Progress:
    """The same callback for a part of a larger piece of work, whose labels begin with `prefix`."""

    def labelled(label: str, done: int, total: int, note: str = "") -> None:
        progress(prefix + label, done, total, note)

    return labelled
