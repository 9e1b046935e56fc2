"""depthtokens predict"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..errors import DataError, UsageError
from .console import ProgressBar, parse, print_json, print_table
from .flags import JsonFlag, TokenFlags

if TYPE_CHECKING:
    from ..depth.depthmap import DepthMap

IMAGES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


@dataclass(frozen=True, kw_only=True)
class Predict(JsonFlag, TokenFlags):
    """Predict depth for photos: files, folders and globs."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Token file, as `train` writes it, or .onnx file, as `export` writes it."""
    images: Annotated[list[str], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Image files, folders of them, or globs."""
    out: Path = Path("depth")
    """Folder for the results."""
    formats: list[Literal["png", "npy", "colour", "side"]] = field(default_factory=lambda: ["png", "side"])
    """png: 16-bit millimetres (1/256 m where the range passes 65.535 m); npy: metres; colour: picture; side: photo, depth, uncertainty."""
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
    files = find_images(args.images)
    targets = {file: {kind: args.out / (file.stem + ENDINGS[kind]) for kind in args.formats} for file in files}
    written = [path for paths in targets.values() for path in paths.values()]
    if len(set(written)) < len(written):
        raise UsageError("two of the images have the same name and would share their results: predict them into separate --out folders")
    existing = [path for path in written if path.exists()]
    if existing and not args.overwrite:
        raise UsageError(
            f"{existing[0]} exists{f' ({len(existing)} such files)' if len(existing) > 1 else ''}: choose another --out, or --overwrite"
        )

    from ..files import atomic
    from ..report.table import Table

    predict = predictor(args)
    args.out.mkdir(parents=True, exist_ok=True)
    rows, failed = [], []
    with ProgressBar() as progress:
        for done, file in enumerate(files, 1):
            try:
                depth = predict(file)
            except DataError as error:
                failed.append(str(error))
                continue
            for kind, path in targets[file].items():
                if kind in ("png", "npy"):
                    depth.save(path)
                else:
                    with atomic(path) as output:
                        (depth.colour() if kind == "colour" else depth.side_by_side()).save(output, format="PNG")
            metres = depth.metres
            rows.append({
                "image": str(file), "height": metres.shape[0], "width": metres.shape[1], "min": float(metres.min()),
                "mean": float(metres.mean()), "max": float(metres.max()), "uncertainty": float(depth.uncertainty.mean()),
                "png_scale": depth.png_scale, "files": [str(path) for path in targets[file].values()],
            })  # fmt: skip
            progress("predicting", done, len(files))
    if args.json:
        print_json({"images": rows, "failed": failed})
    elif rows:
        keys = ("min", "mean", "max", "uncertainty")
        cells = [[Path(str(r["image"])).name, f"{r['height']}x{r['width']}", *(r[k] for k in keys)] for r in rows]
        print_table(Table(["image", "size", *keys], cells, title=f"depth in metres, written to {args.out}"))
    if failed:
        raise DataError(f"{len(failed)} of {len(files)} images could not be read: {'; '.join(failed[:3])}")


def predictor(args: Predict) -> Callable[[Path], DepthMap]:
    """What predicts one photo with the engine asked for. Raises UsageError for a file or flags that are not that engine's."""
    is_graph = args.model.suffix == ".onnx"
    engine = args.engine or ("onnx" if is_graph else "torch")
    if engine == "torch":
        if is_graph:
            raise UsageError(f"{args.model} is for --engine onnx: give torch the token file that it was exported from")
        from ..clip.device import dtype_of, find_device

        device = find_device(args.device)
        dtype_of(args.precision)  # refuses an unknown precision before CLIP is loaded
        model = args.load(args.model).to(device)
        return lambda photo: model.predict(photo, args.precision)

    if not is_graph:
        raise UsageError(f"{args.model} is no .onnx file: write one with depthtokens export {args.model} --onnx {args.model.stem}.onnx")
    flags = {"clip": args.clip, "weights": args.weights, "force": args.force, "device": args.device not in ("auto", "cpu"),
             "precision": args.precision != "float32"}  # fmt: skip
    if wrong := [f"--{flag}" for flag, given in flags.items() if given]:
        raise UsageError(f"{', '.join(wrong)}: not for --engine onnx, whose file holds its image tower, in float32 for the CPU")
    from ..deploy.runtime import OnnxDepth

    return OnnxDepth(args.model).predict


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Image files for paths, folders and globs, sorted, each once. Raises DataError for a pattern that matches nothing."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
        else:
            matches = (
                [path] if path.is_file() else sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
            )
        if not matches:
            raise DataError(f"no image at {pattern}")
        found |= dict.fromkeys(matches)
    return list(found)
