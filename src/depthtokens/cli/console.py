"""What verbs share: reading flags, progress, what is printed."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shlex
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UsageError, printable, unknown
from ..files import json_text

if TYPE_CHECKING:
    from ..report.table import Table

T = TypeVar("T")

WIDE = 160
"""Columns of a table that does not go to a terminal."""
err = Console(stderr=True, highlight=False)
"""Progress and notes go to standard error, so that standard output holds results only."""


def parse(kind: type[T], verb: str, arguments: Sequence[str], default: T | None = None, *markers: Any) -> T:
    """Read flags into a dataclass; --help prints and exits.

    Args:
        kind: the dataclass.
        verb: as a person writes it.
        arguments: the words behind it.
        default: where flags that are not given come from; None for the dataclass's own defaults.
        markers: of tyro.

    Raises:
        UsageError: for bad usage, in one sentence.
    """
    kwargs: dict[str, Any] = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = (tyro.conf.OmitArgPrefixes, *markers)
            text = inspect.cleandoc(kind.__doc__ or "")
            return tyro.cli(kind, prog=f"depthtokens {verb}", args=list(arguments), description=text, config=config, **kwargs)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        texts = [f"--{name.replace('_', '-')}" for name, hint in get_type_hints(kind).items() if hint in (str, str | None)]
        raise UsageError(f"{usage_sentence(said.getvalue(), arguments, texts)} (see depthtokens {verb} --help)") from None


def usage_sentence(said: str, arguments: Sequence[str], texts: Collection[str] = ()) -> str:
    """What tyro says of bad usage in a box of several lines, as one sentence.

    Args:
        said: the box.
        arguments: that were read.
        texts: flags whose value is text, which may be several things with commas.
    """
    sections: list[list[str]] = [[]]
    for line in said.splitlines():
        if re.match(r"[╭╰]| \S", line) or not line.strip("│ ─-"):
            sections.append([])  # a title, or a rule between sections
        else:
            sections[-1].append(re.sub(r"^[│ ] |│$", "", line).rstrip())  # without UTF-8 there are blanks in the place of bars
    sections = [section for section in sections if section and not section[0].startswith("For full helptext")]
    lines = [line for section in sections for line in section]
    text = " ".join(" ".join(lines).split())
    hints = [line.strip() for line in lines if re.match(r" +-", line)]
    flag = hints[0].split()[0].rstrip(",") if hints else ""
    if found := re.search(r"invalid choice '(.*?)' for argument '(.*?)'. Expected one of \((.*?)\)", text):
        choices = [word for word in re.findall(r"'(.*?)'", found[3]) if word != "None"]
        return str(unknown(f"value for {found[2]}:", found[1], choices))
    if found := re.search(r"Missing value for argument '(.*?)'", text):
        return f"{found[1]} needs a value"
    if found := re.search(r"Error parsing (\S+?): (.*?)(?: Got errors| Argument helptext|$)", text):
        name = found[1]
        given = _values(name, arguments)
        wanted = next((line.partition(name)[2].strip() for line in hints if name in line), "")
        return f"{name} {given}: needs {_metavar(wanted)}" if wanted else f"{name} {given}: {found[2]}"
    if missing := next((section[1:] for section in sections if section[0].startswith("Missing from")), None):
        # A name stands four blanks in, and what it is for below it, further in.
        names = [line.strip() for line in missing if re.match(r" {4}\S", line)]
        purpose = " ".join(line.strip() for line in missing if re.match(r" {8}\S", line)).replace("(required)", "").strip()
        if len(names) == 1:
            return f"{names[0]} is missing{f': {purpose}' if purpose else ''}"
        return f"{' and '.join(names)} are missing" if names else text
    if found := re.search(r"Unrecognized options: (?!Unrec)(.*?)(?: Arguments similar| Perhaps you|$)", text):
        return _unrecognised(found[1].split(", ")[0], flag, arguments, texts)
    return text


def _unrecognised(first: str, near: str, arguments: Sequence[str], texts: Collection[str]) -> str:
    """What to say of words that belong to nothing: a flag that is not known, or a second value behind a flag that takes one."""
    if first.startswith("-"):
        return f"unknown option {first}{f': did you mean {near}?' if near else ''}"
    words = list(arguments)
    at = words.index(first) if first in words else 0
    before = next((i for i in range(at - 1, -1, -1) if words[i].startswith("--")), None)
    if before is None or at - before < 2:
        return f"'{first}' belongs to no option: which --flag is it for?"
    values = words[before + 1 : at + 1]
    flag = words[before]
    commas = f": write {flag} {','.join(values)}" if flag in texts else ""
    return f"{flag} takes one value, not {len(values)} ({' '.join(values)}){commas}"


def _values(flag: str, arguments: Sequence[str]) -> str:
    """What stands behind a flag."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith(f"{flag}=") else [word])]
    if flag not in words:
        return ""
    behind = words[words.index(flag) + 1 :]
    end = next((i for i, word in enumerate(behind) if word.startswith("--")), len(behind))
    return " ".join(behind[:end])


def _metavar(text: str) -> str:
    """What a flag takes, in words; from how help writes it, such as "{None}|{INT INT}"."""
    names = {"INT": "a whole number", "FLOAT": "a number", "STR": "text", "PATH": "a path", "INT INT": "two whole numbers",
             "FLOAT FLOAT": "two numbers"}  # fmt: skip
    parts = [part.strip("{}") for part in re.split(r"\|(?=\{|[A-Z])", text)]
    return " or ".join(names.get(part, part) for part in parts if part != "None")


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
    err.print(escape(printable(line)), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output; numbers that are none, which JSON cannot hold, are null."""
    print(json_text(value))


def print_table(table: Table) -> None:
    """A table on standard output; on a narrow terminal without the columns that do not fit, which are named below it."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    shown, dropped = table.fitted(console.width)
    console.print(shown.console())
    if dropped:
        notify(f"left out, since the terminal is {console.width} columns wide: {', '.join(dropped)}")


def command(verb: str, *words: str | Path) -> str:
    """A command line that can be run as it stands, whatever its paths are called."""
    return shlex.join(["depthtokens", *verb.split(), *map(str, words)])
