"""What features of images cost: the tower as open_clip has it, as `features` runs it, and its bare trunk in that form.

python benchmarks/extraction.py [--images 8] [--repeats 5] [--device cuda]

RN50's geometry with random weights, images of 480x640, `layer4`. The same images by turns, so that what else a machine does falls on all.
On a GPU they go through together, and the bare trunk is that of the same precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch

from common import Row, interleaved, machine, milliseconds, random_clip, ratio, table
from depthtokens.clip.fold import quick


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    asked = parser.parse_args()
    eager = random_clip(asked.device).image
    folded = quick(eager)
    images = torch.randn(asked.images, 3, 480, 640, device=asked.device)
    together = images.split(1 if asked.device == "cpu" else asked.images)

    def halved(work: Callable[[], object]) -> None:
        with torch.autocast(asked.device, torch.bfloat16):
            work()

    works: dict[str, Callable[[], object]] = {
        "as open_clip has it": lambda: eager.patches_in(images, ["layer4"]),
        "as `features` runs it": lambda: folded.patches_in(images, ["layer4"]),
        "bare trunk in that form": lambda: [folded.trunk(some, "layer4") for some in together],
    }
    if asked.device == "cuda":
        works |= {f"{name}, bfloat16": partial(halved, work) for name, work in works.items()}
    with torch.inference_mode():
        difference = (eager.patches(images[:1], "layer4") - folded.patches(images[:1], "layer4")).abs().max()
        times = interleaved(works, asked.repeats, asked.device)
    print(machine(asked.device), "\n")
    rows: list[Row] = []
    for name in works:
        bare = "".join(["bare trunk in that form", *name.partition(",")[1:]])
        rows.append(
            {"tower": name, "ms per image": milliseconds(times[name]) / asked.images, "of the bare trunk's time": ratio(times, name, bare)}
        )
    print(table(rows))
    print(f"\nLargest difference between the features: {difference:.1g}")


if __name__ == "__main__":
    main()
