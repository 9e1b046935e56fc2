"""The part of a study that needs images: scores of tokens, words and ablations with intervals, the word search, and heat maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.dataset import DepthDataset
from ..depth.metrics import METRICS
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol
from ..experiment.controls import learn_controls
from ..experiment.evaluate import Row, Scores, score_rows
from ..experiment.source import Source
from ..experiment.statistics import Difference, Interval, bootstrap_mean, paired_bootstrap
from ..prompt.template import parse_template
from .ablations import Variant, all_but_two, removed, variants
from .neighbours import depth_vectors
from .patches import sample_patches
from .data import Report, StudyData
from .words import Candidates, Found, search_words, word_score

TOKENS, BEST = "tokens", "best words"
PAIRS, SINGLE = 12, 32
"""Up to so many tokens every pair of them is scored alone, and every single one is removed, merged and replaced."""
WORK, SWEEPS = 3e10, 50
"""Similarities that one descent may look at (20 rounds over 7 bins, the whole vocabulary on 4096 patches), and its rounds at most."""


@dataclass(frozen=True)
class ScoredRow:
    """What one row scored. kind: "tokens", "words" (a human scale), "best words", "control", or an ablation's (`ablations.KINDS`).

    intervals: of every metric's mean over images. differences: of every metric, this row less the tokens, paired by image; None for
    the tokens themselves.
    """

    name: str
    kind: str
    scores: Scores
    intervals: dict[str, Interval]
    differences: dict[str, Difference] | None


@dataclass(frozen=True)
class WordSearch:
    """Best words: one name per bin as the vocabulary writes it; phrases: whether it is one of several entries, from a scale.

    objective: mean absolute relative error on the patches searched on, of the tokens, the scales and the best words; without: the same
    of the best words less one, with its bin, for each bin.
    """

    words: list[str]
    phrases: list[bool]
    features: Tensor
    found: Found
    candidates: int
    patches: int
    objective: dict[str, float]
    without: list[float]


@dataclass(frozen=True)
class TokenMaps:
    """A test image [H, W, 3] uint8 and each token's probability in each of its patches, [N, h, w] float32."""

    name: str
    image: NDArray[np.uint8]
    probs: NDArray[np.float32]


def search_best_words(
    model: DepthTokens,
    scales: Mapping[str, DepthTokens],
    candidates: Candidates,
    nearest: Sequence[int],
    train: Source,
    *,
    vocabulary: int,
    patches: int,
    seed: int,
    report: Report,
) -> WordSearch:
    """Search a word for each of the model's bins on patches of a training split, from each scale, the `nearest` words, and at random.

    vocabulary: how many of the candidates, which come first, are vocabulary entries; the others are phrases.
    """
    features, truth = sample_patches(train, patches, batch_size=1, seed=seed)  # one by one: images may differ in size
    if features.device.type == "mps":  # which has no double precision
        features, truth = features.cpu(), truth.cpu()
    centres, scale = model.centres.to(features.device), float(model.log_scale.exp())
    count = len(centres)
    starts = [tuple(nearest), *(candidates.scales[name] for name in scales if name in candidates.scales)]
    sweeps = int(WORK / (count * len(candidates.names) * len(truth)))
    found = search_words(
        features, truth, candidates.features, starts, centres, scale, seed=seed, sweeps=max(1, min(SWEEPS, sweeps)),
        progress=partial(report, "searching words"),
    )  # fmt: skip
    best = candidates.features[list(found.indices)]
    said = {TOKENS: _text(model), **{name: _text(words) for name, words in scales.items()}, BEST: best}
    objective = {name: word_score(features, truth, text.to(features.device), centres, scale) for name, text in said.items()}
    fewer = [removed(best.to(features.device), centres, i) for i in range(count)]
    without = [word_score(features, truth, variant.features, variant.centres, scale) for variant in fewer]
    names = [candidates.names[index] for index in found.indices]
    phrases = [index >= vocabulary for index in found.indices]
    return WordSearch(names, phrases, best, found, len(candidates.names), len(truth), objective, without)


