"""The verb `data scenes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .console import ProgressBar, command, parse, print_json
from .flags import JsonFlag


@dataclass(frozen=True, kw_only=True)
class DataScenes(JsonFlag):
    """Render scenes with exact depth and captions into a folder that `folder:ROOT` reads."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A new folder."""
    count: int = 1000
    """Training scenes; a fifth as many test scenes are added."""
    domain: Literal["indoor", "road"] = "indoor"
    size: tuple[int, int] = (208, 272)
    """Height and width in pixels."""
    seed: int = 0
    captions: int = 1
    """Captions per scene."""


def main(arguments: Sequence[str]) -> None:
    """Parse, render, print."""
    args = parse(DataScenes, "data scenes", arguments)

    from ..scenes import write_folder

    with ProgressBar() as progress:
        out = write_folder(args.out, args.domain, args.count, size=args.size, seed=args.seed, captions=args.captions, progress=progress)
    if args.json:
        print_json({"folder": str(out), "train": args.count, "test": max(1, args.count // 5)})
    else:
        print(f"{args.count} training and {max(1, args.count // 5)} test scenes in {out}")
        print(f"next: {command('data check', f'folder:{out}')}")
