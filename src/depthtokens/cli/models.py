"""The verb `models`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from .console import parse, print_json, print_table
from .flags import JsonFlag


@dataclass(frozen=True, kw_only=True)
class Models(JsonFlag):
    """List the CLIP models that --clip takes by name: their weights (--weights), towers, and how patch features are read (--dense)."""

    pattern: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = None
    """A part of the name, or a pattern with * and ?; all if not given."""


def main(arguments: Sequence[str]) -> None:
    """Parse, look, print."""
    args = parse(Models, "models", arguments)

    from ..clip.models import find_models

    found = find_models(args.pattern)
    if args.json:
        print_json([asdict(model) for model in found])
        return

    from ..report.table import Table

    rows = [
        (
            model.name, model.stride, model.channels, model.width, model.context, _millions(model.image_parameters),
            _millions(model.text_parameters), f"{'any' if model.any_size else 'only'}, {'x'.join(map(str, model.image_size))}",
            model.text, " ".join(model.dense), " ".join(model.tags),
        )
        for model in found
    ]  # fmt: skip
    columns = ("model", "stride", "C", "width", "context", "image, M", "text, M", "sizes", "text tower", "dense", "weights")
    print_table(Table(columns, rows, words=4, less=("C", "context", "image, M", "text, M")))
    print(
        "stride: pixels per patch; C: channels of a patch; width: numbers of a vector in a prompt; M: million weights; sizes: images that"
    )
    print("it takes, and those it was trained on; dense: the first is the default; empty: the hub alone knows")


def _millions(count: int | None) -> str | None:
    return None if count is None else f"{count / 1e6:.1f}"
