"""Peak memory, each figure in a process of its own: text, training steps from images and from a store, prediction.

    python benchmarks/memory.py [--bins 256] [--batch 16]

RN50 with random weights. Peak resident memory of the whole process: interpreter, libraries, CLIP, and the store's files as far as they
were read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from common import Row, alone, machine, peak_gib, random_clip, table
from depthtokens.deploy.export import export_onnx
from depthtokens.features.store import FeatureStore
from text import ours, stock
from training import StoredSteps, TrunkSteps, learned, make_store

TRUTH = (480, 640)
CROP = (416, 544)  # of the released recipe's training views
STORE, GRAPH = "features/store", "model.onnx"


@dataclass(frozen=True)
class Setting:
    """What every case is run with. folder: where the store and the exported graph are."""

    bins: int
    batch: int
    images: int
    device: str
    folder: Path


def prepare_store(setting: Setting) -> None:
    make_store(random_clip(setting.device), setting.folder / "features", setting.images, TRUTH, setting.device)


def prepare_graph(setting: Setting) -> None:
    export_onnx(learned(random_clip(), setting.bins), setting.folder / GRAPH)


def load(setting: Setting) -> None:
    random_clip(setting.device)


def text(setting: Setting) -> None:
    ours(random_clip(setting.device), setting.bins)()


def stock_text(setting: Setting) -> None:
    stock(random_clip(setting.device), setting.bins)()


def step_from_images(setting: Setting) -> None:
    step = TrunkSteps(learned(random_clip(setting.device), setting.bins), setting.batch, CROP)
    for _ in range(2):
        step()


def step_from_store(setting: Setting) -> None:
    model = learned(random_clip(setting.device), setting.bins)
    step = StoredSteps([model], FeatureStore(setting.folder / STORE), setting.batch, setting.device)
    for _ in range(2 * setting.images // setting.batch):
        step()


def predict(setting: Setting) -> None:
    learned(random_clip(setting.device), setting.bins).predict(_photo())


def _photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*TRUTH, 3), np.uint8)


CASES: dict[str, tuple[str, Callable[[Setting], None]]] = {
    "clip": ("CLIP loaded, nothing run", load),
    "text": ("text, {bins} prompts, forward and backward: depthtokens", text),
    "stock-text": ("the same: open_clip", stock_text),
    "images": ("training step from {batch} images 416x544, {bins} bins", step_from_images),
    "store": ("training step from a store, batch {batch}, truth 480x640, {bins} bins", step_from_store),
    "predict": ("prediction 480x640, {bins} bins: torch, the model loaded and folded", predict),
}
"""What is measured: name -> words for the table, and what is run."""
PREPARATIONS = {"make-store": prepare_store, "make-graph": prepare_graph}
# Without torch, so not by this script: what a process needs that only predicts from an exported graph.
ONNX = ("onnx", "onnxscript", "onnxruntime")
RUNTIME = (
    "import json, sys, numpy; from depthtokens.deploy.runtime import OnnxDepth; "
    "OnnxDepth(sys.argv[1]).predict(numpy.zeros((480, 640, 3), numpy.uint8)); assert 'torch' not in sys.modules; "
    "print(json.dumps(int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) / 2**20))"
)


def measure(bins: int = 256, batch: int = 16, images: int = 64, device: str = "cpu") -> list[Row]:
    """One row per case. images: in the store. On a GPU its own peak stands beside the process's."""
    with tempfile.TemporaryDirectory() as folder:
        given = ("--bins", bins, "--batch", batch, "--images", images, "--device", device, "--folder", folder)
        alone(__file__, "--one", "make-store", *given)
        rows = [
            {"process": words.format(bins=bins, batch=batch), **alone(__file__, "--one", name, *given)}
            for name, (words, _) in CASES.items()
        ]
        if device == "cpu" and sys.platform == "linux" and all(map(find_spec, ONNX)):
            alone(__file__, "--one", "make-graph", *given)
            rows.append({
                "process": f"prediction 480x640, {bins} bins: onnxruntime, without torch",
                "peak, GiB": alone("-c", RUNTIME, f"{folder}/{GRAPH}"),
            })  # fmt: skip
    return rows


def measure_one(name: str, setting: Setting) -> Row:
    """Run one case, or preparation, in this process."""
    run = PREPARATIONS[name] if name in PREPARATIONS else CASES[name][1]
    run(setting)
    row: Row = {"peak, GiB": peak_gib()}
    if setting.device.startswith("cuda"):
        row["GPU's peak, GiB"] = torch.cuda.max_memory_allocated(setting.device) / 2**30
    return row


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=64, help="in the store")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", choices=[*CASES, *PREPARATIONS], help="run this in this process, print JSON")
    parser.add_argument("--folder", type=Path, default=Path(), help="with --one: where the store and the graph are")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure_one(args.one, Setting(args.bins, args.batch, args.images, args.device, args.folder))))
        return
    print(f"{machine(args.device)}\n\n{table(measure(args.bins, args.batch, args.images, args.device))}")


if __name__ == "__main__":
    main()
