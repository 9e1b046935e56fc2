"""Text features: ours against open_clip's `encode_text`, on RN50's text tower with random weights, in one run.

    python benchmarks/text.py [--bins 7 20 64 256] [--grow 1024 4096] [--repeats 15]

Both sides run forward and backward for N prompts "This object appears to be {vector}". open_clip takes ids only, so its side encodes N
sentences of the same length and takes the gradient with respect to its token embedding's output, as the released code does. A second
table encodes the whole vocabulary, forward only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import open_clip
import torch

from common import Row, Work, alone, interleaved, machine, peak_gib, random_clip, ratio, table
from depthtokens import DepthTokens, PromptEncoder
from depthtokens.clip.load import FrozenCLIP
from depthtokens.study.vocabulary import vocabulary_features

SENTENCE = "This object appears to be far"


def ours(clip: FrozenCLIP, count: int) -> Work:
    """Forward and backward of `count` learned prompts."""
    model = DepthTokens(clip, depth=f"learned:{count}")

    def work() -> None:
        model.text_features().sum().backward()
        model.zero_grad()

    return work


def stock(clip: FrozenCLIP, count: int) -> Work:
    """The same through open_clip's own text pass."""
    ids = open_clip.tokenize([SENTENCE] * count).to(clip.text.embedding.weight.device)

    def work() -> None:
        handle = clip.text.embedding.register_forward_hook(lambda _m, _i, output: output.detach().requires_grad_())
        try:
            clip.model.encode_text(ids, normalize=True).sum().backward()  # type: ignore[operator]
        finally:
            handle.remove()

    return work


def measure(
    bins: Sequence[int] = (7, 20, 64, 256), grow: Sequence[int] = (1024, 4096), repeats: int = 15, device: str = "cpu"
) -> list[Row]:
    """One row per number of prompts. grow: numbers for which ours runs alone, open_clip's side taking minutes and tens of gigabytes."""
    clip = random_clip(device)
    rows = []
    for count in (*bins, *grow):
        works = {"ours": ours(clip, count)} | ({"stock": stock(clip, count)} if count in bins else {})
        times = interleaved(works, repeats, device)
        seconds = statistics.median(times["ours"])
        rows.append({
            "prompts N": count,
            "open_clip, s": statistics.median(times["stock"]) if count in bins else None,
            "depthtokens, s": seconds,
            "times faster": ratio(times, "stock", "ours") if count in bins else None,
            "depthtokens, ms per prompt": 1000 * seconds / count,
        })  # fmt: skip
    return rows


def measure_vocabulary(tokens: int | None = None, device: str = "cpu") -> list[Row]:
    """The whole vocabulary (or its first `tokens` entries) in a sentence, in a process of its own, whose peak memory is reported."""
    row: Row = alone(__file__, "--one", tokens or "all", "--device", device)
    return [row]


def _vocabulary(tokens: int | None, device: str) -> Row:
    clip = random_clip(device)
    encoder = PromptEncoder(clip)
    chosen = None if tokens is None else range(tokens)
    start = time.perf_counter()
    names, _ = vocabulary_features(encoder, tokens=chosen)
    seconds = time.perf_counter() - start
    peak = peak_gib()  # before open_clip's side adds its own
    sample = 64
    ids = open_clip.tokenize([SENTENCE] * sample).to(device)

    def forward() -> None:
        with torch.inference_mode():
            clip.model.encode_text(ids, normalize=True)  # type: ignore[operator]

    rate = statistics.median(interleaved({"stock": forward}, 3, device)["stock"]) / sample
    return {
        "entries": len(names),
        "depthtokens, s": seconds,
        "peak memory of the process, GiB": peak,
        f"open_clip, s (reckoned from {sample} sentences)": rate * len(names),
    }


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", type=int, nargs="+", default=[7, 20, 64, 256])
    parser.add_argument("--grow", type=int, nargs="*", default=[1024, 4096], help="numbers of prompts for which ours runs alone")
    parser.add_argument("--repeats", type=int, default=15, help="at most; what takes long runs less often")
    parser.add_argument("--tokens", type=int, help="encode the vocabulary's first so many entries only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", metavar="TOKENS", help="encode so many vocabulary entries, or all, in this process; print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_vocabulary(None if args.one == "all" else int(args.one), args.device)))
        return
    print(f"{machine(args.device)}\n")
    print(table(measure(args.bins, args.grow, args.repeats, args.device)), flush=True)
    print(f"\n{table(measure_vocabulary(args.tokens, args.device))}")


if __name__ == "__main__":
    main()
