"""Text features with gradients: ours against open_clip's `encode_text`, on RN50's text tower with random weights, in one run.

    python benchmarks/text.py [--bins 7 64 256] [--repeats 5]

Both sides run forward and backward for N prompts "This object appears to be {vector}". open_clip takes ids only, so its side encodes N
sentences of the same length and takes the gradient with respect to its token embedding's output, as the released code does.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import open_clip
import torch

from depthtokens import DepthTokens, load_clip


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median over `repeats` runs after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print one line per number of bins."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", type=int, nargs="+", default=[7, 64, 256])
    parser.add_argument("--repeats", type=int, default=5, help="ours; open_clip's side runs a third of them, at least 2")
    args = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = load_clip("RN50", None)
    print(f"torch {torch.__version__}, open_clip {open_clip.__version__}, {torch.get_num_threads()} threads, float32")
    print(f"{'bins':>5} {'open_clip s':>12} {'ours s':>9} {'ratio':>7}")
    for count in args.bins:
        model = DepthTokens(clip, depth=f"learned:{count}")
        ids = open_clip.tokenize(["This object appears to be far"] * count)

        def ours(model: DepthTokens = model) -> None:
            model.text_features().sum().backward()
            model.zero_grad()

        def theirs(ids: torch.Tensor = ids) -> None:
            handle = clip.text.embedding.register_forward_hook(lambda _m, _i, output: output.detach().requires_grad_())
            try:
                clip.model.encode_text(ids, normalize=True).sum().backward()  # type: ignore[operator]
            finally:
                handle.remove()

        theirs_s, ours_s = seconds(theirs, max(2, args.repeats // 3)), seconds(ours, args.repeats)
        print(f"{count:>5} {theirs_s:>12.3f} {ours_s:>9.4f} {theirs_s / ours_s:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
