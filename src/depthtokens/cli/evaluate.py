"""depthtokens evaluate"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import DataError, UsageError
from .console import Reporter, parse, print_json, print_table
from .flags import Scoring


@dataclass
class Evaluate:
    """Score a token file on a data set, beside one constant depth and the mean depth map of its training split."""

    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """Token file, as `train` writes it."""
    data: str
    """nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER (patch features that `features --mirror` made)."""
    split: str = "test"
    controls: bool = True
    """Score the two controls as well."""
    csv: Path | None = None
    """Write per-image scores here."""
    json: bool = False
    scoring: Scoring = field(default_factory=Scoring)


def main(arguments: Sequence[str]) -> None:
    """Parse, evaluate, print."""
    args = parse(Evaluate, "evaluate", arguments)

    from ..depth.metrics import METRICS
    from ..experiment.controls import evaluate_with_controls

    if args.csv and not args.csv.parent.is_dir():
        raise UsageError(f"no folder {args.csv.parent} to write --csv to")
    scoring = args.scoring
    model = scoring.model(args.tokens)
    on = scoring.on(model, args.data)
    data = on.store or on.split(args.split, scoring.list_file)
    try:
        training = on.split("train", scoring.train_list) if args.controls else None
    except DataError as error:
        raise DataError(f"no training split for the controls ({error}): give its list with --train-list, or use --no-controls") from error
    with Reporter("evaluating") as reporter:
        source = on.source(data, list_file=scoring.list_file, progress=partial(reporter.named, "reading images"))
        told = partial(reporter.named, "evaluating")
        rows = evaluate_with_controls(model, source, training, on.protocol, workers=scoring.workers, progress=told)
    scores = rows["tokens"]
    if args.csv:
        scores.save_csv(args.csv)
    if args.json:
        print_json({"tokens": str(args.tokens), "rows": [{"name": name, **row.to_dict()} for name, row in rows.items()]})
        return
    print(f"{args.data} {source.split}: {len(scores.per_image)} images, {scores.protocol.describe(scores.depth_range, source.eval_crop)}\n")
    for title, kind in (("mean over images", "image_wise"), ("pooled over pixels", "pixel_wise")):
        mark = " (the protocol's figures)" if getattr(scores, kind) is scores.quoted else ""
        print_table(title + mark, ["", *METRICS], [[name, *getattr(row, kind).values()] for name, row in rows.items()])
    if scores.skipped:
        print(f"note: {len(scores.skipped)} images without valid depth were skipped: {', '.join(scores.skipped[:3])}", file=sys.stderr)
