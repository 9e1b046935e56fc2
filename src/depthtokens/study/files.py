"""A study as files: its page, and its numbers as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..depth.metrics import METRICS
from ..errors import UsageError
from ..experiment.statistics import Interval
from ..files import LOCK, locked, make_folder, write_text
from ..places import last_part
from . import TOKENS
from .neighbours import EMBEDDING, NeighbourTable
from .page import study_page
from .run import Study
from .scores import StudyRow
from .tables import paper_table
from .words import WordSearch

PAGE, NUMBERS, SCORES, NEIGHBOURS = "report.html", "study.json", "scores.csv", "neighbours.csv"
PAPER_TABLE = "paper_table"
"""Ending in .md and .csv."""
LESS = f"less_{TOKENS}"
"""In files: a row minus the tokens."""


@contextmanager
def output_folder(out: Path, overwrite: bool) -> Iterator[None]:
    """Make the folder that a study is written to, and hold it; where the study fails and nothing was there before, nothing is left.

    What a study left that was killed before its page was written, which comes last, is written anew.

    Args:
        out: the folder.
        overwrite: whether it may hold something.

    Raises:
        UsageError: where it holds something else (unless `overwrite`), or is a file.
        DataError: where another process is writing it.
        DepthTokensError: where it cannot be made.
    """
    existed = out.exists()
    _check_out(out, overwrite)
    make_folder(out)
    try:
        with locked(out):
            _check_out(out, overwrite)  # another study may have been written meanwhile
            yield
    finally:
        if not existed and not any(path.name != LOCK for path in out.iterdir()):
            (out / LOCK).unlink(missing_ok=True)
            out.rmdir()


def _check_out(out: Path, overwrite: bool) -> None:
    """Raise UsageError for a folder that a study may not be written to."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")
    there = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() and not overwrite else set()
    if PAGE in there:
        raise UsageError(f"the output folder {out} holds a study: choose another --out, or give --overwrite")
    if there and not (NUMBERS in there and there <= {NUMBERS, NEIGHBOURS, SCORES, f"{PAPER_TABLE}.md", f"{PAPER_TABLE}.csv"}):
        raise UsageError(f"the output folder {out} is not empty: choose another --out, or give --overwrite")


def write_study(study: Study, out: Path, tokens: str) -> Path:
    """Write a study's numbers and its page, each file whole or not at all, the page last. Without images there is no scores.csv.

    The table in the paper's layout is paper_table.md; paper_table.csv has the same a line per neighbour.

    Args:
        study: the study.
        out: a folder that is there.
        tokens: what the user calls the tokens, a file or words.

    Returns:
        Where the page is.

    Raises:
        DepthTokensError: where a file cannot be written.
    """
    tokens, values = told(tokens), to_dict(study, tokens)
    (out / PAGE).unlink(missing_ok=True)  # of an earlier study: a page stands for whole files of its own
    write_text(out / NUMBERS, json.dumps(values, indent=1, allow_nan=False) + "\n")
    _write_csv(out / NEIGHBOURS, ["words", "space", "position", "token", "rank", "neighbour", "distance"], _neighbour_rows(study))
    if study.rows:
        _write_csv(out / SCORES, _score_columns(), map(_score_row, study.rows))
    else:
        (out / SCORES).unlink(missing_ok=True)  # another study's, overwritten
    if study.paper_table is None:
        for end in ("md", "csv"):
            (out / f"{PAPER_TABLE}.{end}").unlink(missing_ok=True)
    else:
        write_text(out / f"{PAPER_TABLE}.md", paper_table(study.paper_table).markdown() + "\n")
        _write_csv(out / f"{PAPER_TABLE}.csv", ["token", "rank", "neighbour", "distance"], _published_rows(study.paper_table))
    write_text(out / PAGE, study_page(study, tokens))
    return out / PAGE


