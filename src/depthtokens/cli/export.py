"""The verb `export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..files import user_path
from .console import command, parse, print_json
from .flags import JsonFlag, TokenFlags


@dataclass(frozen=True, kw_only=True)
class Export(JsonFlag, TokenFlags):
    """Write tokens and their CLIP's image tower as one ONNX file: photo in, metres out, without torch."""

    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """Token file, as `train` writes it, the run's folder, or hf:USER/NAME."""
    onnx: Path
    """The .onnx file to write."""
    size: tuple[int, int] | None = None
    """Height and width of the only images that the graph will take; else it takes any."""
    half: bool = False
    """Keep the image tower in float16: half the file, and depth that differs a little more; how much is measured and said."""
    overwrite: bool = False
    """Replace the file if it is there."""


def main(arguments: Sequence[str]) -> None:
    """Parse, export, print."""
    args = parse(Export, "export", arguments)

    from ..deploy.export import check_target, export_onnx

    target = user_path(args.onnx)
    check_target(target, args.overwrite)  # before CLIP is loaded, which takes a while
    done = export_onnx(args.load(args.tokens), target, args.size, args.overwrite, args.half)
    if args.json:
        print_json({
            "file": str(done.path), "bytes": done.bytes, "max_difference_m": done.max_difference, "sizes": done.sizes,
            "size": args.size, "half": args.half,
        })  # fmt: skip
        return
    sizes = ", ".join(f"{height}x{width}" for height, width in done.sizes)
    print(f"{done.path}: {done.bytes / 1e6:.1f} MB, depth within {done.max_difference:.2g} m of torch's on made-up images of {sizes}")
    print(f"next: {command('predict', done.path, 'PHOTO.jpg')}")
