"""The verb `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..errors import DataError, UsageError
from .console import ProgressBar, notify, parse, print_json, print_table
from .flags import JsonFlag, ScoringFlags

if TYPE_CHECKING:
    from ..data.dataset import DepthDataset
    from ..depth.model import DepthTokens
    from ..experiment.evaluate import Scores
    from ..experiment.source import Data, Scored
    from ..experiment.uncertainty import UncertaintyScores


@dataclass(frozen=True, kw_only=True)
class Evaluate(JsonFlag, ScoringFlags):
    """Score a token file, or a folder of depth maps, beside what the training split gives: one depth, the mean map, a ridge on features."""

    tokens: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")] = None
    """Token file, as `train` writes it, the run's folder, or hf:USER/NAME."""
    data: str | None = None
    """nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER (patch features that `features --mirror` made)."""
    split: str = "test"
    controls: bool = True
    """Score the controls as well."""
    csv: Path | None = None
    """Write per-image scores here."""
    predictions: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Score depth maps in place of tokens: 16-bit PNG, npy, npz or tiff, of any size, named as the images or as `predict` names results."""
    prediction_scale: float | None = None
    """Units per metre in them; by default what a PNG of `predict` states, and metres for floats."""
    align: Literal["none", "median", "affine", "affine-disparity"] = "none"
    """Fit each to its truth first: by its median, or by a scale and a shift of depth, or of inverse depth where that is what they hold."""
    save_predictions: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write the depth maps that are scored here, as float32 .npy: --predictions of this folder gives the same figures."""
    uncertainty: bool = False
    """Score uncertainty as well: does it find what is wrong (AUSE, AURG), and do intervals hold the truth as often as they say?"""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Draw that into this file."""
    compare: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="A.csv B.csv")] = None
    """Instead of scoring: the differences between two results that --csv wrote, with intervals, paired by image."""

    def check(self) -> str:
        """The data. Raises UsageError for flags that do not fit together, before any work."""
        if (self.tokens is None) == (self.predictions is None):
            raise UsageError("give a token file, or --predictions FOLDER for depth maps" + (", not both" if self.tokens else ""))
        if self.data is None:
            raise UsageError("--data is missing: nyu:ROOT, kitti:ROOT, folder:ROOT, scenes or store:FOLDER")
        if self.predictions is None and (self.prediction_scale is not None or self.align != "none"):
            raise UsageError("--prediction-scale and --align are for --predictions")
        if self.predictions is not None and self.data.startswith("store:"):
            raise UsageError("--predictions are scored on a data set, not on a store of patch features")
        if (self.uncertainty or self.plot) and self.align != "none":
            raise UsageError("--uncertainty is scored in metres as they are: leave out --align")
        for name, path in (("csv", self.csv), ("plot", self.plot)):
            if path and not path.parent.is_dir():
                raise UsageError(f"no folder {path.parent} to write --{name} to")
        return self.data


@dataclass(frozen=True)
class Scoring:
    """What was scored.

    Attributes:
        row: name of what was asked about: "tokens" or "predictions".
        source: of the test images.
        depth_scale: units per metre in the files of their depth.
        rows: name -> scores; that row, then the controls.
        numbers: name -> how many numbers were learned from data, where that is known.
        uncertainty: where it was asked for.
    """

    row: str
    source: Scored
    depth_scale: float | None
    rows: dict[str, Scores]
    numbers: dict[str, int]
    uncertainty: UncertaintyScores | None


def main(arguments: Sequence[str]) -> None:
    """Parse, evaluate, print."""
    args = parse(Evaluate, "evaluate", arguments)
    if args.compare:
        show_comparison(args.compare, args.json)
        return
    named_data, given = args.check(), args.tokens or args.predictions
    assert given is not None
    scored = score(args, named_data)
    scores, source, uncertainty = scored.rows[scored.row], scored.source, scored.uncertainty
    if args.csv:
        scores.to_csv(args.csv)
    if args.plot and uncertainty:
        write_plot(args.plot, uncertainty, f"{scored.row} ({given.name}) on {source.name} {source.split}")
    if not args.json:
        show(args, scored)
        return
    measured = [{"name": name, "trained_parameters": scored.numbers.get(name), **found.to_dict()} for name, found in scored.rows.items()]
    said = {scored.row: str(given), "data": args.data, "split": source.split, "rows": measured}
    print_json(said | ({"uncertainty": uncertainty.to_dict()} if uncertainty else {}))


def score(args: Evaluate, named_data: str) -> Scoring:
    """Score what was given, and the controls beside it."""
    from ..data.find import left_out
    from ..depth.protocol import Head
    from ..experiment.config import RIDGE
    from ..experiment.controls import learn_controls
    from ..experiment.evaluate import head_of, score_heads
    from ..experiment.predictions import PREDICTIONS, Predictions, saving, score_predictions
    from ..experiment.ridge import ridge_for
    from ..experiment.source import open_source, scored_views
    from ..experiment.uncertainty import score_uncertainty
    from ..features.store import FeatureStore

    model = args.model(args.tokens) if args.tokens else None
    named, protocol = args.named(named_data, model), args.protocol_for(model)
    data = named.store or named.split(args.split, args.list_file)
    try:
        training = named.split("train", args.train_list) if args.controls else None
    except DataError as error:
        raise DataError(f"no training split for the controls ({error}): give its list with --train-list, or use --no-controls") from error
    _warn(model, data, training)
    with ProgressBar() as progress, ExitStack() as stack:
        source: Scored
        if model is not None:
            row, source = "tokens", open_source(model, data, scored_views(protocol, model.settings.normalisation), args.reading(progress))
        else:
            assert args.predictions and not isinstance(data, FeatureStore)
            maps = Predictions(args.predictions, data, args.align, args.prediction_scale, args.workers)
            for line in left_out("depth maps belong to no image", maps.extra, args.predictions):
                notify(f"note: {line}")
            row, source = PREDICTIONS, maps
        saved = args.save_predictions
        keep = stack.enter_context(saving(saved, row, source.names, protocol)) if saved else None
        depth_range = protocol.depth_range or source.depth_range
        controls = learn_controls(training, depth_range, args.workers, progress) if training is not None else None
        numbers = dict(controls.parameters) if controls else {}
        if model is None:
            rows = score_predictions(maps, protocol, controls, progress, keep)
        else:
            heads: dict[str, Head] = {row: head_of(model)}
            numbers = {row: sum(value.numel() for value in model.trainable().values()), **numbers}
            if training is not None and not named.store:
                heads[RIDGE] = ridge = ridge_for(model, training, replace(args.reading(progress), list_file=args.train_list))
                numbers[RIDGE] = ridge.parameters
            rows = score_heads(heads, source, protocol, controls, progress, keep)
        uncertainty = score_uncertainty(model, source, protocol, progress) if args.uncertainty or args.plot else None
    if training is not None and named.store:
        notify(f"note: no row '{RIDGE}': the store holds no features of training images; with the data set itself there is one")
    depth_scale = data.meta["data"]["depth_scale"] if isinstance(data, FeatureStore) else data.depth_scale
    return Scoring(row, source, depth_scale, rows, numbers, uncertainty)


def show(args: Evaluate, scored: Scoring) -> None:
    """Print tables, and what has to be said of them."""
    from ..depth.align import ALIGNMENTS
    from ..depth.metrics import METRICS, QUOTED
    from ..report.table import Cell, Table

    scores = scored.rows[scored.row]
    aligned = f", predictions {ALIGNMENTS[args.align]}" if args.predictions else ""
    protocol, source = scores.protocol, scored.source
    described = protocol.describe(scores.depth_range, source.eval_crop)
    print(f"{args.data} {source.split}: {len(scores.per_image)} images, {described}{aligned}\n")
    for title, pooled in (("mean over images", False), ("pooled over pixels", True)):
        mark = " (the protocol's figures)" if pooled == (protocol.average == "pixel") else ""
        mark += f", align {args.align}" if args.predictions else ""
        figures = {name: found.pixel_wise if pooled else found.image_wise for name, found in scored.rows.items()}
        cells: list[list[Cell]] = [[name, *values.values()] for name, values in figures.items()]
        print_table(Table(["", *METRICS], cells, title=title + mark, less=[name for name in METRICS if name not in QUOTED]))
    if scored.uncertainty:
        show_uncertainty(scored.row, scored.uncertainty)
    counted = ", ".join(f"{name} {count:,}" for name, count in scored.numbers.items())
    if counted:
        print(f"\ntrained numbers: {counted}")
    for name, found in scored.rows.items():
        if found.not_finite:
            notify(f"warning: {found.not_finite:,} depths of '{name}' were no numbers, and an end of the range was scored in their place")
    if scored.depth_scale is not None:
        lo, hi = scores.depth_range
        print(f"\ndepth files: {scored.depth_scale:g} units per metre; truth counts from {lo:g} to {hi:g} m")
    if scores.skipped:
        notify(f"note: {len(scores.skipped)} images without valid depth were skipped: {', '.join(scores.skipped[:3])}")


def show_uncertainty(row: str, scores: UncertaintyScores) -> None:
    """Print what a row's uncertainty is worth."""
    from ..depth.metrics import METRICS
    from ..experiment.uncertainty import QUOTED
    from ..report.table import Table

    areas = {f"{kind} {METRICS[name].label}": value for name, curves in scores.sparsification.items()
             for kind, value in (("AUSE", curves.ause), ("AURG", curves.aurg))}  # fmt: skip
    covered = {f"in {level:.0%}": scores.covered(level) for level in QUOTED}
    title = f"uncertainty; truth in intervals of {scores.intervals}"
    print_table(Table(["", *areas, *covered], [[row, *areas.values(), *covered.values()]], title=title))


