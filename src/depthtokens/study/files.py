"""The numbers of a study as plain values, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

import depthtokens

from ..depth.metrics import METRICS
from ..errors import DepthTokensError, UsageError
from ..experiment.statistics import Interval
from ..files import atomic
from .geometry import Correlation
from .geometry import Path as TokenPath
from .run import Study
from .page import study_page
from .scores import TOKENS, ScoredRow

REPORT, NUMBERS, SCORES, NEIGHBOURS = "report.html", "study.json", "scores.csv", "neighbours.csv"


@contextmanager
def output_folder(out: Path, overwrite: bool) -> Iterator[None]:
    """Make the folder that a study is written to; where the study fails and nothing was there before, nothing is left.

    Raises UsageError where it holds something (unless overwrite), DepthTokensError where it cannot be made.
    """
    existed = out.exists()
    if existed and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")
    if existed and any(out.iterdir()) and not overwrite:
        raise UsageError(f"the output folder {out} is not empty: choose another --out, or give --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DepthTokensError(f"cannot write to {out}: {error.strerror}; give another --out") from error
    try:
        yield
    finally:
        if not existed and not any(out.iterdir()):
            out.rmdir()


def write_study(study: Study, out: Path, tokens: str) -> Path:
    """Write the report and its numbers to a folder that is there, each file whole or not at all; returns the report's path.

    tokens: what the user calls the tokens, a file or words. Without images there is no scores.csv.
    """
    values = to_dict(study, tokens)
    _write(out / NUMBERS, json.dumps(values, indent=1, allow_nan=False) + "\n")
    _write_csv(out / NEIGHBOURS, ["words", "space", "position", "token", "rank", "neighbour", "distance"], _neighbour_rows(study))
    if study.rows:
        _write_csv(out / SCORES, ["name", "kind", *_score_columns()], [[v["name"], v["kind"], *_flat(v)] for v in values["scores"]])
    else:
        (out / SCORES).unlink(missing_ok=True)  # another study's, overwritten
    _write(out / REPORT, study_page(study, values))
    return out / REPORT


def to_dict(study: Study, tokens: str) -> dict[str, Any]:
    """Everything that a study found and depends on, as plain values; depths in metres, words as the vocabulary writes them."""
    model, data = study.model, study.data
    named = {"name": model.clip.name, "weights": model.clip.weights, "fingerprint": model.clip.fingerprint}
    values: dict[str, Any] = {
        "tokens": tokens,
        "model": {**model.settings, "centres": model.centres.tolist(), "words": model.words, "scale_value": float(model.log_scale.exp())},
        "clip": named,
        "settings": asdict(study.settings),
        "versions": {
            "depthtokens": depthtokens.__version__, "torch": torch.__version__, "open_clip": open_clip.__version__,
            "numpy": np.__version__, "python": platform.python_version(),
        },
        "seconds": study.seconds,
        "notes": study.notes,
        "vocabulary": study.vocabulary,
        "neighbours": [
            {"words": table.words, "space": table.space, "rows": [[asdict(neighbour) for neighbour in row] for row in table.rows]}
            for table in study.neighbours
        ],
        "distances": {name: table.tolist() for name, table in study.distances.items()},
        "paths": {name: _path(path) for name, path in study.paths.items()},
        "norms": {name: lengths.tolist() for name, lengths in study.norms.items()},
        "vocabulary_norms": dict(zip(("p5", "p50", "p95"), study.vocabulary_norms, strict=True)),
    }  # fmt: skip
    if data is not None:
        scored = study.rows[0].scores
        values["data"] = {
            "name": data.test.name, "split": data.test.split, "images": len(scored.per_image), "skipped": scored.skipped,
            "depth_range": list(scored.depth_range), "protocol": data.protocol.to_dict(),
            "protocol_in_words": data.protocol.describe(scored.depth_range, data.test.eval_crop),
            "searched_on": None if data.train is None else f"{data.train.name} {data.train.split}, {len(data.train.names)} images",
        }  # fmt: skip
        values["scores"] = [_scored(row) for row in study.rows]
    if study.search is not None:
        search = study.search
        values["search"] = {
            "words": search.words, "phrases": search.phrases, "candidates": search.candidates, "patches": search.patches,
            "objective": search.objective, "without": search.without, "start_scores": search.found.start_scores,
            "end_scores": search.found.end_scores,
            "converged": search.found.converged, "history": [asdict(step) for step in search.found.history],
        }  # fmt: skip
    return values


def _scored(row: ScoredRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "mean_over_images": {metric: _interval(row.intervals[metric]) for metric in METRICS},
        "pooled_over_pixels": row.scores.pixel_wise,
        f"less_{TOKENS}": None if row.differences is None else {metric: _interval(row.differences[metric]) for metric in METRICS},
    }


def _score_columns() -> list[str]:
    names = [*METRICS, *(f"{metric}_less_{TOKENS}" for metric in METRICS)]
    return [f"{name}{end}" for name in names for end in ("", "_low", "_high")] + [f"{metric}_pooled" for metric in METRICS]


def _flat(row: dict[str, Any]) -> list[float | str]:
    """A row's numbers in the order of `_score_columns`; the tokens have no difference to themselves."""
    differences = row[f"less_{TOKENS}"] or dict.fromkeys(METRICS)
    intervals = [*row["mean_over_images"].values(), *differences.values()]
    ends = [interval[key] if interval else "" for interval in intervals for key in ("mean", "low", "high")]
    return [*ends, *row["pooled_over_pixels"].values()]


def _neighbour_rows(study: Study) -> Iterable[list[object]]:
    read_at = "end-of-text" if study.settings.position is None else study.settings.position
    for table in study.neighbours:
        position = read_at if table.space == "embedding" else ""
        for i, row in enumerate(table.rows):
            for rank, neighbour in enumerate(row, 1):
                yield [table.words, table.space, position, f"depth_{i}", rank, neighbour.name, neighbour.distance]


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "level": interval.level}


def _path(path: TokenPath) -> dict[str, Any]:
    def correlation(found: Correlation) -> dict[str, float]:
        return {"value": found.value, "p_value": found.p_value}

    return {
        "points": path.points.tolist(), "explained": path.explained.tolist(), "order": list(path.order),
        "along_first": correlation(path.along_first), "along_order": correlation(path.along_order), "pairs": correlation(path.pairs),
    }  # fmt: skip


def _write(path: Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text.encode())


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    _write(path, text.getvalue())
