"""The verb `data check`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from ..experiment.config import DataFlags
from .console import ProgressBar, parse, print_json
from .flags import JsonFlag


@dataclass(frozen=True, kw_only=True)
class DataCheck(JsonFlag, DataFlags):
    """Say what is in a data set: pairs, missing and unreadable files, sizes, depth and its range, valid share, and what looks wrong."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME:ROOT")]
    """nyu:ROOT, kitti:ROOT or folder:ROOT."""
    split: str = "train"
    """train, test or all."""
    quick: bool = False
    """Decode 200 evenly spaced pairs, and of the others read the image header only."""


def main(arguments: Sequence[str]) -> None:
    """Parse, check, print; exit 1 where files are missing or unreadable."""
    args = parse(DataCheck, "data check", arguments)

    from ..data import open_dataset
    from ..data.check import check

    dataset = open_dataset(
        args.data, args.split, list_file=args.list_file, depth_scale=args.depth_scale, depth_range=args.depth_range, allow_missing=True,
        nyu_depth=args.nyu_depth,
    )  # fmt: skip
    with ProgressBar() as progress:
        findings = check(dataset, quick=args.quick, progress=progress)
    if args.json:
        print_json(findings.to_dict())
    else:
        print("\n".join(findings.lines()))
    if not findings.ok:
        sys.exit(1)
