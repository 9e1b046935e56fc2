"""Figures by size of a store of patch features: time per image to make and to read it, and the memory that takes.

python benchmarks/store.py [--images 100 1000 10000] [--size 208 272]

The images are a handful of rendered scenes, listed over and over: they are decoded and go through the trunk each time they are listed.
The CLIP is a narrow ResNet with RN50's 1,024 joint channels, so that a stored row is as wide as RN50's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from depthtokens.clip.load import FrozenCLIP
from depthtokens.data import open_dataset
from depthtokens.features.plan import plan
from depthtokens.features.store import FeatureStore
from depthtokens.features.views import Views
from depthtokens.features.write import write
from depthtokens.scenes import Scenes

CONFIG = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
BATCH, READS, DISTINCT = 16, 300, 20


def anonymous_mb() -> float:
    """This process's memory that no file stands behind, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


class Watch:
    """The highest `anonymous_mb` while it is entered, looked at every 5 ms."""

    def __enter__(self) -> Watch:
        self.highest, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.over.wait(0.005):
            self.highest = max(self.highest, anonymous_mb())


def make_data(root: Path, images: int, size: tuple[int, int]) -> None:
    """A folder of `DISTINCT` scenes and a list that names them `images` times."""
    scenes = Scenes("indoor", "train", DISTINCT, size)
    lines = ["image,depth"]
    for i in range(DISTINCT):
        rgb, depth = scenes.read(i)
        Image.fromarray(rgb).save(root / f"{i}.jpg", quality=90)
        Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(root / f"{i}_depth.png")
    lines += [f"{i % DISTINCT}.jpg,{i % DISTINCT}_depth.png" for i in range(images)]
    (root / "train.csv").write_text("\n".join(lines), encoding="utf-8")


def measure_one(images: int, size: tuple[int, int], folder: Path) -> dict[str, Any]:
    """Make and read one store in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    clip = FrozenCLIP(open_clip.CLIP(**CONFIG), "narrow", None)
    (folder / "data").mkdir()
    make_data(folder / "data", images, size)
    dataset = open_dataset(f"folder:{folder / 'data'}", "train", depth_scale=1000)
    before = anonymous_mb()
    with Watch() as watch:
        start = time.perf_counter()
        write(plan(clip, dataset, Views(), ["value"]), folder / "store", workers=1)
        made = time.perf_counter() - start
    peak = watch.highest - before

    start = time.perf_counter()
    store = FeatureStore(folder / "store")
    for index in range(0, images, store.meta["images_per_shard"]):
        store.truth([index])
    verified = time.perf_counter() - start
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, images, BATCH).tolist() for _ in range(READS)]
    before = anonymous_mb()
    start = time.perf_counter()
    for batch in batches:
        store.read(batch, "value")
    read = time.perf_counter() - start
    start = time.perf_counter()
    for batch in batches:
        store.truth(batch)
    truth = time.perf_counter() - start
    return {
        "images": images,
        "store MB": store.bytes / 1e6,
        "making, ms/image": 1e3 * made / images,
        "making, peak MB": peak,
        "opening and first check, ms/image": 1e3 * verified / images,
        "features, ms/image": 1e3 * read / (READS * BATCH),
        "truth, ms/image": 1e3 * truth / (READS * BATCH),
        "reading, MB": anonymous_mb() - before,
    }


def measure(counts: Sequence[int], size: tuple[int, int] = (208, 272)) -> list[dict[str, Any]]:
    """One row per number of images, each measured in a process of its own. Memory is anonymous (RssAnon), beyond what the CLIP takes."""
    rows = []
    for images in counts:
        command = [sys.executable, __file__, "--one", "--images", str(images), "--size", *map(str, size)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return rows


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--size", type=int, nargs=2, default=[208, 272], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--one", action="store_true", help="measure in this process, print JSON")
    args = parser.parse_args()
    size = (args.size[0], args.size[1])
    if args.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure_one(args.images[0], size, Path(folder))))
        return
    rows = measure(args.images, size)
    print(
        f"images {size[0]}x{size[1]}, {size[0] // 32 * (size[1] // 32)} rows of 1,024 float16 each; torch {torch.__version__}, 1 thread\n"
    )
    print(f"| {' | '.join(rows[0])} |\n|{'---:|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(f'{value:,}' if isinstance(value, int) else f'{value:.2f}' for value in row.values())} |")


if __name__ == "__main__":
    main()
