"""How far words can go: what may stand for {depth}, and the best word for every bin, the fair upper bound for one-word language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.model import DepthTokens
from ..experiment.source import Source
from ..progress import Progress, silent
from ..prompt.encoder import PromptEncoder
from ..prompt.scales import SCALES, Word
from ..prompt.template import parse_template
from ..prompt.tokens import has_words, word_ids
from . import BEST, TOKENS
from .ablations import removed
from .neighbours import depth_features
from .patches import sample_patches
from .search import Found, search_words, word_score
from .vocabulary import vocabulary_entries, vocabulary_features

WORK, SWEEPS = 3e10, 50
"""Similarities that one descent may look at (20 rounds over 7 bins, the whole vocabulary on 4096 patches), and its rounds at most."""


@dataclass(frozen=True)
class Candidates:
    """What may stand for {depth}.

    Attributes:
        names: V vocabulary entries and phrases.
        features: [V, C] float32, L2-normalised.
        scales: the hand-made scales, as indices among them.
    """

    names: list[str]
    features: Tensor
    scales: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class WordSearch:
    """The best words that were found.

    Attributes:
        words: one per bin, as the vocabulary writes it.
        phrases: whether each is a phrase of several entries, from a scale.
        features: [N, C], theirs.
        found: how the search went.
        candidates: how many there were.
        patches: how many they were judged on.
        objective: mean absolute relative error on those patches, of the tokens, the scales and the best words.
        without: the same of the best words less one, with its bin, for each bin.
    """

    words: list[str]
    phrases: list[bool]
    features: Tensor
    found: Found
    candidates: int
    patches: int
    objective: dict[str, float]
    without: list[float]


def word_candidates(
    encoder: PromptEncoder,
    template: str = "baseline",
    tokens: Sequence[str | int] | None = None,
    *,
    context: Tensor | None = None,
    scales: Mapping[str, Sequence[Word]] = SCALES,
    progress: Progress = silent,
) -> Candidates:
    """Every vocabulary entry in a template, and behind them every phrase of the scales that is no single entry.

    Args:
        encoder: of the CLIP whose vocabulary it is.
        template: the sentence.
        tokens: the entries wanted, as in `vocabulary_entries`; None for all. Phrases with other entries in them are then left out, and
            so are the scales that need one.
        context: vectors [slots, width] for the template's {ctx} slots.
        scales: where phrases come from; the hand-made ones if not given. Those with a `Token` that the vocabulary lacks are left out.
        progress: called as the vocabulary is encoded.

    Raises:
        UsageError: as `vocabulary_features`.
    """
    scales = {name: words for name, words in scales.items() if has_words(encoder.clip, words)}
    names, features = vocabulary_features(encoder, template, tokens, context=context, progress=progress)
    entries = vocabulary_entries(encoder.clip, tokens)[1]
    single = {index: place for place, index in enumerate(entries)}
    places: dict[Word, int] = {}
    phrases: list[Word] = []
    for word in dict.fromkeys(word for scale in scales.values() for word in scale):
        ids = word_ids(encoder.clip, word)
        if not all(index in single for index in ids):
            continue
        if len(ids) == 1:
            places[word] = single[ids[0]]
        else:
            places[word] = len(names) + len(phrases)
            phrases.append(word)
    if phrases:
        parsed = parse_template(template)
        with torch.inference_mode():
            spoken = encoder.encode(encoder.layout([parsed.fill([phrase]) for phrase in phrases]), context)
            spoken = F.normalize(spoken.float(), dim=-1).cpu()
        features = torch.cat([features, spoken])
    known = {name: tuple(places[word] for word in words) for name, words in scales.items() if all(word in places for word in words)}
    return Candidates([*names, *map(str, phrases)], features, known)


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
    progress: Progress = silent,
) -> WordSearch:
    """Search a word for each of a model's bins on patches of a training split.

    Args:
        model: the tokens under study.
        scales: the same model with human words, by the scales' names; each scale is a start of the search.
        candidates: what words are chosen from.
        nearest: the candidate nearest to each token; another start.
        train: training images.
        vocabulary: how many of the candidates, which come first, are vocabulary entries; the others are phrases.
        patches: how many are drawn.
        seed: of the draw, and of the one start at random.
        progress: called as the search goes on.

    Raises:
        UsageError: where no patch has ground truth.
    """
    features, truth = sample_patches(train, patches, batch_size=1, seed=seed)  # one by one: images may differ in size
    if features.device.type == "mps":  # which has no double precision
        features, truth = features.cpu(), truth.cpu()
    centres, scale = model.centres.to(features.device), float(model.log_scale.exp())
    count = len(centres)
    starts = [tuple(nearest), *(candidates.scales[name] for name in scales if name in candidates.scales)]
    sweeps = int(WORK / (count * len(candidates.names) * len(truth)))
    found = search_words(
        features, truth, candidates.features, starts, centres, scale, seed=seed, sweeps=max(1, min(SWEEPS, sweeps)), progress=progress
    )  # fmt: skip
    best = candidates.features[list(found.indices)]
    compared = {TOKENS: depth_features(model), **{name: depth_features(words) for name, words in scales.items()}, BEST: best}
    objective = {name: word_score(features, truth, text.to(features.device), centres, scale) for name, text in compared.items()}
    fewer = [removed(best.to(features.device), centres, i) for i in range(count)]
    without = [word_score(features, truth, variant.features, variant.centres, scale) for variant in fewer]
    names = [candidates.names[index] for index in found.indices]
    phrases = [index >= vocabulary for index in found.indices]
    return WordSearch(names, phrases, best, found, len(candidates.names), len(truth), objective, without)
