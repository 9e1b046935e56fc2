"""What checksums cost: the table in docs/reliability.md.

    python benchmarks/checksums.py

Every file is read with its checksum looked at and, by turns, without; medians of processor time, in one thread.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from common import Row, table
from depthtokens import DepthTokens, load_clip
from depthtokens.depth.checkpoint import read_tokens
from depthtokens.features.plan import plan
from depthtokens.features.shard import Shard
from depthtokens.features.store import FeatureStore
from depthtokens.features.views import Views
from depthtokens.features.write import write
from depthtokens.scenes import Scenes

Read = Callable[[], object]


def compared(name: str, path: Path, checked: Read, bare: Read, repeats: int = 21) -> Row:
    """Read a file, or all files of a folder, with its checksum and without."""
    times: dict[str, list[float]] = {"checked": [], "bare": []}
    for _ in range(repeats):
        for kind, read in (("checked", checked), ("bare", bare)):
            start = time.process_time()
            read()
            times[kind].append(1000 * (time.process_time() - start))
    whole, without = (statistics.median(times[kind]) for kind in ("checked", "bare"))
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir())) / 1e6
    return {"read": name, "MB": size, "with, ms": whole, "without, ms": without, "more, ms": whole - without}


def tokens(folder: Path, bins: int) -> Row:
    """A token file of so many learned words, 512 numbers each; without its sums it is read by safetensors alone."""
    path = folder / f"tokens-{bins}.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DepthTokens(load_clip("RN50", None), depth=f"learned:{bins}", bins="log").save(path)
    return compared(f"token file of {bins} words", path, lambda: read_tokens(path), lambda: load_file(path))


def store(folder: Path) -> Row:
    """All patch features of a store, read for the first time in a process."""
    scenes = Scenes("indoor", "train", 64, size=(208, 272), seed=0, cache=folder / "cache")
    out = folder / "store"
    write(plan(load_clip("bundled"), scenes, Views(), ["layer4"], shard_bytes=1_000_000), out, workers=0)

    def read() -> Any:
        kept = FeatureStore(out)
        return [kept.read([i], "layer4").sum() for i in range(len(kept))]

    def unchecked() -> Any:
        with patch.object(Shard, "intact", lambda _: True):
            return read()

    return compared("store, first read", out, read, unchecked)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(table([tokens(folder, 7), tokens(folder, 256), tokens(folder, 4096), store(folder)]))


if __name__ == "__main__":
    main()
