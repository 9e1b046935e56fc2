"""The verb `study`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import UsageError
from ..study.settings import StudySettings
from .console import ProgressBar, parse, print_json, print_table
from .flags import JsonFlag, ScoringFlags

if TYPE_CHECKING:
    from ..depth.model import DepthTokens
    from ..progress import Progress
    from ..study.carry import Elsewhere


@dataclass(frozen=True, kw_only=True)
class StudyArguments(JsonFlag, ScoringFlags):
    """What tokens mean: nearest words, the shape they form, what each is worth, and how far the best words would go.

    Without --data only what needs no images.
    """

    tokens: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """Token file, as `train` writes it, or hf:USER/NAME; without --data also words: a scale's name, or near|far|..."""
    data: str | None = None
    """nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER (patch features of the test split that `features --mirror` made)."""
    train_data: str | None = None
    """The training split to search words on, as store:FOLDER, where it is not found through --data."""
    carry_to: Annotated[str | None, tyro.conf.arg(metavar="CLIP")] = None
    """Score the best words and phrases in another CLIP too, written out as text: a CLIP as --clip takes it."""
    out: Path = Path("study")
    """Folder for report.html, study.json, neighbours.csv and scores.csv."""
    overwrite: bool = False
    """Write into a folder that holds something."""
    settings: StudySettings = field(default_factory=StudySettings)


def main(arguments: Sequence[str]) -> None:
    """Parse, study, write, print."""
    args = parse(StudyArguments, "study", arguments)

    from ..study import TOKENS
    from ..study.data import open_study_data
    from ..study.files import output_folder, to_dict, write_study
    from ..study.run import run_study
    from ..study.tables import terminal_tables

    model, settings = _model(args), args.settings
    with output_folder(args.out, args.overwrite), ProgressBar() as progress:
        data = None
        if args.data is not None:
            data = open_study_data(
                model, args.named(args.data, model), args.protocol_for(model), args.reading(progress), search=settings.search,
                list_file=args.list_file, train_list=args.train_list, train_data=args.train_data,
            )  # fmt: skip
        study = run_study(model, settings, data, progress, _elsewhere(args, model, progress))
        page = write_study(study, args.out, args.tokens)
    if args.json:
        print_json(to_dict(study, args.tokens))
        return
    for table in terminal_tables(study):
        print_table(table)
        print()
    if study.paths:
        print(f"order along the shortest path: rank correlation with depth {study.paths[TOKENS].along_order}")
    for line in study.notes:
        print(f"note: {line}")
    print(f"\npage: {page}")


def _elsewhere(args: StudyArguments, model: DepthTokens, progress: Progress) -> Elsewhere | None:
    """The CLIP of --carry-to, with the test images as it sees them."""
    from ..clip.load import load_clip
    from ..study.carry import open_elsewhere

    if args.carry_to is None:
        return None
    if args.data is None or not args.settings.search:
        raise UsageError("--carry-to goes on from best words, which are searched with --data, and without --no-search")
    clip = load_clip(args.carry_to).to(model.device)
    return open_elsewhere(model, clip, args.named(args.data, model), args.protocol_for(model), args.reading(progress), args.list_file)


def _model(args: StudyArguments) -> DepthTokens:
    """The model of a token file, or of words, for which the sentence alone counts."""
    from ..clip.device import find_device
    from ..clip.load import load_clip
    from ..depth.model import DepthTokens
    from ..prompt.scales import SCALES

    if Path(args.tokens).is_file() or (args.tokens not in SCALES and "|" not in args.tokens):
        return args.model(args.tokens)
    if args.data is not None:
        raise UsageError(f"scores of '{args.tokens}' need a token file, which says how images are read: leave out --data")
    device = find_device(args.device)
    clip = load_clip(args.clip or "RN50", args.weights or "openai").to(device)
    return DepthTokens(clip, args.settings.template or "baseline", args.tokens)
