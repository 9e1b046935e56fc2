"""Write tables of docs from finished reproductions: what stands between `<!-- table: NAME -->` and `<!-- end -->` becomes FOLDER's rows.

    python tools/paper_tables.py docs/paper.md scenes=OUT labelled=OUT ...

OUT is the `--out` of `depthtokens reproduce`, whose table.md is read: of each table the columns that a page of the docs has room for; of
`--table few-shot` the one by the number of training images.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COLUMNS = ("row", "trained numbers", "AbsRel", "δ < 1.25", "AbsRel − mean map", "stuck")
BEHIND = {"AbsRel": "AbsRel 95 %"}
"""Columns that stand in one with another, behind it."""


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown document, as cells."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] for table in found]


def narrowed(table: list[list[str]]) -> list[list[str]]:
    """Of a table of rows the columns that are wanted."""
    head, align, *rows = table

    def cells(row: list[str]) -> list[str]:
        named = dict(zip(head, row, strict=True))
        named["row"] = re.sub("^(beyond|effects)/", "", named["row"])
        return [f"{named[name]} {named[BEHIND[name]]}" if name in BEHIND else named[name] for name in COLUMNS]

    return [list(COLUMNS), [dict(zip(head, align, strict=True))[name] for name in COLUMNS], *map(cells, rows)]


def table(folder: Path) -> str:
    """A finished reproduction as Markdown."""
    rows, *few = tables((folder / "table.md").read_text(encoding="utf-8"))
    return "\n".join(f"| {' | '.join(line)} |" for line in (few[0] if few else narrowed(rows)))


def main(document: str, *named: str) -> None:
    """Fill a document's tables, each from the folder that is named for it."""
    path, folders = Path(document), dict(one.split("=", 1) for one in named)
    text = path.read_text(encoding="utf-8")
    if missing := [name for name in folders if f"<!-- table: {name} -->" not in text]:
        sys.exit(f"{path} has no place for {', '.join(missing)}: write <!-- table: NAME --> and <!-- end --> there")

    def filled(match: re.Match[str]) -> str:
        return "\n\n".join([match[1], table(Path(folders[match[2]])), match[3]]) if match[2] in folders else match[0]

    path.write_text(re.sub(r"(<!-- table: ([\w-]+) -->).*?(<!-- end -->)", filled, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
