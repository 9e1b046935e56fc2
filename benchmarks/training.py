"""A training step from stored features beside the same step with the trunk in it, open_clip's text pass and its own matrix products.

    python benchmarks/training.py [--bins 7 20 256] [--batch 16] [--size 480 640] [--repeats 15]
    python benchmarks/training.py --nyu ROOT [--train-store DIR --test-store DIR]

RN50's geometry with random weights. The store is a real one on disk, made from generated images; every step reads from it. With --nyu
(the labelled set, 795 and 654 images) or two stores of it, the second form times 25 epochs and an evaluation by the commands themselves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import Row, Work, interleaved, machine, milliseconds, random_clip, ratio, table
from depthtokens import DepthTokens
from depthtokens.clip.load import FrozenCLIP
from depthtokens.data import open_dataset
from depthtokens.depth.loss import resize_matrix
from depthtokens.experiment.learn import Learner, TextPass, epoch_order, update
from depthtokens.experiment.source import Batch, Stored
from depthtokens.features.plan import plan
from depthtokens.features.store import FeatureStore
from depthtokens.features.views import Views
from depthtokens.features.write import write
from text import stock

SCHEDULE = 100_000  # steps of the learning rate's schedule, more than any measurement takes
STOCK_UP_TO = 256  # prompts; beyond, open_clip's text pass takes minutes and tens of gigabytes
SIDE_BY_SIDE = (1, 2, 5)
WORK = Path(__file__).parents[1] / "runs/benchmark"


def make_store(clip: FrozenCLIP, folder: Path, images: int, size: tuple[int, int], device: str = "cpu") -> FeatureStore:
    """Generate a folder of smooth random images with valid depth everywhere, 16-bit millimetres, and store its patch features."""
    rng = np.random.default_rng(0)
    shape = size[1], size[0]
    for kind in ("images", "depth"):
        (folder / "data/train" / kind).mkdir(parents=True)
    for i in range(images):
        rgb = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(shape)
        rgb.save(folder / f"data/train/images/{i:03d}.jpg")
        metres = np.asarray(Image.fromarray(rng.uniform(0.5, 9.5, (12, 16)).astype(np.float32)).resize(shape))
        Image.fromarray(np.rint(1000 * metres).astype(np.uint16)).save(folder / f"data/train/depth/{i:03d}.png")
    dataset = open_dataset(f"folder:{folder / 'data'}", "train", depth_scale=1000)
    return write(plan(clip, dataset, Views(), ["layer4"]), folder / "store", workers=1, device=device)


class StoredSteps:
    """Optimiser steps of models side by side, each with its own order of images from a store, as `fit` takes them."""

    def __init__(self, models: Sequence[DepthTokens], store: FeatureStore, batch: int, device: str = "cpu") -> None:
        self.learners = [Learner(model.train(), SCHEDULE) for model in models]
        self.texts = TextPass(models)
        self.readers = [endless(Stored(store, "layer4", device=device), seed, batch) for seed in range(len(models))]

    def __call__(self) -> list[float]:
        return update(self.learners, self.texts, [next(reader) for reader in self.readers])


class TrunkSteps:
    """The same step of one model with the image trunk in it: patch features are computed from a batch of images that is in memory."""

    def __init__(self, model: DepthTokens, batch: int, size: tuple[int, int]) -> None:
        device = model.centres.device
        self.model, self.learner, self.texts = model, Learner(model.train(), SCHEDULE), TextPass([model])
        self.images = torch.randn(batch, 3, *size, device=device)
        self.truth = 0.5 + 9 * torch.rand(batch, 1, *size, device=device)

    def __call__(self) -> list[float]:
        return update([self.learner], self.texts, [Batch(self.model.image_features(self.images), self.truth, 0)])


def endless(source: Stored, seed: int, batch: int) -> Iterator[Batch]:
    """Full batches of one epoch after the other."""
    epoch = 0
    while True:
        order = epoch_order(len(source.names), seed, epoch)
        yield from source.training(epoch, order[: len(order) // batch * batch], batch)
        epoch += 1


def learned(clip: FrozenCLIP, count: int, seed: int = 0) -> DepthTokens:
    """A model of `count` learned depth tokens."""
    return DepthTokens(clip, depth=f"learned:{count}", bins="log", seed=seed)


def products(model: DepthTokens, batch: int, size: tuple[int, int]) -> Work:
    """The matrix products of a step and nothing else, of the same shapes, on random numbers.

    The text tower's linear layers forward and then back for their inputs' gradients, each with weights of its own as in the tower; the
    correlation forward and for the text features' gradient; the upsampling forward and the two backward. Attention's own products,
    which are small, are left out.
    """
    device, text = model.centres.device, model.clip.text
    prompts, width, layers = len(model.layout.ids), text.width, len(text.tower.transformer.resblocks)
    rows = prompts * (model.layout.ids.shape[1] - model.layout.shared)
    joint = int(model.clip.visual.output_dim)  # type: ignore[arg-type]

    def block(rows: int) -> list[tuple[int, int, int]]:
        return [(rows, width, width), (rows, width, 4 * width), (rows, 4 * width, width)]

    # (rows, inputs, outputs); of the last block only keys and values are needed of all positions, and one position of what follows
    layered = [(rows, width, 3 * width), *block(rows)] * (layers - 1) + [(rows, width, 2 * width), (prompts, width, width), *block(prompts)]
    shapes = [*layered, (prompts, width, joint)]
    linear = [(shape, torch.randn(shape[2], shape[1], device=device)) for shape in shapes]
    sides = {(count, channels) for count, inputs, outputs in shapes for channels in (inputs, outputs)}
    numbers = {side: torch.randn(*side, device=device) for side in sides}

    grid = size[0] // 32, size[1] // 32
    patches = torch.randn(batch * grid[0] * grid[1], joint, device=device)
    features, upstream = torch.randn(prompts, joint, device=device), torch.randn(len(patches), prompts, device=device)
    up, across = (resize_matrix(small, large, device) for small, large in zip(grid, size, strict=True))
    smalls, larges = torch.randn(batch, *grid, device=device), torch.randn(batch, *size, device=device)

    @torch.inference_mode()
    def work() -> None:
        for (count, inputs, _), weight in linear:
            torch.mm(numbers[count, inputs], weight.T)
        for (count, _, outputs), weight in reversed(linear):
            torch.mm(numbers[count, outputs], weight)
        torch.mm(patches, features.T)
        torch.mm(upstream.T, patches)
        for small, large in zip(smalls, larges, strict=True):
            torch.mm(torch.mm(up, small), across.T)
            for _ in range(2):
                torch.mm(torch.mm(up.T, large), across)

    return work


def measure(
    bins: Sequence[int] = (7, 20, 256),
    batch: int = 16,
    size: tuple[int, int] = (480, 640),
    images: int = 64,
    repeats: int = 9,
    device: str = "cpu",
) -> dict[str, list[Row]]:
    """Tables "training" (one row per number of bins) and "side-by-side" (several models at once)."""
    clip = random_clip(device)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(clip, Path(folder), images, size, device)
        steps = [_step_row(clip, store, count, batch, size, repeats, device) for count in bins]
        return {"training": steps, "side-by-side": _side_by_side(clip, store, batch, repeats, device)}


def _step_row(clip: FrozenCLIP, store: FeatureStore, count: int, batch: int, size: tuple[int, int], repeats: int, device: str) -> Row:
    model = learned(clip, count)
    step, reader = StoredSteps([model], store, batch, device), endless(Stored(store, "layer4", device=device), 0, batch)
    # By themselves, as one step follows another in training: what takes gigabytes leaves neither caches nor memory as it found them.
    times = interleaved({"step": step, "reading": lambda: next(reader), "products": products(model, batch, size)}, 3 * repeats, device)
    slow: dict[str, Work] = {"trunk": TrunkSteps(learned(clip, count), batch, size)}
    if count <= STOCK_UP_TO:
        slow["stock"] = stock(clip, count)
    beside = interleaved({"step": step, **slow}, repeats, device)
    return {
        "bins N": count,
        "step, ms": milliseconds(times["step"]),
        "of it reading, ms": milliseconds(times["reading"]),
        "matrix products alone, ms": milliseconds(times["products"]),
        "step / products": ratio(times, "step", "products"),
        "step with trunk, ms": milliseconds(beside["trunk"]),
        "trunk / step": ratio(beside, "trunk", "step"),
        "open_clip's text pass, ms": milliseconds(beside["stock"]) if "stock" in slow else None,
        "text pass / step": ratio(beside, "stock", "step") if "stock" in slow else None,
    }


def _side_by_side(clip: FrozenCLIP, store: FeatureStore, batch: int, repeats: int, device: str) -> list[Row]:
    """Several models of 7 bins that train together, each on batches of its own."""
    works = {str(n): StoredSteps([learned(clip, 7, seed) for seed in range(n)], store, batch, device) for n in SIDE_BY_SIDE}
    times = interleaved(works, repeats, device)
    return [
        {
            "models": n,
            "step of all, ms": milliseconds(times[str(n)]),
            "per model, ms": milliseconds(times[str(n)]) / n,
            "per model / one alone": ratio(times, str(n), "1") / n,
        }
        for n in SIDE_BY_SIDE
    ]


def measure_epochs(
    nyu: Path | None, stores: tuple[Path | None, Path | None] = (None, None), epochs: int = 25, device: str = "cpu"
) -> list[Row]:
    """Time the commands: features of both splits (where no finished store is given), training of 7 tokens, evaluation.

    nyu: root of the labelled set's tree. Stores that are made stay in `WORK` with their times, so that a run that was cut off goes on.
    """
    rows: list[Row] = []
    places: dict[str, Path] = {}
    for split, given in zip(("train", "test"), stores, strict=True):
        places[split] = given or WORK / f"{split}-{device}"
        if given is None:
            mirror = ["--mirror"] if split == "test" else []
            extract = ["features", f"nyu:{nyu}", "--split", split, *mirror, *_clip(device), "--out", str(places[split])]
            seconds = _kept(places[split], extract)
            rows.append(_row(f"features, {split}{' and mirrored' if mirror else ''}", seconds, FeatureStore(places[split]).images))
    train, test = (FeatureStore(place) for place in places.values())
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        training = _timed("train", "--data", f"store:{train.path}", "--epochs", str(epochs), *_clip(device), "--out", out)
        # The controls read the training split's depth maps, which a store's owner may no longer have.
        controls = [] if Path(test.data.partition(":")[2]).exists() else ["--no-controls"]
        evaluation = _timed("evaluate", f"{out}/tokens.safetensors", "--data", f"store:{test.path}", *_clip(device), *controls)
    rows.append(_row(f"train, {epochs} epochs", training, train.images))
    rows.append(_row(f"evaluate, {'without' if controls else 'with'} controls", evaluation, test.images))
    return [*rows, _row("train and evaluate together", training + evaluation)]


def _row(command: str, seconds: float, images: int | None = None) -> Row:
    return {"command": command, "images": images, "s": seconds}


def _clip(device: str) -> list[str]:
    return ["--clip", "RN50", "--weights", "random", "--device", device]


def _kept(store: Path, extract: list[str]) -> float:
    """Seconds that the command `extract` took, now or when it made this store; what a run that was cut off began is begun anew."""
    note = store.with_suffix(".json")
    if note.is_file():
        made = json.loads(note.read_text(encoding="utf-8"))
        if made["command"] == extract:
            return float(made["seconds"])
        note.unlink()
    shutil.rmtree(store, ignore_errors=True)
    store.parent.mkdir(parents=True, exist_ok=True)
    seconds = _timed(*extract)
    note.write_text(json.dumps({"command": extract, "seconds": seconds}), encoding="utf-8")
    return seconds


def _timed(*words: str) -> float:
    """Wall-clock seconds of a depthtokens command, the interpreter's start included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-m", "depthtokens", *words], check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", type=int, nargs="+", default=[7, 20, 256])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=int, default=64, help="in the store")
    parser.add_argument("--repeats", type=int, default=15, help="at most; what takes long runs less often")
    parser.add_argument("--nyu", type=Path, metavar="ROOT", help="time 25 epochs on the labelled NYUv2 set instead")
    parser.add_argument("--train-store", type=Path, metavar="DIR", help="with --test-store: stores of that set, so that none is made")
    parser.add_argument("--test-store", type=Path, metavar="DIR")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(machine(args.device))
    if args.nyu or (args.train_store and args.test_store):
        print(f"\n{table(measure_epochs(args.nyu, (args.train_store, args.test_store), args.epochs, args.device))}")
        return
    for rows in measure(args.bins, args.batch, tuple(args.size), args.images, args.repeats, args.device).values():
        print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
