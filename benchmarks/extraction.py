"""What features of images cost: the tower as open_clip has it, as `features` runs it, and its bare trunk in that form.

python benchmarks/extraction.py [--images 8] [--repeats 5]

RN50's geometry with random weights, images of 480x640, `layer4`. The same images by turns, so that what else a machine does falls on all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from common import interleaved, machine, random_clip, ratio, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    eager = random_clip().image
    quick = eager.quick()
    images = torch.randn(asked.images, 3, 480, 640)
    works: dict[str, Callable[[], object]] = {
        "as open_clip has it": lambda: eager.patches_in(images, ["layer4"]),
        "as `features` runs it": lambda: quick.patches_in(images, ["layer4"]),
        "bare trunk in that form": lambda: [quick.trunk(image, "layer4") for image in images.split(1)],
    }
    with torch.inference_mode():
        difference = (eager.patches(images[:1], "layer4") - quick.patches(images[:1], "layer4")).abs().max()
        times = interleaved(works, asked.repeats)
    print(machine(), "\n")
    print(table([{"tower": name, "of the bare trunk's time": ratio(times, name, "bare trunk in that form")} for name in works]))
    print(f"\nLargest difference between the features: {difference:.1g}")


if __name__ == "__main__":
    main()
