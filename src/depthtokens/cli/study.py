"""depthtokens study"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import DataError, UsageError
from .common import Reporter, load_model, note, parse, print_json, print_table

if TYPE_CHECKING:
    from ..depth.model import DepthTokens
    from ..study.study import Study
    from ..study.study_scores import ScoredRow, StudyData


@dataclass
class StudyArguments:
    """What tokens mean: nearest words, the shape they form, what each is worth, and how far the best words would go.

    Without --data only what needs no images.
    """

    tokens: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """Token file, as `train` writes it; without --data also words: a scale's name, or near|far|..."""
    data: str | None = None
    """nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER (patch features of the test split that `features --mirror` made)."""
    train_data: str | None = None
    """The training split to search words on, as store:FOLDER, where it is not found through --data."""
    out: Path = Path("study")
    """Folder for report.html, study.json, neighbours.csv and scores.csv."""
    overwrite: bool = False
    """Write into a folder that holds something."""
    scales: tuple[str, ...] | None = None
    """Human scales to study beside the tokens, one word per bin: names, or near|far|...; all that fit if not given."""
    template: str | None = None
    """The sentence for the table of neighbours; the tokens' own if not given (the paper: baseline)."""
    position: int | None = None
    """Read sentences at this position for the table of neighbours (start = 0), not at end-of-text."""
    neighbours: int = 5
    trained_vocabulary_only: bool = False
    """Of the bundled CLIP: only vocabulary entries that occurred in its training."""
    search: bool = True
    """Search the best word per bin on the training split."""
    patches: int = 4096
    """Training patches to search on."""
    images: int = 6
    """Test images to show heat maps of."""
    seed: int = 0
    """Of the patches and the random start of the search."""
    list_file: str | None = None
    """The test split's list file, where it is not found under ROOT."""
    train_list: str | None = None
    """The training split's list file."""
    cache: bool = True
    """Keep the images' patch features in the cache folder."""
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
    json: bool = False


def main(arguments: Sequence[str]) -> None:
    """Parse, study, write, print."""
    args = parse(StudyArguments, "study", arguments)

    from ..experiment.device import find_device
    from ..study.study import StudySettings, run_study
    from ..study.study_files import output_folder, to_dict, write_study

    model = _model(args).to(find_device(args.device))
    settings = StudySettings(
        args.scales, args.template, args.position, args.neighbours, args.trained_vocabulary_only, args.search, args.patches,
        args.images, args.seed,
    )  # fmt: skip
    with output_folder(args.out, args.overwrite), Reporter("study") as reporter:
        data = None if args.data is None else _data(args, model, reporter)
        study = run_study(model, settings, data, reporter.named)
        report = write_study(study, args.out, args.tokens)
    if args.json:
        print_json(to_dict(study, args.tokens))
    else:
        _print(study)
        print(f"\nreport: {report}")


def _model(args: StudyArguments) -> DepthTokens:
    """The model of a token file, or of words, for which the sentence alone counts."""
    from ..clip.load import load_clip
    from ..depth.model import DepthTokens
    from ..prompt.scales import SCALES

    if Path(args.tokens).is_file() or (args.tokens not in SCALES and "|" not in args.tokens):
        return load_model(Path(args.tokens), args.clip, args.weights, args.force)
    if args.data is not None:
        raise UsageError(f"scores of '{args.tokens}' need a token file, which says how images are read: leave out --data")
    clip = load_clip(args.clip or "RN50", args.weights or "openai")
    return DepthTokens(clip, args.template or "baseline", args.tokens, dense="layer4" if hasattr(clip.visual, "layer4") else "tokens")


