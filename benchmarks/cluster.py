"""What spreading work costs: starting, a piece of work that does nothing, and shards of features by one worker and by two.

python benchmarks/cluster.py [--shards 24] [--images 4]

Each worker has a core, and is not nice to other processes, as Ray has it by itself. The CLIP is RN50's geometry with random weights, images
are 208x272, a few scenes listed over and over. Times are taken once all workers have begun; with one worker and with two by turns, so that
what else a machine does falls on both.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch

from depthtokens import load_clip
from depthtokens.data import open_dataset
from depthtokens.features.plan import Plan, plan
from depthtokens.features.views import Views
from depthtokens.features.write import Making, _Maker
from depthtokens.spread import Cluster, on_cluster
from store import make_data

SIZE, ROUNDS, EMPTY = (208, 272), 2, 300


NOTHING = partial(partial, abs)
"""A recipe whose pieces are no work."""


def timed(action: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def started(workers: int) -> float:
    """Start a cluster of so many cores, once no other is there; seconds."""
    ray.shutdown()
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    return timed(lambda: ray.init("local", num_cpus=workers, **options))


def shards(planned: Plan, folder: Path, workers: int, count: int, images: int) -> tuple[float, float]:
    """Seconds until all workers have begun, and from then on for `count` shards."""
    recipe = _Maker.of(planned, Making(folder, images, 8, 0, "cpu"))
    with on_cluster(Cluster("local"), recipe, folder) as run:
        begun = timed(lambda: list(run(range(workers))))
        return begun, timed(lambda: list(run(range(workers, workers + count))))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--images", type=int, default=4, help="in a shard")
    args = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "store").mkdir()
        make_data(folder / "data", (args.shards + 2) * args.images, SIZE)
        dataset = open_dataset(f"folder:{folder / 'data'}", "train", depth_scale=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clip = load_clip("RN50", None)
        planned = plan(clip, dataset, Views(), ["layer4"])
        times: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(ROUNDS):
            for workers in times:
                rows["start a cluster, s"] = started(workers)
                times[workers].append(shards(planned, folder / "store", workers, args.shards, args.images))
        started(1)
        with on_cluster(Cluster("local"), NOTHING, folder) as run:
            rows["start a worker that loads nothing, s"] = timed(lambda: list(run([0])))
            rows["a piece that is no work, ms"] = 1e3 * timed(lambda: list(run(range(EMPTY)))) / EMPTY
        ray.shutdown()
    rows["start a worker, with its CLIP, and its first shard, s"] = statistics.median(begun for begun, _ in times[1])
    for workers, some in times.items():
        rows[f"{args.shards} shards of {args.images} images by {workers} worker{'s'[: workers - 1]}, s"] = statistics.median(
            seconds for _, seconds in some
        )
    rows["1 worker / 2 workers"] = statistics.median(one / two for (_, one), (_, two) in zip(times[1], times[2], strict=True))
    print(f"Ray {ray.__version__}, torch {torch.__version__}, {os.cpu_count()} cores\n\n| what | figure |\n|---|---:|")
    for what, figure in rows.items():
        print(f"| {what} | {figure:.3g} |")


if __name__ == "__main__":
    main()
