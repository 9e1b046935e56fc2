"""The verb `predict`."""

from __future__ import annotations

import glob
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import DataError, UsageError
from ..files import user_path
from .console import ProgressBar, command, notify, parse, print_json, print_table
from .flags import JsonFlag, TokenFlags

if TYPE_CHECKING:
    from ..depth.depthmap import DepthMap

LONGEST = 200
"""Bytes of the longest name that a result gets; file systems take 255, some of which a file needs while it is being written."""


@dataclass(frozen=True, kw_only=True)
class Predict(JsonFlag, TokenFlags):
    """Predict depth for photos: files, folders and globs."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Token file, as `train` writes it, or the run's folder, or .onnx file, as `export` writes it."""
    images: Annotated[list[str], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Image files, folders of them, or globs."""
    out: Path = Path("depth")
    """Folder for the results."""
    formats: list[Literal["png", "npy", "colour", "side"]] = field(default_factory=lambda: ["png", "side"])
    """png: 16-bit millimetres (1/256 m where the range passes 65.535 m); npy: metres; colour: picture; side: photo, depth, uncertainty."""
    side: int | None = None
    """Pixels that the photo's shorter side has as CLIP is shown it; by default that of the training images."""
    flip: bool = False
    """Average with the mirrored photo, as the evaluation protocols do; takes twice as long."""
    colour_range: tuple[float, float] | None = None
    """Metres at the ends of the pictures' colour scale; by default the model's depth range, so that all pictures have one scale."""
    engine: Literal["torch", "onnx"] | None = None
    """torch runs token files, onnx runs .onnx files without loading torch; by default the file's ending decides."""
    overwrite: bool = False
    """Replace results that are there already."""
    device: str = "auto"
    """auto, cpu, cuda or mps; an .onnx file runs on the CPU."""
    precision: str = "float32"
    """Of the image tower: float32, bfloat16 or float16; an .onnx file's is float32."""


ENDINGS = {"png": "_depth.png", "npy": "_depth.npy", "colour": "_colour.png", "side": "_side.png"}


def main(arguments: Sequence[str]) -> None:
    """Parse, predict, print."""
    args = parse(Predict, "predict", arguments)
    if not args.images:
        raise UsageError("no images given: name files, folders or globs behind the model's file")
    if args.colour_range is not None and not 0 <= args.colour_range[0] < args.colour_range[1] < float("inf"):
        raise UsageError(f"--colour-range {args.colour_range[0]:g} {args.colour_range[1]:g}: needs two depths in metres, the smaller first")
    out = user_path(args.out)
    files, left_out = find_images(args.images)
    if left_out:
        said = f"{len(left_out)} files look like photos and are not read: {', '.join(map(str, left_out))}"
        if not files:
            raise DataError(f"no image to predict: {said} (convert them to JPEG or PNG)")
        notify(f"left out: {said}")
    targets: dict[Path, dict[str, Path]] = {file: {kind: out / result_name(file, ENDINGS[kind]) for kind in args.formats} for file in files}
    written = [path for paths in targets.values() for path in paths.values()]
    if len(set(written)) < len(written):
        raise UsageError("two of the images have the same name and would share their results: predict them into separate --out folders")
    existing = [path for path in written if path.exists()]
    if existing and not args.overwrite:
        raise UsageError(
            f"{existing[0]} exists{f' ({len(existing)} such files)' if len(existing) > 1 else ''}: choose another --out, or --overwrite"
        )

    from ..report.table import Table

    predict = predictor(args)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    with ProgressBar() as progress:
        for done, file in enumerate(files, 1):
            try:
                depth = predict(file)
                write(depth, targets[file], args.colour_range)
            except DataError as error:
                failed.append(str(error))
            else:
                rows.append(described(file, depth, targets[file]))
            progress("predicting", done, len(files))
    if args.json:
        print_json({"images": rows, "failed": failed, "left_out": [str(path) for path in left_out]})
    elif rows:
        keys = ("min", "mean", "max", "uncertainty")
        cells = [[Path(str(r["image"])).name, f"{r['height']}x{r['width']}", *(r[k] for k in keys)] for r in rows]
        print_table(Table(["image", "size", *keys], cells, title=f"depth in metres, written to {out}"))
        if "png" in args.formats:
            scales = sorted({row["png_scale"] for row in rows})
            print(f"16-bit PNG: metres are values divided by {' or '.join(map(str, scales))} (each file's text field depth_scale)")
    if len(failed) == 1:
        raise DataError(f"1 of {len(files)} images could not be read: {failed[0]}")
    if failed:
        for line in failed:
            print(f"failed: {line}", file=sys.stderr)
        raise DataError(f"{len(failed)} of {len(files)} images could not be read: all are named above")


def write(depth: DepthMap, targets: Mapping[str, Path], colour_range: tuple[float, float] | None) -> None:
    """Write the files of one photo.

    Args:
        depth: the photo's.
        targets: format -> file.
        colour_range: metres, the ends of the colour scale; None takes the model's range, which all its photos share.

    Raises:
        DepthTokensError: where a file cannot be written.
    """
    from ..files import atomic

    ends = colour_range or depth.depth_range
    for kind, path in targets.items():
        if kind in ("png", "npy"):
            depth.save(path)
        else:
            with atomic(path) as file:
                (depth.colour(ends) if kind == "colour" else depth.side_by_side(ends)).save(file, format="PNG")


def described(file: Path, depth: DepthMap, targets: Mapping[str, Path]) -> dict[str, Any]:
    """What is printed of one photo, as plain values."""
    metres = depth.metres
    return {
        "image": str(file), "height": metres.shape[0], "width": metres.shape[1], "min": float(metres.min()),
        "mean": float(metres.mean()), "max": float(metres.max()), "uncertainty": float(depth.uncertainty.mean()),
        "png_scale": depth.png_scale, "files": [str(path) for path in targets.values()],
    }  # fmt: skip


def result_name(file: Path, ending: str) -> str:
    """The name of a photo's result: the photo's own and an ending, cut and told apart by a hash where file systems take no longer one."""
    name = file.stem + ending
    if len(name.encode()) <= LONGEST:
        return name
    short = file.stem.encode()[: LONGEST - len(ending) - 10].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(file.stem.encode()).hexdigest()[:8]}{ending}"


