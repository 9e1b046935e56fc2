"""Write tables of docs from finished reproductions: what stands between `<!-- table: NAME -->` and `<!-- end -->` becomes FOLDER's rows.

    python tools/paper_tables.py docs/paper.md scenes=OUT labelled=OUT 'domains=OUT:mean map|tokens'...

OUT is the `--out` of `depthtokens reproduce`, whose table.md is read: of each table the columns that a page of the docs has room for, of
several data sets which it is; behind a colon may stand which rows, as a regular expression. Of `--table few-shot` it is the one by the
number of training images.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COLUMNS = ("row", "trained numbers", "AbsRel", "δ < 1.25", "AbsRel − mean map", "stuck")
BEHIND = {"AbsRel": "AbsRel 95 %"}
"""Columns that stand in one with another, behind it."""


def tables(text: str) -> list[tuple[str, list[list[str]]]]:
    """The tables of a Markdown document, as cells, each with the heading that it stands under."""
    found, heading = [], ""
    for part in re.findall(r"^## .*\n|(?:^\|.*\|\n)+", text, re.MULTILINE):
        if part.startswith("#"):
            heading = part.lstrip("# ").partition(" (")[0].strip()
        else:
            found.append((heading, [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]))
    return found


def narrowed(table: list[list[str]]) -> list[list[str]]:
    """Of a table of rows the columns that are wanted."""
    head, align, *rows = table

    def cells(row: list[str]) -> list[str]:
        named = dict(zip(head, row, strict=True))
        named["row"] = named["row"].removeprefix("beyond/")
        return [f"{named[name]} {named[BEHIND[name]]}" if name in BEHIND else named[name] for name in COLUMNS]

    return [list(COLUMNS), [dict(zip(head, align, strict=True))[name] for name in COLUMNS], *map(cells, rows)]


def table(folder: Path, wanted: str = "") -> str:
    """A finished reproduction as Markdown."""
    found = tables((folder / "table.md").read_text(encoding="utf-8"))
    few = [cells for _, cells in found if cells[0][0] == "learned from"]
    if few:
        lines = few[0]
    else:
        parts = [(heading, narrowed(cells)) for heading, cells in found]
        head, align = parts[0][1][:2]
        several = len(parts) > 1
        lines = [["measured on"] * several + head, ["---"] * several + align]
        lines += [[heading] * several + row for heading, cells in parts for row in cells[2:] if re.search(wanted, row[0])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(document: str, *named: str) -> None:
    """Fill a document's tables, each from the folder that is named for it."""
    path, folders = Path(document), dict(one.split("=", 1) for one in named)
    text = path.read_text(encoding="utf-8")
    if missing := [name for name in folders if f"<!-- table: {name} -->" not in text]:
        sys.exit(f"{path} has no place for {', '.join(missing)}: write <!-- table: NAME --> and <!-- end --> there")

    def filled(match: re.Match[str]) -> str:
        if match[2] not in folders:
            return match[0]
        folder, _, wanted = folders[match[2]].partition(":")
        return "\n\n".join([match[1], table(Path(folder), wanted), match[3]])

    path.write_text(re.sub(r"(<!-- table: ([\w-]+) -->).*?(<!-- end -->)", filled, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
