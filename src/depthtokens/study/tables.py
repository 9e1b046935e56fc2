"""A study's tables, each built once for page and terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ..depth.metrics import METRICS, QUOTED
from ..experiment.statistics import mean_std
from ..report.html import shown
from ..report.table import Cell, Strong, Table
from . import CONTROL, MAIN, TOKENS, WORDS
from .ablations import REPLACED
from .carry import AS_TEXT
from .neighbours import NeighbourTable
from .run import Study
from .scores import StudyRow
from .words import WordSearch

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
    objective = {name: value for search in study.searches for name, value in search.objective.items()} if searched else None
    lines: list[list[Cell]] = []
    for row in rows:
        patches = [objective.get(row.name)] if objective else []
        lines.append([row_name(study, row), *patches, *(row.result.interval(metric) for metric in QUOTED), difference(row)])
    heads = ["", *(["Patches ↓"] if objective else []), *(METRICS[metric].heading for metric in QUOTED)]
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
    tables += [phrase_table(study)] if study.longer else []
    tables += [carried_table(study)] if study.carried else []
    tables.append(nearest_table(study))
    return [*tables, *([paper_table(study.paper_table)] if study.paper_table else [])]


def nearest_table(study: Study) -> Table:
    """The neighbours nearest to each of the tokens, in both spaces, and the best word for its bin, if one was searched."""
    tables = [table for table in study.neighbours if table.words == TOKENS]
    rows: list[list[Cell]] = []
    for i, centre in enumerate(study.model.centres.tolist()):
        near = [", ".join(f"{shown(one.name, study.fragments)} {one.distance:.2f}" for one in table.rows[i][:NEAREST]) for table in tables]
        rows.append([f"depth_{i} ({centre:.3g} m)", *near, best_found(study, study.search, i) if study.search else ""])
    heads = ["", *(f"in {table.space} space" for table in tables), "best word"]
    return Table(heads, rows, "nearest neighbours, and the best word found", words=len(tables) + 1)


def row_name(study: Study, row: StudyRow) -> str:
    """What a row is called for a reader: as in files, but with a word that came in as people write it."""
    if row.kind == REPLACED and row.word is not None:
        return f"{row.kind} {row.tokens[0]} by {shown(row.word, study.fragments)}"
    return row.name


def best_found(study: Study, search: WordSearch, i: int) -> str:
    """The best word or phrase for bin i, its entries as people write them."""
    return " ".join(shown(entry, study.fragments) for entry in search.entries[i])


def phrase_table(study: Study) -> Table:
    """Best words, pairs and triples beside the tokens: how their search went, and what they score."""
    scored = {row.name: row for row in study.compared}
    objective = study.searches[0].objective
    rows: list[list[Cell]] = [[TOKENS, None, None, objective[TOKENS], scored[TOKENS].result.interval(MAIN), None, None]]
    for search in study.searches:
        ends, row = search.found.end_scores, scored[search.name]
        test = [row.result.interval(MAIN), difference(row)]
        rows.append([search.name, len(ends), mean_std(ends), search.objective[search.name], *test, round(search.seconds)])
    label = METRICS[MAIN].heading
    heads = ["", "Starts", "Where they end", "Patches ↓", label, f"{METRICS[MAIN].label} − {TOKENS}", "Seconds"]
    kinds = ["learned", *("" for _ in study.searches)]
    return Table(heads, rows, "the best found with one vocabulary entry per bin, with up to two, and so on", kinds)


def carried_table(study: Study) -> Table:
    """What best words, scales and controls score on their own CLIP, and on the one that they were carried to."""
    carried = study.carried
    assert carried is not None
    own = {row.name: row.result.interval(MAIN) for row in study.rows}
    there = {row.name: row.result.interval(MAIN) for row in carried.rows}
    rows: list[list[Cell]] = []
    for name in carried.texts:
        left = carried.survives[name]
        rows.append([name, own[name], own[name + AS_TEXT], there[name], "" if left is None else f"{100 * left:.0f} %"])
    rows += [[row.name, own.get(row.name), None, there[row.name], None] for row in carried.rows if row.kind == WORDS]
    rows += [[row.name, own[row.name], None, own[row.name], None] for row in study.compared if row.kind == CONTROL]
    heads = ["", f"{METRICS[MAIN].heading}, own CLIP", "Own CLIP, as text", "The other CLIP", "Survives"]
    read = f"{carried.model.clip.identity.name}, {carried.model.settings.dense} features"
    return Table(heads, rows, f"the best found, as text in another CLIP ({read})")


def paper_table(near: NeighbourTable) -> Table:
    """Neighbours as the paper lays them out: a column per token, the nearest first, entries as the vocabulary writes them."""
    columns = [[f"{one.name} {one.distance:.3f}" for one in row] for row in near.rows]
    rows: list[list[Cell]] = [[rank, *cells] for rank, cells in enumerate(zip(*columns, strict=True), 1)]
    heads = ["", *(f"depth_{i}" for i in range(len(columns)))]
    return Table(heads, rows, f"the {len(rows)} nearest to each token in {near.space} space", words=len(columns))


def difference(row: StudyRow) -> Cell:
    """A row minus the tokens, in bold where the interval leaves out zero; nothing for the tokens themselves."""
    if row.differences is None:
        return None
    found = row.differences[MAIN]
    return Strong(found) if found.clear else found
