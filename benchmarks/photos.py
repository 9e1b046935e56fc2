"""Photos per second through `depthtokens predict`, beside reading, predicting and writing one after the other; and whether memory grows.

python benchmarks/photos.py [--photos 2000] [--formats png]

The photos are a handful of rendered scenes as JPEG files, copied under as many names; the CLIP is the one that comes with the package.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from common import Row, table
from depthtokens import DepthTokens, load_clip
from depthtokens.deploy.photos import Batch
from depthtokens.deploy.pipeline import depths
from depthtokens.deploy.written import Wanted
from depthtokens.scenes import Scenes
from store import anonymous_mb

DISTINCT, SIZE, PARTS = 20, (480, 640), 10


def make_photos(folder: Path, count: int) -> list[Path]:
    """So many JPEG files."""
    scenes, photos = Scenes("indoor", "train", DISTINCT, SIZE), [folder / f"{i:05d}.jpg" for i in range(count)]
    for i, photo in enumerate(photos):
        if i < DISTINCT:
            Image.fromarray(scenes.read(i)[0]).save(photo, quality=90)
        else:
            shutil.copy(photos[i % DISTINCT], photo)
    return photos


def in_turn(model: DepthTokens, wanted: Wanted, photos: Sequence[Path], out: Path) -> None:
    """Without threads or batches."""
    out.mkdir()
    for photo in photos:
        wanted.write(model.predict(photo), photo, wanted.targets(photo, out))


def by_batch(model: DepthTokens, wanted: Wanted, batch_size: int, photos: Sequence[Path], out: Path) -> None:
    """As the verb does it."""
    Batch(photos, out, wanted).run(partial(depths, engine=model.fused().engine(None, False), batch_size=batch_size), {})


def measure(count: int = 2000, formats: Sequence[Any] = ("png",)) -> list[Row]:
    """One row per way. The photos are done in tenths, each by all ways, so that a slow minute of the machine falls on all alike."""
    torch.set_num_threads(1)
    model = DepthTokens(load_clip("bundled"), depth="random:7", bins="log", dense="value", predict_side=208)
    wanted = Wanted(list(formats))
    ways: dict[str, Callable[[Sequence[Path], Path], None]] = {
        "in turn": partial(in_turn, model, wanted),
        "predict": partial(by_batch, model, wanted, 1),
        "predict, --batch-size 8": partial(by_batch, model, wanted, 8),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photos = make_photos(folder, count)
        for name, way in ways.items():  # what is loaded and kept at first does not count
            way(photos[:1], folder / f"{name} first")
        for part in range(PARTS):
            for name, way in ways.items():
                start = time.perf_counter()
                way(photos[part::PARTS], folder / f"{name} {part}")
                seconds[name].append(time.perf_counter() - start)
                memory[name].append(anonymous_mb())
    return [
        {
            "way": name,
            "photos/s": PARTS * len(photos[::PARTS]) / sum(seconds[name]),
            "of in turn": statistics.median(a / b for a, b in zip(seconds["in turn"], seconds[name], strict=True)),
            "memory after a tenth, MB": memory[name][0],
            "memory in the end, MB": memory[name][-1],
        }
        for name in ways
    ]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--formats", nargs="+", default=["png"])
    args = parser.parse_args()
    print(table(measure(args.photos, args.formats)))


if __name__ == "__main__":
    main()
