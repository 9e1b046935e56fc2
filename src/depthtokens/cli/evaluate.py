"""depthtokens evaluate"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..errors import DataError, UsageError
from .common import Reporter, load_model, note, parse, print_json, print_table


@dataclass
class Evaluate:
    """Score a token file on a data set, beside one constant depth and the mean depth map of its training split."""

    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """Token file, as `train` writes it."""
    data: str
    """nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER (patch features that `features --mirror` made)."""
    split: str = "test"
    list_file: str | None = None
    """The split's list file, where it is not found under ROOT."""
    train_list: str | None = None
    """The training split's list file, for the controls."""
    controls: bool = True
    """Score the two controls as well."""
    cache: bool = True
    """Keep the images' patch features in the cache folder, for the next evaluation."""
    protocol: str | None = None
    """auty2023, pooled or depthclip; the tokens' own if not given."""
    clip: str | None = None
    """The CLIP that the tokens were learned on, where it is not found by itself."""
    weights: str | None = None
    """Weights of that CLIP, where they are not its openai ones."""
    force: bool = False
    """Use the tokens with another CLIP than theirs."""
    depth_scale: float | None = None
    depth_range: tuple[float, float] | None = None
    """Metres; for a folder."""
    batch_size: int = 4
    workers: int = 2
    device: str = "auto"
    precision: str = "float32"
    csv: Path | None = None
    """Write per-image scores here."""
    json: bool = False


def main(arguments: Sequence[str]) -> None:
    """Parse, evaluate, print."""
    args = parse(Evaluate, "evaluate", arguments)

    from ..data import open_dataset
    from ..depth.metrics import METRICS
    from ..depth.protocol import find_protocol
    from ..experiment.controls import evaluate_with_controls
    from ..experiment.device import find_device
    from ..experiment.evaluate import cached_source, source_for
    from ..features.store import FeatureStore

    if args.csv and not args.csv.parent.is_dir():
        raise UsageError(f"no folder {args.csv.parent} to write --csv to")
    store = FeatureStore(args.data.removeprefix("store:")) if args.data.startswith("store:") else None
    model = load_model(args.tokens, args.clip, args.weights, args.force).to(find_device(args.device))
    protocol = find_protocol(args.protocol or model.provenance.get("protocol", "auty2023"))
    spec = store.data if store else args.data
    trained = model.provenance.get("training", {}).get("experiment", {})
    if spec.startswith("folder:"):  # what training was told about the folder holds unless said otherwise
        args.depth_scale = args.depth_scale or trained.get("depth_scale")
        args.depth_range = args.depth_range or (trained.get("depth_range") and tuple(trained["depth_range"]))
    opened = partial(open_dataset, spec, depth_scale=args.depth_scale, depth_range=args.depth_range)
    data = store or opened(args.split, list_file=args.list_file)
    try:
        training = opened("train", list_file=args.train_list) if args.controls else None
    except DataError as error:
        raise DataError(f"no training split for the controls ({error}): give its list with --train-list, or use --no-controls") from error
    with Reporter("evaluating") as reporter:
        read: dict[str, Any] = {"batch_size": args.batch_size, "workers": args.workers, "precision": args.precision}
        if args.cache and not isinstance(data, FeatureStore):
            told, progress = note, partial(reporter.named, "reading images")
            source = cached_source(model, data, protocol, list_file=args.list_file, told=told, progress=progress, **read)
        else:
            source = source_for(model, data, **read)
        rows = evaluate_with_controls(
            model, source, training, protocol, workers=args.workers, progress=partial(reporter.named, "evaluating")
        )
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