def chosen_ablations(model: DepthTokens, words: Tensor, names: Sequence[str]) -> tuple[list[Variant], str | None]:
    """The ablations of a model's tokens worth scoring, and what was left out for their number, if anything.

    words: [N, C] features of the word nearest to each token in the model's own template, called `names`.
    """
    features, centres, count = _text(model), model.centres, len(model.centres)
    vectors = depth_vectors(model).to(centres.device) if "depth" in model.tokens else None
    kinds = ["removed", "merged", "replaced", *(["pair"] if count <= PAIRS else [])]
    found = variants(features, centres, words, vectors, _encoder(model), kinds)
    left_out = None
    if count > PAIRS:
        near, far = int(centres.argmin()), int(centres.argmax())
        found.append(all_but_two(features, centres, near, far))
        left_out = f"of all pairs of {count} tokens only that of the nearest and the farthest bin was scored alone"
    if count > SINGLE:
        parts = {kind: [variant for variant in found if variant.kind == kind] for kind in kinds}
        few = {kind: np.linspace(0, len(part) - 1, SINGLE).round().astype(int) for kind, part in parts.items()}
        found = [parts[kind][i] for kind in kinds for i in few[kind]] + found[-1:]
        left_out = f"{left_out}; {SINGLE} evenly spaced tokens were removed, merged and replaced, not all"

    def named(variant: Variant) -> Variant:
        index = variant.name.removeprefix("replaced ")
        return replace(variant, name=f"replaced {index} by {names[int(index)]}") if variant.kind == "replaced" else variant

    return [named(variant) for variant in found], left_out


def score(
    model: DepthTokens,
    scales: Mapping[str, DepthTokens],
    best: Tensor | None,
    ablations: Sequence[Variant],
    data: StudyData,
    report: Report,
) -> list[ScoredRow]:
    """Score the model's tokens, human scales, best words [N, C] and ablations on the test split in one pass, beside the controls."""
    scale = float(model.log_scale.exp())
    said = [Variant(TOKENS, TOKENS, _text(model), model.centres)]
    said += [Variant(BEST, BEST, best, model.centres)] if best is not None else []
    said += [Variant(name, "words", _text(words), model.centres) for name, words in scales.items()]
    said += ablations
    rows: dict[str, Row] = {variant.name: variant.row(scale) for variant in said}
    kinds = {variant.name: variant.kind for variant in said}
    controls: dict[str, Row] = {}
    if data.controls is not None:
        depth_range = data.protocol.depth_range or data.test.depth_range
        learned = learn_controls(data.controls, depth_range, data.workers, partial(report, "learning controls"))
        controls = learned.rows(data.protocol)
        kinds |= dict.fromkeys(controls, "control")
    scores = score_rows(rows | controls, data.test, data.protocol, image_free=controls, progress=partial(report, "scoring test images"))
    scored: list[ScoredRow] = []  # the tokens come first
    for number, (name, kind) in enumerate(kinds.items(), 1):
        values = {metric: [image[metric] for image in scores[name].per_image] for metric in METRICS}
        intervals = {metric: bootstrap_mean(value) for metric, value in values.items()}
        differences = None
        if name != TOKENS:
            differences = {
                metric: paired_bootstrap(value, [image[metric] for image in scores[TOKENS].per_image]) for metric, value in values.items()
            }
        scored.append(ScoredRow(name, kind, scores[name], intervals, differences))
        report("intervals", number, len(kinds))
    return scored


def token_maps(model: DepthTokens, shown: DepthDataset, protocol: Protocol, count: int) -> list[TokenMaps]:
    """What each token says about `count` images spread over a split, as the protocol shows them."""
    chosen = np.linspace(0, len(shown) - 1, min(count, len(shown))).round().astype(int).tolist()
    maps = []
    for index in chosen:
        rgb, _ = shown.read(index)
        with torch.inference_mode():
            probs = model(protocol.shown(shown[index].image)[None].to(model.centres.device)).probs[0]
        image = protocol.shown(torch.from_numpy(rgb).permute(2, 0, 1)).permute(1, 2, 0)
        maps.append(TokenMaps(shown.names[index], image.numpy(), probs.cpu().numpy()))
    return maps


def _text(model: DepthTokens) -> Tensor:
    with torch.inference_mode():
        return model.text_features()


def _encoder(model: DepthTokens) -> Callable[[Tensor], Tensor]:
    """Depth vectors [n, width] -> text features [n, C] in the model's template, its learned context included."""
    parsed = parse_template(model.settings["template"])

    def encode(vectors: Tensor) -> Tensor:
        layout = model.encoder.layout([parsed.fill([parsed.contexts + i]) for i in range(len(vectors))])
        context = [model.tokens["context"]] if "context" in model.tokens else []
        return model.encoder.encode(layout, torch.cat([*context, vectors]))

    return encode