def to_dict(study: Study, tokens: str) -> dict[str, Any]:
    """Everything that a study found and depends on, as plain values; depths in metres, words as the vocabulary writes them.

    Args:
        study: the study.
        tokens: what the user calls the tokens, a file or words.
    """
    model, data, search = study.model, study.data, study.search
    values: dict[str, Any] = {
        "tokens": told(tokens),
        "model": {**model.settings.to_header(), "centres": model.centres.tolist(), "scale_value": float(model.log_scale.exp())},
        "clip": asdict(model.clip.identity),
        "settings": asdict(study.settings),
        "versions": study.versions,
        "seconds": study.seconds,
        "notes": study.notes,
        "vocabulary": study.vocabulary,
        "neighbours": [
            {"words": table.words, "space": table.space, "rows": [[asdict(neighbour) for neighbour in row] for row in table.rows]}
            for table in study.neighbours
        ],
        "distances": {name: table.tolist() for name, table in study.distances.items()},
        "paths": {name: path.to_dict() for name, path in study.paths.items()},
        "norms": {name: lengths.tolist() for name, lengths in study.norms.items()},
        "vocabulary_norms": dict(zip(("p5", "p50", "p95"), study.vocabulary_norms, strict=True)),
    }
    if data is not None:
        scores = study.rows[0].scores
        values["data"] = {
            "name": data.test.name, "split": data.test.split, "images": len(scores.per_image), "skipped": scores.skipped,
            "depth_range": list(scores.depth_range), "protocol": data.protocol.to_dict(),
            "protocol_in_words": data.protocol.describe(scores.depth_range, data.test.eval_crop), "searched_on": data.searched_on,
        }  # fmt: skip
        values["scores"] = [_scored(row) for row in study.rows]
    if search is not None:
        values["search"] = {
            "words": search.words, "phrases": search.phrases, "candidates": search.candidates, "patches": search.patches,
            "objective": search.objective, "without": search.without, "start_scores": search.found.start_scores,
            "end_scores": search.found.end_scores, "converged": search.found.converged,
            "history": [asdict(step) for step in search.found.history],
        }  # fmt: skip
    if study.longer:
        values["phrases"] = [_phrases(search) for search in study.longer]
    if study.carried is not None:
        carried = study.carried
        values["carried"] = {
            "clip": asdict(carried.model.clip.identity), "dense": carried.model.settings.dense, "texts": carried.texts,
            "differs": carried.differs, "scores": [_scored(row) for row in carried.rows], "survives": carried.survives,
        }  # fmt: skip
    return values


def _phrases(search: WordSearch) -> dict[str, Any]:
    """The best phrases in study.json."""
    found = search.found
    return {
        "name": search.name, "length": search.length, "texts": search.words, "entries": search.entries, "ids": search.ids,
        "scored": search.candidates, "objective": search.objective, "without": search.without, "start_scores": found.start_scores,
        "end_scores": found.end_scores, "converged": found.converged, "seconds": search.seconds,
    }  # fmt: skip


def told(tokens: str) -> str:
    """What others are told of the tokens: words as they are, a file by its name alone."""
    return tokens if "|" in tokens else last_part(tokens)


def _scored(row: StudyRow) -> dict[str, Any]:
    """A row of study.json."""
    return {
        "name": row.name,
        "kind": row.kind,
        "mean_over_images": {metric: _interval(row.result.interval(metric)) for metric in METRICS},
        "pooled_over_pixels": row.scores.pixel_wise,
        LESS: None if row.differences is None else {metric: _interval(row.differences[metric]) for metric in METRICS},
    }


def _score_columns() -> list[str]:
    """The columns of scores.csv."""
    names = [*METRICS, *(f"{metric}_{LESS}" for metric in METRICS)]
    return [
        "name",
        "kind",
        *(f"{name}{end}" for name in names for end in ("", "_low", "_high")),
        *(f"{metric}_pooled" for metric in METRICS),
    ]


def _score_row(row: StudyRow) -> list[str | float]:
    """A row of scores.csv; the tokens have no difference to themselves."""
    means = [row.result.interval(metric) for metric in METRICS]
    differences = [row.differences[metric] if row.differences else None for metric in METRICS]
    cells: list[str | float] = [row.name, row.kind]
    for interval in [*means, *differences]:
        cells += ["", "", ""] if interval is None else [interval.mean, interval.low, interval.high]
    return [*cells, *(row.scores.pixel_wise[metric] for metric in METRICS)]


def _neighbour_rows(study: Study) -> Iterable[list[object]]:
    """The rows of neighbours.csv."""
    read_at = "end-of-text" if study.settings.position is None else study.settings.position
    for table in study.neighbours:
        position = read_at if table.space == EMBEDDING else ""
        for i, row in enumerate(table.rows):
            for rank, neighbour in enumerate(row, 1):
                yield [table.words, table.space, position, f"depth_{i}", rank, neighbour.name, neighbour.distance]


def _published_rows(table: NeighbourTable) -> Iterable[list[object]]:
    """The rows of paper_table.csv, in the form in which the paper's own are quoted."""
    for i, row in enumerate(table.rows):
        for rank, neighbour in enumerate(row, 1):
            yield [f"depth_{i}", rank, neighbour.name, f"{neighbour.distance:.3f}"]


def _interval(interval: Interval) -> dict[str, float]:
    """An interval in study.json; of a difference the same and no more."""
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "level": interval.level}


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