def predictor(args: Predict) -> Callable[[Path], DepthMap]:
    """What predicts one photo with the engine asked for. Raises UsageError for a file or flags that are not that engine's."""
    is_graph = args.model.suffix.lower() == ".onnx"
    engine = args.engine or ("onnx" if is_graph else "torch")
    if engine == "torch":
        if is_graph:
            raise UsageError(f"{args.model} is for --engine onnx: give torch the token file that it was exported from")
        from ..clip.device import dtype_of, find_device

        device = find_device(args.device)
        dtype_of(args.precision)  # refuses an unknown precision before CLIP is loaded
        model = args.load(args.model).to(device)
        return lambda photo: model.predict(photo, args.precision, args.side, args.flip)

    if not is_graph:
        wanted = command("export", args.model, "--onnx", f"{args.model.stem}.onnx")
        raise UsageError(f"{args.model} is no .onnx file: write one with {wanted}")
    flags = {"clip": args.clip, "weights": args.weights, "force": args.force, "device": args.device not in ("auto", "cpu"),
             "precision": args.precision != "float32"}  # fmt: skip
    if wrong := [f"--{flag}" for flag, given in flags.items() if given]:
        raise UsageError(f"{', '.join(wrong)}: not for --engine onnx, whose file holds its image tower, in float32 for the CPU")
    from ..deploy.runtime import OnnxDepth

    graph = OnnxDepth(args.model)
    return lambda photo: graph.predict(photo, args.side, args.flip)


def find_images(patterns: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Image files for paths, folders and globs.

    Args:
        patterns: as a person writes them, ~ included.

    Returns:
        The files, sorted within each pattern, each once; and files in folders that look like photos but cannot be read.

    Raises:
        DataError: for a pattern that matches nothing.
    """
    from ..data.images import find_photos

    found: dict[Path, None] = {}
    left_out: dict[Path, None] = {}
    for pattern in patterns:
        path = user_path(pattern)
        if path.is_dir():
            from ..data.images import find_photos

            matches, unread = find_photos(path)
            left_out |= dict.fromkeys(unread)
        else:
            unread = []
            matches = (
                [path] if path.is_file() else sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
            )
        if not matches and not unread:
            raise DataError(f"no image at {pattern}")
        found |= dict.fromkeys(matches)
    return list(found), list(left_out)
