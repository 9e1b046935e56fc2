"""Peak memory of one training step: RN50 with random weights, batch 16, 416x544, 256 bins.

python benchmarks/memory.py [--batch 16] [--bins 256]
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings

import torch

from depthtokens import DepthTokens, load_clip, make_optimizer, silog


def main() -> None:
    """Run two optimiser steps and print the process's peak resident memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--bins", type=int, default=256)
    args = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DepthTokens(load_clip("RN50", None), depth=f"learned:{args.bins}", bins="log")
    optimizer, scheduler = make_optimizer(model, 10)
    images, target = torch.randn(args.batch, 3, 416, 544), 0.5 + 9 * torch.rand(args.batch, 1, 416, 544)
    model.train()
    start = time.perf_counter()
    for _ in range(2):
        optimizer.zero_grad()
        silog(model(images).depth, target).backward()
        optimizer.step()
        scheduler.step()
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"batch {args.batch}, {args.bins} bins, 416x544: peak {gib:.2f} GiB, {(time.perf_counter() - start) / 2:.1f} s per step, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip


if __name__ == "__main__":
    main()
