"""One table, three forms: the same cells in all of them, and each form's own special characters harmless."""

from __future__ import annotations

import io
import re
from html import unescape

import pytest
from rich.console import Console

from depthtokens.experiment.statistics import Difference, Interval, MeanStd
from depthtokens.report.html import fragment
from depthtokens.report.table import Strong, Table, write_cell

INTERVAL = Interval(0.3189, 0.31, 0.3278, 0.95, 100, 1)
DIFFERENCE = Difference(-0.1, -0.12, -0.08, 0.95, 100, 5, 1, 0.02)
CELLS = [
    ("a word", "a word"), (56576, "56,576"), (0.31892, "0.319"), (-0.0, "-0.000"), (float("nan"), "nan"), (None, ""),
    (MeanStd(0.32, None, 1), "0.320"), (MeanStd(0.32, 0.0021, 5), "0.320 ± 0.002"), (INTERVAL, "0.319 [0.310, 0.328]"),
    (DIFFERENCE, "-0.100 ± 0.020 [-0.120, -0.080]"), (Strong(0.5), "0.500"), (Strong(INTERVAL), "0.319 [0.310, 0.328]"),
]  # fmt: skip
TABLE = Table(
    ["row", "n", "AbsRel ↓", "says"],
    [["a|b <i>", 1000, Strong(INTERVAL), "x & [red]y[/red]"], ["c", None, 0.25, None]],
    title="A <title> [b]",
    kinds=["learned", ""],
    words=1,
    narrow=True,
)


def html(table, **context):
    return fragment("test.html", table=table, **context)


@pytest.fixture(autouse=True)
def template(monkeypatch):
    """A template that holds nothing but a table."""
    from jinja2 import ChoiceLoader, DictLoader

    from depthtokens.report.html import _environment

    text = '{% from "macros.html" import table as drawn %}{{ drawn(table, bars|default(()), "bars") }}'
    environment = _environment()
    monkeypatch.setattr(environment, "loader", ChoiceLoader([DictLoader({"test.html": text}), environment.loader]))


@pytest.mark.parametrize(("cell", "expected"), CELLS, ids=lambda value: str(value)[:24])
def test_cells(cell, expected):
    written = write_cell(cell)
    assert str(written) == expected and written.strong == isinstance(cell, Strong)
    inner = cell.cell if isinstance(cell, Strong) else cell
    if isinstance(inner, Interval | MeanStd):
        assert str(written) == str(inner)
    assert written.interval == (f"[{expected.partition('[')[2]}" if isinstance(inner, Interval) else "")


def test_text():
    assert TABLE.text() == [["a|b <i>", "1,000", "0.319 [0.310, 0.328]", "x & [red]y[/red]"], ["c", "", "0.250", ""]]


def test_markdown():
    assert TABLE.markdown().split("\n") == [
        "A <title> [b]",
        "",
        "| row | n | AbsRel ↓ | says |",
        "| --- | ---: | ---: | --- |",
        "| a&#124;b &lt;i> | 1,000 | **0.319 [0.310, 0.328]** | x & [red]y[/red] |",
        "| c |  | 0.250 |  |",
    ]
    assert not Table(["a"], []).markdown().startswith("\n")


def test_console():
    console = Console(file=io.StringIO(), width=100, highlight=False, force_terminal=True, color_system="standard", legacy_windows=False)
    console.print(TABLE.console())
    printed = console.file.getvalue()
    assert "\x1b[1m0.319 [0.310, 0.328]\x1b[0m" in printed  # bold
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in printed.splitlines()]
    assert lines[0] == "A <title> [b]"
    assert [re.split(r" {2,}", line) for line in lines[1:]] == [
        ["row", "n", "AbsRel ↓", "says"], ["a|b <i>", "1,000", "0.319 [0.310, 0.328]", "x & [red]y[/red]"], ["c", "0.250"],
    ]  # fmt: skip


def test_html():
    page = html(TABLE)
    assert '<p class="small">A &lt;title&gt; [b]</p>' in page and '<table class="narrow">' in page
    assert '<b>0.319 <span class="ci">[0.310, 0.328]</span></b>' in page
    assert "<td>a|b &lt;i&gt;</td><td>1,000</td>" in page and '<th class="words">says</th>' in page
    assert '<td class="words">x &amp; [red]y[/red]</td>' in page
    assert page.count("<tr") == 3 and page.count('<tr class="learned">') == 1 and page.count("<tr>") == 2
    assert "bar" not in page
    barred = html(TABLE, bars=[1.0, 0.123])
    assert barred.count('<td class="bar">') == 2 and "width:12.3%" in barred and "<th>bars</th>" in barred


def test_all_forms_hold_the_same_cells():
    rows = html(TABLE).split("<tr")[1:]
    found = [[unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<t[hd].*?>(.*?)</t[hd]>", row)] for row in rows]
    assert found == [list(TABLE.columns), *TABLE.text()]


def test_fewer_columns():
    less = TABLE.without("n", "nothing of that name")
    assert less.columns == ["row", "AbsRel ↓", "says"] and less.text()[1] == ["c", "0.250", ""] and less.words == 1
    assert TABLE.without("says").words == 0 and less.title == TABLE.title and less.kinds == TABLE.kinds


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table(["a", "b"], [["x"]])
    with pytest.raises(ValueError, match="1 kinds for 0 rows"):
        Table(["a"], [], kinds=["learned"])


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_narrow_terminal_loses_columns_never_digits(width):
    names = [f"metric_{i}" for i in range(9)]
    rows = [["tokens", *(0.12345 * i for i in range(9))], ["a photo of a long name 0123456789.jpg", *(1234.5 * i for i in range(9))]]
    table = Table(["row", *names], rows, less=names[1:4])
    shown, dropped = table.fitted(width)
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(shown.console())
    printed = console.file.getvalue()
    assert [*shown.columns, *dropped] != [] and sorted([*shown.columns, *dropped]) == sorted(table.columns)
    assert all(len(line) <= width for line in printed.splitlines()) and "…" not in printed
    for row in shown.text():
        assert all(f" {cell}" in printed for cell in row[1:])
    assert "metric_0" in shown.columns and (width < 200 or not dropped)
    assert not set(dropped) or set(dropped) <= set(names[1:4]) or set(names[1:4]) <= set(dropped)
