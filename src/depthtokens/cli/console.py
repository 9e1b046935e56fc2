"""What verbs share: reading flags, progress, what is printed."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UsageError

if TYPE_CHECKING:
    from ..report.table import Table

T = TypeVar("T")

err = Console(stderr=True, highlight=False)
"""Progress and notes go to standard error, so that standard output holds results only."""


def parse(kind: type[T], verb: str, arguments: Sequence[str], default: T | None = None, *markers: Any) -> T:
    """Read flags into a dataclass; markers: of tyro. Raises UsageError, one line, for bad usage; --help prints and exits."""
    kwargs: dict[str, Any] = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = (tyro.conf.OmitArgPrefixes, *markers)
            return tyro.cli(kind, prog=f"depthtokens {verb}", args=list(arguments), description=kind.__doc__, config=config, **kwargs)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        # tyro draws a box: keep its words, up to the rule above "for full helptext".
        words = [line.strip("│╭╮╰╯─ ") for line in said.getvalue().splitlines()]
        told = [line for line in words if line and not line.startswith(("For full helptext", "depthtokens "))]
        raise UsageError(f"{': '.join(told[:2])}{''.join(f', {line}' for line in told[2:6])} (see depthtokens {verb} --help)") from None


class ProgressBar:
    """A `Progress`: a bar on a terminal, else a plain line now and then, both on standard error."""

    def __init__(self) -> None:
        self.label, self.last, self.bar = "", 0.0, None
        if err.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=err, transient=False)
            self.task = self.bar.add_task("", total=None, note="")
            self.bar.start()

    def __call__(self, label: str, done: int, total: int, note: str = "") -> None:
        """See `depthtokens.progress.Progress`."""
        if label != self.label:
            self.label, self.last = label, 0.0
        if self.bar:
            self.bar.update(self.task, description=label, completed=done, total=total, note=note)
        elif done == total or time.monotonic() - self.last > 10:
            self.last = time.monotonic()
            print(f"{label}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()


def notify(line: str) -> None:
    """One line for a person, on standard error."""
    err.print(escape(line), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=1))


def print_table(table: Table) -> None:
    """A table on standard output."""
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table.console())
