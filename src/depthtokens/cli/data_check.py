"""depthtokens data check"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from .console import Reporter, parse, print_json


@dataclass
class DataCheck:
    """Say what is in a data set: pairs, missing and unreadable files, sizes, depth range, valid share, and what looks wrong."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME:ROOT")]
    """nyu:ROOT, kitti:ROOT or folder:ROOT."""
    split: str = "train"
    """train, test or all."""
    list_file: str | None = None
    """The split's list file, where it is not found under ROOT."""
    depth_scale: float | None = None
    """Units per metre in the depth files of a folder (1000 = millimetres)."""
    depth_range: tuple[float, float] | None = None
    """Metres; for a folder."""
    quick: bool = False
    """Decode 200 evenly spaced pairs, and of the others read the image header only."""
    json: bool = False


def main(arguments: Sequence[str]) -> None:
    """Parse, check, print; exit 1 where files are missing or unreadable."""
    args = parse(DataCheck, "data check", arguments)

    from ..data import open_dataset
    from ..data.check import check

    dataset = open_dataset(
        args.data, args.split, list_file=args.list_file, depth_scale=args.depth_scale, depth_range=args.depth_range, allow_missing=True
    )
    with Reporter("reading") as reporter:
        report = check(dataset, quick=args.quick, progress=reporter)
    if args.json:
        print_json(report.to_dict())
    else:
        print("\n".join(report.lines()))
    if not report.ok:
        sys.exit(1)
