"""Every published row as data: its settings, its name and its figures. Loads no torch.

`published.csv` (tables 3-7 of the paper) and `published_depthclip.csv` hold what differs between rows; the rest is one rule per source.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from importlib import resources

from ..errors import unknown
from .rows import BASE, Row

_SETTINGS = {"table", "dataset", "template", "depth", "bins", "row"}  # columns that are no figures


def published_rows(table: str | None = None, role: str | None = None) -> list[Row]:
    """The rows of one table, one data set, or all, in the order of the tables. Raises UsageError for an unknown table or data set."""
    rows = list(_all().values())
    for kind, wanted, known in (("table", table, {row.table for row in rows}), ("data set", role, {row.role for row in rows})):
        if wanted is not None and wanted not in known:
            raise unknown(f"{kind} of published rows", wanted, known)
    return [row for row in rows if table in (None, row.table) and role in (None, row.role)]


def find_row(name: str) -> Row:
    """A row by its name. Raises UsageError with the nearest name."""
    if name not in _all():
        raise unknown("published row", name, _all())
    return _all()[name]


@cache
def _all() -> dict[str, Row]:
    rows = [*map(_paper, _read("published.csv")), *map(_depthclip, _read("published_depthclip.csv"))]
    return {row.name: row for row in rows}


def _read(name: str) -> list[dict[str, str]]:
    lines = resources.files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _paper(line: dict[str, str]) -> Row:
    short = line["depth"].replace(":", "-")
    if line["template"] != "baseline":
        short = f"{line['template']}-{short}"
    if line["bins"] != "linear":
        short = f"{short}-{line['bins']}"
    options = replace(BASE, template=line["template"], depth=line["depth"], bins=line["bins"])
    name, label = f"paper/t{line['table']}/{line['dataset']}/{short}", f"t{line['table']}/{short}"
    return Row(name, label, line["dataset"], options, table=line["table"], published=_figures(line))


def _depthclip(line: dict[str, str]) -> Row:
    options = replace(BASE, template="depthclip", depth=line["depth"], bins=line["bins"], scale="depthclip")
    name, label = f"depthclip/nyu/{line['row']}", f"depthclip/{line['row']}"
    return Row(name, label, "nyu", options, "depthclip", table="depthclip", published=_figures(line))


def _figures(line: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in line.items() if name not in _SETTINGS and value}
