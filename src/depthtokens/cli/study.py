"""depthtokens study"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import UsageError
from ..study.settings import StudySettings
from .console import Reporter, parse, print_json, print_table
from .flags import Scoring

if TYPE_CHECKING:
    from ..depth.model import DepthTokens
    from ..study.run import Study
    from ..study.scores import ScoredRow


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
    json: bool = False
    settings: StudySettings = field(default_factory=StudySettings)
    scoring: Scoring = field(default_factory=Scoring)


def main(arguments: Sequence[str]) -> None:
    """Parse, study, write, print."""
    args = parse(StudyArguments, "study", arguments)

    from ..study.data import open_study_data
    from ..study.files import output_folder, to_dict, write_study
    from ..study.run import run_study

    model, scoring, settings = _model(args), args.scoring, args.settings
    with output_folder(args.out, args.overwrite), Reporter("study") as reporter:
        data = None
        if args.data is not None:
            data = open_study_data(
                scoring.on(model, args.data), search=settings.search, list_file=scoring.list_file, train_list=scoring.train_list,
                train_data=args.train_data, report=reporter.named,
            )  # fmt: skip
        study = run_study(model, settings, data, reporter.named)
        report = write_study(study, args.out, args.tokens)
    if args.json:
        print_json(to_dict(study, args.tokens))
    else:
        _print(study)
        print(f"\nreport: {report}")


def _model(args: StudyArguments) -> DepthTokens:
    """The model of a token file, or of words, for which the sentence alone counts."""
    from ..clip.device import find_device
    from ..clip.load import load_clip
    from ..depth.model import DepthTokens
    from ..prompt.scales import SCALES

    scoring = args.scoring
    if Path(args.tokens).is_file() or (args.tokens not in SCALES and "|" not in args.tokens):
        return scoring.model(args.tokens)
    if args.data is not None:
        raise UsageError(f"scores of '{args.tokens}' need a token file, which says how images are read: leave out --data")
    device = find_device(scoring.device)
    clip = load_clip(scoring.clip or "RN50", scoring.weights or "openai").to(device)
    template, dense = args.settings.template or "baseline", "layer4" if hasattr(clip.visual, "layer4") else "tokens"
    return DepthTokens(clip, template, args.tokens, dense=dense)


def _difference(row: ScoredRow) -> str:
    return "" if row.differences is None else str(row.differences["abs_rel"])


def _print(study: Study) -> None:
    from ..report.html import shown

    if study.rows:
        kinds = ("tokens", "best words", "words", "control")
        rows = [[r.name, str(r.intervals["abs_rel"]), _difference(r), *(str(r.intervals[m]) for m in ("rmse", "log10", "d1"))]
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
