"""The verb `features`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..errors import UsageError
from ..experiment.config import ClipFlags, DataFlags, Experiment, RunFlags
from .console import ProgressBar, command, notify, parse, print_json
from .flags import JsonFlag, SpreadFlags


@dataclass(frozen=True, kw_only=True)
class Features(JsonFlag, SpreadFlags, RunFlags, DataFlags, ClipFlags):
    """Compute the patch features of a data set's images once, into a folder that train and evaluate read instead of the images.

    Killed or out of room, the same command goes on where it was. `depthtokens features check DIR` reads a store through. Several processes
    may each make a share of its shards (--shard 1/4 to 4/4), which --finish joins.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME:ROOT")]
    """nyu:ROOT, kitti:ROOT, folder:ROOT or scenes."""
    out: str = ""
    """The folder to write; it must be new, empty, or hold this very store's unfinished work."""
    split: str = "train"
    """train, test or all."""
    dense: tuple[str, ...] = ()
    """One or more of the CLIP's modes (`depthtokens models` lists them), from one pass over the trunk; its default if not given."""
    views: int = 1
    """1 = the plain image; K = K random views of each, the augmentation of training."""
    mirror: bool = False
    """Each view's mirror image too: what flip averaging reads."""
    normalisation: str = "imagenet"
    """imagenet (as released) or clip."""
    protocol: str = "auty2023"
    """The protocol whose input crop CLIP is shown."""
    dtype: str = "float16"
    """float16 or bfloat16, on disk."""
    seed: int = 42
    """Of random views."""
    crop: tuple[int, int] | None = None
    """Height and width of random views, where not the data set's own."""
    batch_size: int = 8
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Make only the I-th of N shares of the shards, 1 to N."""
    finish: bool = False
    """Make nothing, but join shards that are all there."""


def main(arguments: Sequence[str]) -> None:
    """Parse, say how much will be written, write, print."""
    args = parse(Features, "features", arguments)
    if not args.out:
        raise UsageError("say where the store goes: --out DIR")
    if args.crop and args.views == 1:
        raise UsageError("crop is the size of random views: it needs --views K, not --views 1")

    share = _share(args.shard) if args.shard else None
    if bool(share) + args.finish + bool(args.cluster) > 1:
        raise UsageError("--shard, --finish and --ray are three ways to make a store: give one")

    from ..clip.device import find_device
    from ..clip.load import load_clip
    from ..data import open_dataset
    from ..depth.protocol import find_protocol
    from ..features.plan import plan
    from ..features.share import finish, write_share
    from ..features.views import Views
    from ..features.write import finished, write
    from ..files import size_text

    views = Views(args.views, args.mirror, find_protocol(args.protocol).input_crop, args.normalisation)
    device = args.device if args.cluster else find_device(args.device)
    dataset = open_dataset(
        args.data,
        args.split,
        list_file=args.list_file,
        augment=args.views > 1,
        crop=args.crop,
        seed=args.seed,
        depth_scale=args.depth_scale,
        depth_range=args.depth_range,
        nyu_depth=args.nyu_depth,
    )
    clip = load_clip(args.clip, args.weights)
    planned = plan(
        clip, dataset, views, args.dense or (clip.default_dense,), args.dtype, precision=args.precision, list_file=args.list_file
    )
    there = finished(planned, Path(args.out))
    if not there and not args.finish:
        notify(f"writing {planned.describe()} to {args.out}")
    start = time.perf_counter()
    with ProgressBar() as progress:
        making: dict[str, Any] = {"batch_size": args.batch_size, "workers": args.workers, "device": device, "progress": progress}
        if share:
            mine, shards = write_share(planned, args.out, share, **making)
        else:
            store = finish(planned, args.out) if args.finish else write(planned, args.out, cluster=args.cluster, **making)
    seconds = time.perf_counter() - start
    if share:
        if args.json:
            print_json({"out": args.out, "shards": mine, "of": shards, "seconds": seconds, "key": planned.key})
        else:
            print(f"{args.out}: {mine} of {shards} shards, {seconds:.1f} s; once all are there, the same command with --finish joins them")
        return
    if args.json:
        print_json({"out": str(store.path), "images": store.images, "bytes": store.bytes, "seconds": seconds, "key": planned.key})
        return
    if there:
        print(f"{store.path} holds this already: {store.images} images, {size_text(store.bytes)}; nothing to do")
    else:
        print(f"{store.path}: {store.images} images, {size_text(store.bytes)}, {seconds:.1f} s")
    if args.split == "test" and not args.mirror:
        print("evaluation averages with mirror images: run the same with --mirror, into another folder, to evaluate on it")
    else:
        mode = args.dense[0] if args.dense else None
        said = {"clip": args.clip, "weights": args.weights, "dense": mode, "normalisation": args.normalisation}
        other = [word for name, value in said.items() if value and value != getattr(Experiment, name) for word in (f"--{name}", value)]
        words, flags = (["train"], other) if args.split == "train" else (["evaluate", "TOKENS"], [])
        print(f"next: {command(*words, '--data', f'store:{store.path}', *flags)}")


def _share(text: str) -> tuple[int, int]:
    """(I, N) from "I/N". Raises UsageError for anything else."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise UsageError(f"--shard {text}: write 1/4, 2/4, 3/4 and 4/4 for four processes")
    return int(part), int(parts)
