"""A study's tables, each built once for page and terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ..depth.metrics import METRICS, QUOTED
from ..report.html import shown
from ..report.table import Cell, Strong, Table
from . import CONTROL, TOKENS
from .ablations import REPLACED
from .run import Study
from .scores import StudyRow

MAIN = "abs_rel"
"""The metric that rows are sorted by and drawn with."""
EACH_END = 3
"""Of the changes to tokens, so many of the least and of the most harmful are shown on the terminal."""
NEAREST = 2
"""So many neighbours of each token are shown on the terminal."""


def score_table(study: Study, rows: Sequence[StudyRow], *, searched: bool = False, title: str = "") -> Table:
    """A line per row: each quoted metric with its interval, and how the row differs from the tokens, in bold where that is clear.

    Args:
        study: the study.
        rows: of it.
        searched: add a column of what the word search lowered, on the patches that it used.
        title: of the table.
    """
    objective = study.search.objective if searched and study.search else None
    lines: list[list[Cell]] = []
    for row in rows:
        patches = [] if objective is None else [objective.get(row.name)]
        lines.append([row_name(study, row), *patches, *(row.result.interval(metric) for metric in QUOTED), difference(row)])
    heads = ["", *([] if objective is None else ["Patches ↓"]), *(METRICS[metric].heading for metric in QUOTED)]
    kinds = [{TOKENS: "learned", CONTROL: "control"}.get(row.kind, "") for row in rows]
    return Table([*heads, f"{METRICS[MAIN].label} − {TOKENS}"], lines, title, kinds)


def terminal_tables(study: Study) -> list[Table]:
    """What the terminal shows of a study: scores, the extremes of the ablations, and the nearest words."""
    tables = []
    if study.rows:
        images = len(study.rows[0].scores.per_image)
        tables.append(score_table(study, study.compared, title=f"{images} test images, 95% intervals"))
    if study.ablations:
        changes = sorted(study.ablations, key=lambda row: row.result.interval(MAIN).mean)
        ends = changes if len(changes) <= 2 * EACH_END else [*changes[:EACH_END], *changes[-EACH_END:]]
        rows = [[row_name(study, row), row.result.interval(MAIN), difference(row)] for row in ends]
        heads = ["", METRICS[MAIN].heading, f"{METRICS[MAIN].label} − {TOKENS}"]
        tables.append(Table(heads, rows, f"the least and most harmful of {len(changes)} changes"))
    return [*tables, nearest_table(study)]


def nearest_table(study: Study) -> Table:
    """The neighbours nearest to each of the tokens, in both spaces, and the best word for its bin, if one was searched."""
    tables = [table for table in study.neighbours if table.words == TOKENS]
    rows: list[list[Cell]] = []
    for i, centre in enumerate(study.model.centres.tolist()):
        near = [", ".join(f"{shown(one.name, study.fragments)} {one.distance:.2f}" for one in table.rows[i][:NEAREST]) for table in tables]
        rows.append([f"depth_{i} ({centre:.3g} m)", *near, best_word(study, i)])
    heads = ["", *(f"in {table.space} space" for table in tables), "best word"]
    return Table(heads, rows, "nearest neighbours, and the best word found", words=len(tables) + 1)


def row_name(study: Study, row: StudyRow) -> str:
    """What a row is called for a reader: as in files, but with a word that came in as people write it."""
    if row.kind == REPLACED and row.word is not None:
        return f"{row.kind} {row.tokens[0]} by {shown(row.word, study.fragments)}"
    return row.name


def best_word(study: Study, i: int) -> str:
    """The best word for bin i as people write it; "" where none was searched."""
    if study.search is None:
        return ""
    word = study.search.words[i]
    return word if study.search.phrases[i] else shown(word, study.fragments)


def difference(row: StudyRow) -> Cell:
    """A row minus the tokens, in bold where the interval leaves out zero; nothing for the tokens themselves."""
    if row.differences is None:
        return None
    found = row.differences[MAIN]
    return Strong(found) if found.clear else found