def _data(args: StudyArguments, model: DepthTokens, reporter: Reporter) -> StudyData:
    """Test and training split, through stores in the cache folder where features can be kept."""
    from ..data import open_dataset
    from ..data.dataset import DepthDataset
    from ..depth.protocol import Protocol, find_protocol
    from ..experiment.evaluate import cached_source, source_for
    from ..experiment.source import Source
    from ..features.store import FeatureStore
    from ..study.study_scores import StudyData

    assert args.data is not None
    protocol = find_protocol(args.protocol or model.provenance.get("protocol", "auty2023"))
    store = FeatureStore(args.data.removeprefix("store:")) if args.data.startswith("store:") else None
    spec = store.data if store else args.data
    trained = model.provenance.get("training", {}).get("experiment", {})
    if spec.startswith("folder:"):  # what training was told about the folder holds unless said otherwise
        args.depth_scale = args.depth_scale or trained.get("depth_scale")
        args.depth_range = args.depth_range or (trained.get("depth_range") and tuple(trained["depth_range"]))
    opened = partial(open_dataset, spec, depth_scale=args.depth_scale, depth_range=args.depth_range)
    read: dict[str, Any] = {"batch_size": args.batch_size, "workers": args.workers, "precision": args.precision}

    def source(data: DepthDataset | FeatureStore, shown: Protocol, list_file: str | None) -> Source:
        if isinstance(data, FeatureStore) or not args.cache:
            return source_for(model, data, **read)
        progress = partial(reporter.named, f"reading {data.split} images")
        return cached_source(model, data, shown, list_file=list_file, told=note, progress=progress, **read)

    photos: DepthDataset | None = None
    training: DepthDataset | None = None
    try:
        photos = opened("test", list_file=store.meta["data"]["list_file"] if store else args.list_file)
        if store:
            store.expect(dataset=photos)
    except DataError:
        if not store:
            raise
        photos = None  # features are enough for all but the heat maps
    test = store or photos
    assert test is not None
    try:
        training = opened("train", list_file=args.train_list)
    except DataError as error:
        if args.search and args.train_data is None:
            hint = "give its list with --train-list, its features with --train-data, or use --no-search"
            raise DataError(f"no training split to search words on ({error}): {hint}") from error
    train: Source | None = None
    if args.search:
        words_on = FeatureStore(args.train_data.removeprefix("store:")) if args.train_data else training
        assert words_on is not None
        # Plain views of whole images, as `train --views 1` keeps them.
        train = source(words_on, replace(protocol, flip=False, input_crop=None), args.train_list)
    return StudyData(source(test, protocol, args.list_file), protocol, train, training, photos, args.workers)


def _difference(row: ScoredRow) -> str:
    return "" if row.differences is None else str(row.differences["abs_rel"])


def _print(study: Study) -> None:
    from ..study.page import shown

    if study.rows:
        kinds = ("tokens", "best words", "words", "control")
        rows = [[r.name, str(r.intervals["abs_rel"]), _difference(r), *(r.intervals[m].mean for m in ("rmse", "log10", "d1"))]
                for r in study.rows if r.kind in kinds]  # fmt: skip
        images = len(study.rows[0].scores.per_image)
        print_table(f"{images} test images, 95% intervals", ["", "abs_rel", "less tokens'", "rmse", "log10", "d1"], rows)
        changes = sorted((r for r in study.rows if r.kind not in kinds), key=lambda r: r.intervals["abs_rel"].mean)
        if changes:
            print()
            ends = changes if len(changes) <= 6 else [*changes[:3], *changes[-3:]]
            told = [[r.name.replace("</w>", ""), str(r.intervals["abs_rel"]), _difference(r)] for r in ends]
            print_table(f"the least and most harmful of {len(changes)} changes", ["", "abs_rel", "less tokens'"], told)
        print()
    best = study.search
    near = {table.space: table.rows for table in study.neighbours if table.words == "tokens"}
    rows = []
    for i, centre in enumerate(study.model.centres.tolist()):
        lists = [", ".join(f"{shown(n.name, study.fragments)} {n.distance:.2f}" for n in near[space][i][:2]) for space in near]
        word = "" if best is None else best.words[i] if best.phrases[i] else shown(best.words[i], study.fragments)
        rows.append([f"depth_{i} ({centre:.3g} m)", *lists, word])
    print_table("nearest neighbours, and the best word found", ["", *(f"in {space} space" for space in near), "best word"], rows)
    if study.paths:
        print(f"\norder along the shortest path: rank correlation with depth {study.paths['tokens'].along_order}")
    for line in study.notes:
        print(f"note: {line}")