def write_plot(path: Path, scores: UncertaintyScores, title: str) -> None:
    """Draw what uncertainty is worth into a file."""
    from ..files import atomic
    from ..report.reliability import reliability_plot

    with atomic(path) as file:
        file.write(reliability_plot(scores, title))


def show_comparison(files: tuple[Path, Path], as_json: bool) -> None:
    """Print the differences between two results."""
    from ..depth.metrics import METRICS
    from ..experiment.compare import compare
    from ..report.table import Cell, Strong, Table

    found = compare(*files)
    if as_json:
        print_json({"a": str(files[0]), "b": str(files[1]), **found.to_dict()})
        return
    named = [f"{name} = {path}{f' (align {align})' if align else ''}" for name, path, align in zip("AB", files, found.aligned, strict=True)]
    print(f"{', '.join(named)}: {found.images} images, protocol {found.protocol}, means over images\n")
    cells: list[list[Cell]] = []
    for name, metric in METRICS.items():
        difference = found.differences[name]
        cells.append([metric.heading, *found.means[name], Strong(difference) if difference.clear else difference])
    print_table(Table(["", "A", "B", "A − B [95 %, paired by image]"], cells))


def _warn(model: DepthTokens | None, data: Data, training: DepthDataset | None) -> None:
    """Say what makes the scores mean less than they seem to."""
    from ..data.check import remarks, sample_truth
    from ..experiment.controls import shared_images
    from ..features.store import FeatureStore

    if not isinstance(data, FeatureStore):
        for line in remarks(data, sample_truth(data)):
            notify(line)

    side = min(data.image_height, data.image_sizes[0][1]) if isinstance(data, FeatureStore) else min(data.image_size(0))
    trained = model.settings.predict_side if model else None
    if trained is not None and side != trained:
        notify(f"warning: the shorter side of images is {side} pixels, that of training's was {trained}: CLIP sees things at another scale")
    if data.split != "test":
        notify(f"warning: these are images of the split '{data.split}', which tokens and controls may have been learned on")
    elif training is not None and not isinstance(data, FeatureStore) and (shared := shared_images(training, data)):
        notify(f"warning: {shared} of {len(data)} test images are in the training split too, which the controls are learned on")
