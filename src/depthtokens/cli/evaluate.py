"""The verb `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import DataError, UsageError
from .console import ProgressBar, notify, parse, print_json, print_table
from .flags import JsonFlag, ScoringFlags

if TYPE_CHECKING:
    from ..data.dataset import DepthDataset
    from ..depth.model import DepthTokens
    from ..experiment.source import Data


@dataclass(frozen=True, kw_only=True)
class Evaluate(JsonFlag, ScoringFlags):
    """Score a token file on a data set, beside what its training split gives: one depth, the mean map, a ridge on the same features."""

    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """Token file, as `train` writes it, the run's folder, or hf:USER/NAME."""
    data: str
    """nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER (patch features that `features --mirror` made)."""
    split: str = "test"
    controls: bool = True
    """Score the controls as well."""
    csv: Path | None = None
    """Write per-image scores here."""


def main(arguments: Sequence[str]) -> None:
    """Parse, evaluate, print."""
    args = parse(Evaluate, "evaluate", arguments)

    from ..depth.metrics import METRICS, QUOTED
    from ..depth.protocol import Head
    from ..experiment.controls import learn_controls
    from ..experiment.evaluate import head_of, score_heads
    from ..experiment.ridge import RIDGE, ridge_for
    from ..experiment.source import open_source, scored_views
    from ..features.store import FeatureStore
    from ..report.table import Cell, Table

    if args.csv and not args.csv.parent.is_dir():
        raise UsageError(f"no folder {args.csv.parent} to write --csv to")
    model = args.model(args.tokens)
    named, protocol = args.named(args.data, model), args.protocol_for(model)
    data = named.store or named.split(args.split, args.list_file)
    try:
        training = named.split("train", args.train_list) if args.controls else None
    except DataError as error:
        raise DataError(f"no training split for the controls ({error}): give its list with --train-list, or use --no-controls") from error
    _warn(model, data, training)
    with ProgressBar() as progress:
        source = open_source(model, data, scored_views(protocol, model.settings.normalisation), args.reading(progress))
        depth_range = protocol.depth_range or source.depth_range
        controls = learn_controls(training, depth_range, args.workers, progress) if training is not None else None
        heads: dict[str, Head] = {"tokens": head_of(model)}
        numbers = {"tokens": sum(value.numel() for value in model.trainable().values()), **(controls.parameters if controls else {})}
        if training is not None and not named.store:
            heads[RIDGE] = ridge = ridge_for(model, training, replace(args.reading(progress), list_file=args.train_list))
            numbers[RIDGE] = ridge.parameters
        rows = score_heads(heads, source, protocol, controls, progress)
    if training is not None and named.store:
        notify(f"note: no row '{RIDGE}': the store holds no features of training images; with the data set itself there is one")
    scores = rows["tokens"]
    if args.csv:
        scores.to_csv(args.csv)
    if args.json:
        measured = [{"name": name, "trained_parameters": numbers[name], **row.to_dict()} for name, row in rows.items()]
        print_json({"tokens": str(args.tokens), "data": args.data, "split": source.split, "rows": measured})
        return
    print(f"{args.data} {source.split}: {len(scores.per_image)} images, {scores.protocol.describe(scores.depth_range, source.eval_crop)}\n")
    for title, pooled in (("mean over images", False), ("pooled over pixels", True)):
        mark = " (the protocol's figures)" if pooled == (protocol.average == "pixel") else ""
        figures = {name: row.pixel_wise if pooled else row.image_wise for name, row in rows.items()}
        cells: list[list[Cell]] = [[name, *values.values()] for name, values in figures.items()]
        print_table(Table(["", *METRICS], cells, title=title + mark, less=[name for name in METRICS if name not in QUOTED]))
    counted = ", ".join(f"{name} {count:,}" for name, count in numbers.items())
    print(f"\ntrained numbers: {counted}")
    for name, row in rows.items():
        if row.not_finite:
            notify(f"warning: {row.not_finite:,} depths of '{name}' were no numbers, and an end of the range was scored in their place")
    if (scale := data.meta["data"]["depth_scale"] if isinstance(data, FeatureStore) else data.depth_scale) is not None:
        print(f"\ndepth files: {scale:g} units per metre; truth counts from {scores.depth_range[0]:g} to {scores.depth_range[1]:g} m")
    if scores.skipped:
        notify(f"note: {len(scores.skipped)} images without valid depth were skipped: {', '.join(scores.skipped[:3])}")


def _warn(model: DepthTokens, data: Data, training: DepthDataset | None) -> None:
    """Say what makes the scores mean less than they seem to."""
    from ..data.check import remarks, sample_truth
    from ..experiment.controls import shared_images
    from ..features.store import FeatureStore

    if not isinstance(data, FeatureStore):
        for line in remarks(data, sample_truth(data)):
            notify(line)

    side = min(data.image_height, data.image_sizes[0][1]) if isinstance(data, FeatureStore) else min(data.image_size(0))
    trained = model.settings.predict_side
    if trained is not None and side != trained:
        notify(f"warning: the shorter side of images is {side} pixels, that of training's was {trained}: CLIP sees things at another scale")
    if data.split != "test":
        notify(f"warning: these are images of the split '{data.split}', which tokens and controls may have been learned on")
    elif training is not None and not isinstance(data, FeatureStore) and (shared := shared_images(training, data)):
        notify(f"warning: {shared} of {len(data)} test images are in the training split too, which the controls are learned on")
