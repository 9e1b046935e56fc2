"""Write tables of docs from finished reproductions: what stands between `<!-- table: NAME -->` and `<!-- end -->` becomes FOLDER's rows.

    python tools/paper_tables.py docs/paper.md scenes=OUT labelled=OUT ...

OUT is the `--out` of `depthtokens reproduce`; its table.json is read. Of `--table few-shot` AbsRel stands by the number of training images.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HEAD = ("row", "trained numbers", "AbsRel", "δ < 1.25", "AbsRel − mean map", "stuck")
PARTS = r"^(?:control|paper|effects|beyond)/|(?<=t\d)/(?:nyu|kitti)|(?:nyu|kitti)/"
"""Of a row's name, what all rows of a data set have in common or what says which table it is from."""


def figure(found: Row) -> str:
    """0.322 ± 0.010, of one metric."""
    return f"{found['mean']:.3f}" + ("" if found["std"] is None else f" ± {found['std']:.3f}")


def interval(found: Row, sign: str = "") -> str:
    """[0.300, 0.350]"""
    return f"[{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]"


def published(row: Row, metric: str) -> str:
    """A measured figure, behind the published one where there is one; * as `reproduce` marks it."""
    found, stated = row["measured"][metric], row["published"].get(metric)
    if stated is None:
        return figure(found)
    spread = 2 * (found["std"] or 0)
    inside = found["interval"]["low"] - spread <= stated <= found["interval"]["high"] + spread
    return f"{stated:.3f} → {figure(found)}{'' if inside else '*'}"


def cells(row: Row) -> list[str]:
    """A line of a table of rows."""
    abs_rel, against = row["measured"]["abs_rel"], row["difference_to_mean_map"]
    difference = ""
    if against:
        spread = "" if against["seed_std"] is None else f" ± {against['seed_std']:.3f}"
        difference = f"{against['mean']:+.3f}{spread} {interval(against, '+')}"
    return [
        re.sub(PARTS, "", row["name"]), f"{row['trained_parameters']:,}", f"{published(row, 'abs_rel')} {interval(abs_rel['interval'])}",
        published(row, "d1"), difference, "" if row["stuck_runs"] is None else f"{row['stuck_runs']} of {len(row['seeds'])}",
    ]  # fmt: skip


def few_shot(rows: list[Row]) -> list[list[str]]:
    """AbsRel by the number of training images, a line for each head; the head of the table first."""
    heads: dict[str, tuple[int, dict[str, str]]] = {}
    for row in rows:
        name, _, images = row["name"].rpartition("/")[2].rpartition(", ")
        heads.setdefault(name, (row["trained_parameters"], {}))[1][images] = figure(row["measured"]["abs_rel"])
    sizes = list(next(iter(heads.values()))[1])
    lines = [[name, f"{numbers:,}", *(scores[size] for size in sizes)] for name, (numbers, scores) in heads.items()]
    return [["learned from", "trained numbers", *(f"{size} image{'' if size == '1' else 's'}" for size in sizes)], *lines]


def table(folder: Path) -> str:
    """A finished reproduction as Markdown."""
    rows = json.loads((folder / "table.json").read_text(encoding="utf-8"))["rows"]
    few = [row for row in rows if row["name"].startswith("few-shot/")]
    head, *lines = few_shot(few) if few else [list(HEAD), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---", *(["---:"] * (len(head) - 1))], *lines])


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
