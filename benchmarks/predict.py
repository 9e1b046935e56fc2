"""Prediction: what the fused model and its ONNX graph cost beside the bare image tower, on RN50 with random weights, in one run.

    python benchmarks/predict.py [--size 480 640] [--bins 256] [--repeats 9]

Every row is timed once per round and the rounds are repeated, so that a slow minute of the machine falls on all rows alike; the table
gives medians, and the median over rounds of each ratio. `model(images)`, made for training, encodes the prompts in every call; eager
prediction is measured with text features kept, which is the fairer thing to be faster than.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from depthtokens import DepthTokens, load_clip
from depthtokens.clip.fold import fold_batchnorm
from depthtokens.clip.resnet import trunk
from depthtokens.deploy.export import Graph, to_onnx
from depthtokens.deploy.runtime import open_session
from depthtokens.depth.fused import FusedDepth

EAGER = "torch, eager NCHW, text features kept"


@dataclass(frozen=True)
class Row:
    """One way to predict: milliseconds, its time relative to the bare trunk's in the same engine, and to eager NCHW prediction's."""

    name: str
    ms: float
    of_trunk: float | None
    of_eager: float


class Trunk(nn.Module):
    """The graph's image tower alone: image uint8 [B, H, W, 3] -> the trunk's output."""

    def __init__(self, fused: FusedDepth) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, image: Tensor) -> Tensor:
        return trunk(self.fused.tower.visual, (image.permute(0, 3, 1, 2).float() / 255 - self.fused.mean) / self.fused.std)


def measure(size: tuple[int, int] = (480, 640), bins: int = 256, repeats: int = 9, threads: int | None = None) -> list[Row]:
    """Time all ways, interleaved. threads: of both engines; None = as torch has them."""
    if threads is not None:
        torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DepthTokens(load_clip("RN50", None), depth=f"learned:{bins}", bins="log")
    photo = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    fused, half = model.folded(), model.folded("bfloat16")
    images = (photo.permute(0, 3, 1, 2).float() / 255 - fused.mean) / fused.std
    last = images.contiguous(memory_format=torch.channels_last)
    tower = fold_batchnorm(model.visual).to(memory_format=torch.channels_last)
    text = model.text_features()
    graphs = {name: _session(graph, outputs) for name, graph, outputs in (
        ("whole", Graph(fused), ("depth", "uncertainty", "probs")),
        ("trunk", Trunk(fused), ("trunk",)),
    )}  # fmt: skip
    feed = {"image": photo.numpy()}
    trunks = ("torch, bare trunk, eager NCHW", "torch, bare trunk, folded, channels-last", "onnxruntime, bare trunk")
    eager_trunk, folded_trunk, onnx_trunk = trunks
    # name -> (work, the bare trunk it is compared with)
    ways: dict[str, tuple[Callable[[], object], str | None]] = {
        "torch, model(images), eager NCHW": (lambda: model(images), eager_trunk),
        EAGER: (lambda: model.depth_from(model.image_features(images), text), eager_trunk),
        eager_trunk: (lambda: trunk(model.visual, images), None),
        "torch, fused": (lambda: fused(last), folded_trunk),
        "torch, fused, bfloat16 tower": (lambda: half(last), folded_trunk),
        folded_trunk: (lambda: trunk(tower, last), None),
        "onnxruntime, whole graph": (lambda: graphs["whole"].run(None, feed), onnx_trunk),
        onnx_trunk: (lambda: graphs["trunk"].run(None, feed), None),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for work, _ in ways.values():
            work()
        for _ in range(repeats):
            for name, (work, _) in ways.items():
                start = time.perf_counter()
                work()
                times[name].append(1000 * (time.perf_counter() - start))

    def ratio(name: str, base: str) -> float:
        return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))

    return [
        Row(name, statistics.median(times[name]), ratio(name, base) if base else None, ratio(name, EAGER))
        for name, (_, base) in ways.items()
    ]


def _session(graph: nn.Module, outputs: tuple[str, ...]) -> Any:
    return open_session(to_onnx(graph, None, outputs).SerializeToString(), torch.get_num_threads())


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--bins", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    rows = measure(tuple(args.size), args.bins, args.repeats)
    print(f"RN50, {args.size[0]}x{args.size[1]}, {args.bins} bins, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| engine | ms | of its bare trunk | faster than eager NCHW |")
    print("|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.ms:.0f} | {'' if row.of_trunk is None else f'{row.of_trunk:.2f}'} | {1 / row.of_eager:.2f}x |")


if __name__ == "__main__":
    main()
