"""Tables: one description of a table, and its three forms, for the terminal, Markdown and HTML pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ..experiment.statistics import Difference, Interval, MeanStd

if TYPE_CHECKING:
    from rich.table import Table as ConsoleTable

Plain = str | int | float | MeanStd | Interval | Difference | None


GAP = 2
"""Columns between two columns of a table in a terminal."""
NAME = 20
"""Columns that a name keeps in a narrow terminal; what is longer goes on in the next line."""


@dataclass(frozen=True)
class Strong:
    """A cell that stands out, in bold."""

    cell: Plain


Cell = Plain | Strong
"""Text; a number (whole ones with thousands apart, others to three decimals); a figure with its spread or interval; or nothing."""


class Written(NamedTuple):
    """A cell as text.

    Attributes:
        text: all of it, or what stands before an interval.
        interval: the interval, "" where there is none.
        strong: whether it is bold.
    """

    text: str
    interval: str = ""
    strong: bool = False

    def __str__(self) -> str:
        return f"{self.text} {self.interval}" if self.interval else self.text


@dataclass(frozen=True)
class Table:
    """A table for people. The first column holds names and is left-aligned; the others hold numbers, unless `words` says otherwise.

    Attributes:
        columns: their heads.
        rows: each with a cell for every column.
        title: said before it, "" for nothing.
        kinds: a class for each row, which pages draw in a way of its own ("learned", "control", ""); empty where all are alike.
        words: how many of the last columns hold text, which is left-aligned too.
        narrow: on a page, as wide as its contents instead of the page.
        less: heads of the columns that a narrow terminal does without first.

    Raises:
        ValueError: where a row has more or fewer cells than there are columns, or `kinds` are not as many as rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    kinds: Sequence[str] = ()
    words: int = 0
    narrow: bool = False
    less: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.kinds and len(self.kinds) != len(self.rows):
            raise ValueError(f"{len(self.kinds)} kinds for {len(self.rows)} rows")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} cells for {len(self.columns)} columns: {row}")

    def written(self) -> list[list[Written]]:
        """The cells, row by row, as every form of the table writes them."""
        return [[write_cell(cell) for cell in row] for row in self.rows]

    def text(self) -> list[list[str]]:
        """The same as plain text."""
        return [[str(cell) for cell in row] for row in self.written()]

    def left(self, column: int) -> bool:
        """Whether a column, by its number from 0, is left-aligned."""
        return column == 0 or column >= len(self.columns) - self.words

    def without(self, *names: str) -> Table:
        """The same table without some columns, by their heads; those that it does not have are no matter."""
        kept = [i for i, column in enumerate(self.columns) if column not in names]
        words = sum(i >= len(self.columns) - self.words for i in kept)
        return replace(self, columns=[self.columns[i] for i in kept], rows=[[row[i] for i in kept] for row in self.rows], words=words)

    def fitted(self, width: int) -> tuple[Table, list[str]]:
        """The same table without the columns that a terminal has no room for: a column too few is seen, a digit too few is not.

        Args:
            width: columns of the terminal.

        Returns:
            The table, and the heads of the columns left out: those in `less`, then numbers, then words, each from the right. Names and the
            first column of numbers stay.
        """
        cells = self.written()
        least = [max([_least(column), *(_least_cell(row[i], i, self) for row in cells)]) for i, column in enumerate(self.columns)]
        numbers = [i for i in range(1, len(least)) if not self.left(i)]
        words = [i for i in range(1, len(least)) if self.left(i)]
        kept = set(range(len(least)))
        numbers = [i for i in numbers[1:] if self.columns[i] not in self.less] + [i for i in numbers[1:] if self.columns[i] in self.less]
        for i in [*reversed(numbers), *reversed(words)]:
            if sum(least[k] for k in kept) + GAP * (len(kept) - 1) <= width:
                break
            kept.discard(i)
        dropped = [column for i, column in enumerate(self.columns) if i not in kept]
        return self.without(*dropped), dropped

    def markdown(self) -> str:
        """In Markdown, the title as a paragraph before it."""
        rules = ["---" if self.left(i) else "---:" for i in range(len(self.columns))]
        cells = [[f"**{cell}**" if cell.strong else str(cell) for cell in row] for row in self.written()]
        lines = [f"| {' | '.join(_markdown(cell) for cell in row)} |" for row in ([*self.columns], rules, *cells)]
        return "\n\n".join([*([self.title] if self.title else []), "\n".join(lines)])

    def console(self) -> ConsoleTable:
        """For a terminal, as rich prints it."""
        from rich.table import Table as ConsoleTable
        from rich.text import Text

        table = ConsoleTable(title=Text(self.title, "table.title") if self.title else None, title_justify="left", box=None, pad_edge=False)
        for i, column in enumerate(self.columns):
            least = max([_least(column), *(_least_cell(row[i], i, self) for row in self.written())])
            words = i > 0 and self.left(i)
            table.add_column(Text(column), justify="left" if self.left(i) else "right", min_width=None if words else least, overflow="fold")
        for row in self.written():
            table.add_row(*(Text(str(cell), style="bold" if cell.strong else "") for cell in row))
        return table


def _markdown(text: str) -> str:
    """A cell's text in Markdown, where neither a bar ends it nor "</w>" is markup."""
    return re.sub(r"<(?=[a-zA-Z/!])", "&lt;", text.replace("|", "&#124;"))


def _least(text: str) -> int:
    """Columns that text needs in a terminal at least: those of its longest word."""
    return max(map(len, text.split()), default=0)


def _least_cell(cell: Written, column: int, table: Table) -> int:
    """Columns that a cell needs at least: a name up to `NAME`, a word of text, all of a number; an interval may have its own line."""
    if column == 0:
        return min(len(cell.text), NAME)
    return min(_least(cell.text), NAME) if table.left(column) else max(len(cell.text), len(cell.interval))


def write_cell(cell: Cell) -> Written:
    """A cell as text."""
    if isinstance(cell, Strong):
        return write_cell(cell.cell)._replace(strong=True)
    if cell is None:
        return Written("")
    if isinstance(cell, Interval):
        mean, _, interval = str(cell).rpartition(" [")
        return Written(mean, f"[{interval}")
    if isinstance(cell, float):
        return Written(f"{cell:.3f}")
    return Written(f"{cell:,}" if isinstance(cell, int) else str(cell))
