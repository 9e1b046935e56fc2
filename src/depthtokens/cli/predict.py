"""The verb `predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from .._version import __version__
from ..errors import DataError, UsageError, printable
from ..files import file_sha256, user_path
from .console import ProgressBar, command, notify, parse, print_json, print_table
from .flags import JsonFlag, SpreadFlags, TokenFlags

if TYPE_CHECKING:
    from ..deploy.photos import Batch
    from ..deploy.pipeline import Depths
    from ..depth.batches import Engine


Format = Literal["png", "npy", "npz", "tiff", "colour", "side", "ply", "glb", "video"]
# As one line each: help breaks docstrings where they break.
IMAGES = (
    'Image files, folders of them with all folders in those, or globs ("**" for folders of any depth); films by name or glob, which need '
    "the extra depthtokens[video]."
)
FORMATS = (
    "png: 16-bit millimetres (1/256 m where the range passes 65.535 m); npy, tiff: float32 metres; npz: uncertainty too; colour: "
    "a picture; side: photo, depth and uncertainty side by side; ply, glb: points in metres with the photo's colours, which need the extra "
    "depthtokens[cloud]; video: a film of a film's depth. By default png and side of photos and video of films; of all others than video, "
    "each frame of a film gets a file."
)


@dataclass(frozen=True, kw_only=True)
class Predict(JsonFlag, SpreadFlags, TokenFlags):
    """Predict depth for photos and films: files, folders and globs."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Token file, as `train` writes it, the run's folder, hf:USER/NAME, or .onnx file, as `export` writes it."""
    images: Annotated[list[str], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...", help=IMAGES)]
    out: Path = Path("depth")
    """Folder for the results, in sub-folders as the photos have them."""
    formats: Annotated[list[Format], tyro.conf.arg(help=FORMATS)] = field(default_factory=list)
    fov: Annotated[float | None, tyro.conf.arg(metavar="DEGREES")] = None
    """What the photos span from left to right, for point clouds; by default EXIF's 35 mm focal length decides."""
    intrinsics: Annotated[tuple[float, float, float, float] | None, tyro.conf.arg(metavar="FX FY CX CY")] = None
    """The same as focal lengths and centre in pixels of the photo."""
    side: int | None = None
    """Pixels that the photo's shorter side has as CLIP is shown it; by default that of the training images."""
    flip: bool = False
    """Average with the mirrored photo, as the evaluation protocols do; takes twice as long."""
    colour_range: tuple[float, float] | None = None
    """Metres at the ends of the pictures' colour scale; by default the model's depth range, so that all pictures have one scale."""
    colour_map: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Colour map of the pictures, one of matplotlib's, which begins at the near end; by default magma_r, near = bright."""
    batch_size: int = 1
    """Photos, or frames of a film, that go through the image tower together, of those that it is shown in one size; for GPUs. Their depth
    differs by rounding from that of photos one by one: in float32 by less than 1e-5 m."""
    smooth: Annotated[float | None, tyro.conf.arg(metavar="SHARE")] = None
    """Smooth depth over a film's frames: the share, from 0 up to less than 1, that the frames before have in each one's log depth."""
    engine: Literal["torch", "onnx"] | None = None
    """torch runs token files, onnx runs .onnx files without loading torch; by default the file's ending decides."""
    verbose: bool = False
    """Print one line per photo."""
    resume: bool = False
    """Go on where a run with the same settings was stopped: photos whose results are there stay as they are."""
    overwrite: bool = False
    """Replace results that are there already."""
    device: str = "auto"
    """auto, cpu, cuda or mps; an .onnx file runs on the CPU."""
    precision: str = "float32"
    """Of the image tower: float32, bfloat16 or float16; an .onnx file's is float32."""


def main(arguments: Sequence[str]) -> None:
    """Parse, predict, print."""
    args = parse(Predict, "predict", arguments)
    if not args.images:
        raise UsageError("no images given: name files, folders or globs behind the model's file")
    if args.colour_range is not None and not 0 <= args.colour_range[0] < args.colour_range[1] < float("inf"):
        raise UsageError(f"--colour-range {args.colour_range[0]:g} {args.colour_range[1]:g}: needs two depths in metres, the smaller first")
    if args.resume and args.overwrite:
        raise UsageError("--resume keeps results and --overwrite replaces them: give one")

    from ..depth.batches import check_batch_size

    check_batch_size(args.batch_size)
    from ..deploy.cloud import Lens
    from ..deploy.found import find_images
    from ..deploy.photos import Batch
    from ..deploy.written import Wanted

    wanted = Wanted(args.formats, args.colour_range, args.colour_map, Lens(args.fov, args.intrinsics), args.smooth)
    out = user_path(args.out)
    photos, left_out = find_images(args.images, out)
    if left_out:
        said = f"{len(left_out)} files look like photos and are not read: {', '.join(map(str, left_out))}"
        if not photos:
            raise DataError(f"no image to predict: {said} (convert them to JPEG or PNG)")
        notify(f"left out: {said}")
    batch = Batch(list(photos), out, wanted, photos)
    if not args.resume and not args.overwrite:
        batch.refuse_existing()
    try:
        with ProgressBar() as progress:
            if args.cluster is None:
                depths, settings = predictor(args)
                batch.run(depths, settings, args.resume, progress)
            else:
                from ..deploy.many import run_on

                run_on(args.cluster, batch, partial(predictor, args), args.resume, progress)
    except KeyboardInterrupt:
        words = [word for word in arguments if word not in ("--overwrite", "--resume")]
        notify(f"{len(batch.rows)} of {len(photos)} images are done; go on with: {command('predict', *words, '--resume')}")
        raise
    show(batch, left_out, args)


def show(batch: Batch, left_out: Sequence[Path], args: Predict) -> None:
    """Print what was done. Raises DataError where photos could not be read."""
    rows, failed = batch.rows, batch.failed
    if args.json:
        print_json({"images": rows, "failed": failed, "left_out": [str(path) for path in left_out], "summary": batch.summary()})
    elif rows:
        if args.verbose:
            print_rows(rows)
        print_summary(batch)
    if len(failed) == 1:
        raise DataError(f"1 of {len(batch.photos)} images could not be read: {failed[0]}")
    if failed:
        for line in failed:
            print(f"failed: {line}", file=sys.stderr)
        raise DataError(f"{len(failed)} of {len(batch.photos)} images could not be read: all are named above")


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """A table with one line per photo."""
    from ..report.table import Table

    keys = ("min", "mean", "max", "uncertainty")
    cells = [[Path(row["image"]).name, f"{row['height']}x{row['width']}", *(row[key] for key in keys)] for row in rows]
    print_table(Table(["image", "size", *keys], cells, title="depth in metres"))


def print_summary(batch: Batch) -> None:
    """How many photos, how fast, how deep, and where the results are."""
    all_of = batch.summary()
    frames = f" ({all_of['shown']} with the frames of films)" if all_of["shown"] > all_of["predicted"] else ""
    counts = f"{all_of['predicted']} of {all_of['images']} images{frames} predicted in {all_of['seconds']:.1f} s"
    if all_of["images_per_second"]:
        counts += f" ({all_of['images_per_second']:.3g} images/s)"
    counts += "".join(f", {all_of[key]} {text}" for key, text in (("kept", "were there before"), ("failed", "failed")) if all_of[key])
    print(printable(f"{counts}; depth {all_of['min']:.3g} to {all_of['max']:.3g} m, written to {batch.out}"))
    if any("png" in targets for targets in batch.targets.values()):
        scales = sorted({row["png_scale"] for row in batch.rows})
        print(f"16-bit PNG: metres are values divided by {' or '.join(map(str, scales))} (each file's text field depth_scale)")


def predictor(args: Predict) -> tuple[Depths, dict[str, Any]]:
    """What predicts photos, and all that their depth depends on. Raises UsageError as `_engine`."""
    from ..deploy.pipeline import depths

    engine, settings = _engine(args)
    return partial(depths, engine=engine, batch_size=args.batch_size), settings


def _engine(args: Predict) -> tuple[Engine, dict[str, Any]]:
    """The engine asked for, and all that its depth depends on.

    Raises UsageError for a file or flags that are not that engine's.
    """
    settings = {"version": __version__, "side": args.side, "flip": args.flip}
    is_graph = args.model.suffix.lower() == ".onnx"
    engine = args.engine or ("onnx" if is_graph else "torch")
    if engine == "torch":
        if is_graph:
            raise UsageError(f"{args.model} is for --engine onnx: give torch the token file that it was exported from")
        from ..clip.device import dtype_of, find_device
        from ..depth.checkpoint import token_file

        device = find_device(args.device)
        dtype_of(args.precision)  # refuses an unknown precision before CLIP is loaded
        tokens = token_file(args.model)  # once: a branch of the hub may move on
        model = args.load(tokens).to(device)
        settings |= {"tokens": file_sha256(tokens), "clip": model.clip.fingerprint, "precision": args.precision}
        return model.fused(args.precision).engine(args.side, args.flip), settings

    if not is_graph:
        wanted = command("export", args.model, "--onnx", f"{args.model.stem}.onnx")
        raise UsageError(f"{args.model} is no .onnx file: write one with {wanted}")
    flags = {"clip": args.clip, "weights": args.weights, "force": args.force, "device": args.device not in ("auto", "cpu"),
             "precision": args.precision != "float32"}  # fmt: skip
    if wrong := [f"--{flag}" for flag, given in flags.items() if given]:
        raise UsageError(f"{', '.join(wrong)}: not for --engine onnx, whose file holds its image tower, in float32 for the CPU")
    from ..deploy.runtime import OnnxDepth

    graph = OnnxDepth(args.model)
    return graph.engine(args.side, args.flip), settings | {"tokens": file_sha256(user_path(args.model))}
