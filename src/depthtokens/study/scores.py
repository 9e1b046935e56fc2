"""The scores of a study: tokens, words and ablations with intervals over test images; and what tokens say about single images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.dataset import DepthDataset
from ..depth.metrics import METRICS
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol
from ..experiment.controls import learn_controls
from ..experiment.evaluate import Scores, score_heads
from ..experiment.result import Result
from ..experiment.statistics import Difference
from ..progress import Progress, silent
from . import BEST, CONTROL, TOKENS, WORDS
from .ablations import Variant
from .data import StudyData
from .neighbours import depth_features


@dataclass(frozen=True)
class StudyRow:
    """What one row scored.

    Attributes:
        name: in files.
        kind: of the row: one of `study`'s (tokens, a human scale, the best found, a control), or of `ablations.KINDS`.
        scores: of the evaluation.
        result: the same as a `Result`, which has an interval for every metric.
        differences: metric -> this row minus the tokens, paired by image; None for the tokens themselves.
        tokens: of an ablation, the tokens concerned, as indices.
        word: of a token that was replaced, the word that came in, as the vocabulary writes it.
    """

    name: str
    kind: str
    scores: Scores
    result: Result
    differences: dict[str, Difference] | None
    tokens: tuple[int, ...] = ()
    word: str | None = None


@dataclass(frozen=True)
class TokenMaps:
    """What each token says about a test image.

    Attributes:
        name: of the image.
        image: [H, W, 3] uint8.
        probs: [N, h, w] float32, each token's probability in each patch.
    """

    name: str
    image: NDArray[np.uint8]
    probs: NDArray[np.float32]


def score(
    model: DepthTokens,
    scales: Mapping[str, DepthTokens],
    best: Mapping[str, Tensor],
    ablations: Sequence[Variant],
    data: StudyData,
    progress: Progress = silent,
) -> list[StudyRow]:
    """Score everything that a study compares in one pass over the test split.

    Args:
        model: the tokens under study.
        scales: the same model with human words, by the scales' names.
        best: text features [N, C] of the best words and phrases, by the names of their rows.
        ablations: of the tokens.
        data: the study's images; where its training split is at hand, the controls are scored as well.
        progress: called as depths are read, images scored and intervals drawn.

    Returns:
        The rows: the tokens first, then the best found, scales, ablations and controls.

    Raises:
        DataError: as `score_heads` and `learn_controls`.
    """
    compared = [Variant(TOKENS, TOKENS, depth_features(model), model.centres)]
    compared += [Variant(name, BEST, text, model.centres) for name, text in best.items()]
    compared += [Variant(name, WORDS, depth_features(words), model.centres) for name, words in scales.items()]
    variants = {variant.name: variant for variant in [*compared, *ablations]}
    controls = None
    if data.controls is not None:
        controls = learn_controls(data.controls, data.protocol.depth_range or data.test.depth_range, data.workers, progress)
    scale = float(model.log_scale.exp())
    heads = {name: variant.head(scale) for name, variant in variants.items()}
    scores = score_heads(heads, data.test, data.protocol, controls, progress)
    results = {name: Result.of([found]) for name, found in scores.items()}
    rows: list[StudyRow] = []
    for number, (name, result) in enumerate(results.items(), 1):
        for metric in METRICS:
            result.interval(metric)  # kept by the result: this is the work that is under way
        differences = None if name == TOKENS else _minus(result, results[TOKENS])
        variant = variants.get(name)
        if variant is None:
            rows.append(StudyRow(name, CONTROL, scores[name], result, differences))
        else:
            rows.append(StudyRow(name, variant.kind, scores[name], result, differences, variant.tokens, variant.word))
        progress("computing intervals", number, len(results))
    return rows


def token_maps(model: DepthTokens, shown: DepthDataset, protocol: Protocol, count: int) -> list[TokenMaps]:
    """What each token says about some images.

    Args:
        model: the tokens under study.
        shown: the images.
        protocol: which part of them it shows.
        count: how many, evenly spaced over the split.
    """
    chosen = np.linspace(0, len(shown) - 1, min(count, len(shown))).round().astype(int).tolist()
    maps = []
    for index in chosen:
        rgb, _ = shown.read(index)
        with torch.inference_mode():
            probs = model(protocol.shown(shown[index].image)[None].to(model.centres.device)).probs[0]
        image = protocol.shown(torch.from_numpy(rgb).permute(2, 0, 1)).permute(1, 2, 0)
        maps.append(TokenMaps(shown.names[index], image.numpy(), probs.cpu().numpy()))
    return maps


def _minus(result: Result, tokens: Result) -> dict[str, Difference]:
    """A row minus the tokens, for every metric; both were scored on the same images."""
    found = {metric: result.minus(tokens, metric) for metric in METRICS}
    return {metric: difference for metric, difference in found.items() if difference is not None}
