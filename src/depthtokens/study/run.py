"""A study of depth tokens: what lies near them, how they lie to each other, what each is worth, and how far words alone can go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.bundled import trained_tokens
from ..depth.model import DepthTokens
from ..errors import UsageError
from ..prompt.scales import SCALES, depth_words
from ..prompt.template import parse_template
from . import geometry
from .neighbours import Neighbour, depth_vectors, features_at, nearest, vocabulary_entries, vocabulary_features
from .settings import StudySettings
from .data import Report, StudyData
from .scores import (
    TOKENS,
    ScoredRow,
    TokenMaps,
    WordSearch,
    chosen_ablations,
    score,
    search_best_words,
    token_maps,
)
from .words import Candidates, word_candidates


@dataclass(frozen=True)
class NeighbourTable:
    """Nearest neighbours of each of N depth words, nearest first. words: "tokens" or a scale's name; space: as in `nearest_words`."""

    words: str
    space: str
    rows: list[list[Neighbour]]


@dataclass
class Study:
    """What a study found.

    neighbours: tables of the tokens and of each scale, in both spaces. distances: [N, N] between text features, by name of the words.
    paths: how text features lie along depth, for three bins or more. norms: [N] length of each vector that stands for {depth};
    vocabulary_norms: 5th, 50th and 95th percentile of the same over the vocabulary. What needs images is empty or None without them.
    notes: what was left out or done otherwise, in words. vocabulary: entries that were candidates for neighbours.
    """

    model: DepthTokens
    settings: StudySettings
    data: StudyData | None
    neighbours: list[NeighbourTable]
    scale_words: dict[str, list[str]]
    distances: dict[str, Tensor]
    paths: dict[str, geometry.Path]
    norms: dict[str, Tensor]
    vocabulary_norms: tuple[float, float, float]
    vocabulary: int
    rows: list[ScoredRow] = field(default_factory=list)
    search: WordSearch | None = None
    maps: list[TokenMaps] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def fragments(self) -> bool:
        """Whether the vocabulary marks the ends of words, as CLIP's BPE does, so that an entry without one is a fragment."""
        return hasattr(self.model.clip.tokenizer.tokenizer, "encoder")


def run_study(model: DepthTokens, settings: StudySettings, data: StudyData | None = None, report: Report | None = None) -> Study:
    """Study a model's depth words, learned, random or human; with images also their scores.

    Raises UsageError for settings that do not fit the model, before any work, and as `evaluate` and `search_words` do.
    """
    started = time.monotonic()
    said = report or (lambda label, done, total: None)
    entries = _entries(model, settings)
    scales = {name: in_words(model, name) for name in _scale_names(model, settings)}
    _check(model, settings, data)
    notes = _notes(model, data)
    candidates = word_candidates(
        model.encoder, model.settings["template"], entries, context=_context(model, model.settings["template"]),
        scales={**SCALES, **{name: depth_words(name).words for name in scales}}, progress=partial(said, "encoding the vocabulary"),
    )  # fmt: skip
    studied = {TOKENS: model, **scales}
    names, ids = vocabulary_entries(model.clip.tokenizer, entries)
    neighbours = _neighbours(studied, settings, candidates, names, ids, said)
    with torch.inference_mode():
        features = {name: one.text_features().cpu() for name, one in studied.items()}
    embedding = model.clip.text.embedding.weight.detach()[ids].float().norm(dim=1)
    study = Study(
        model, settings, data, neighbours, {name: one.words for name, one in scales.items()},
        {name: geometry.pairwise(text) for name, text in features.items()},
        {name: geometry.path(text, model.centres) for name, text in features.items()} if len(model.centres) > 2 else {},
        {name: geometry.norms(depth_vectors(one)) for name, one in studied.items()},
        tuple(embedding.quantile(embedding.new_tensor([0.05, 0.5, 0.95])).tolist()),
        len(names), notes=notes,
    )  # fmt: skip
    if data is not None:
        _with_images(study, scales, candidates, features[TOKENS], said)
    study.seconds = time.monotonic() - started
    return study


def in_words(model: DepthTokens, words: str) -> DepthTokens:
    """The same model with human words for its bins: template, learned context, bins and logit scale stay.

    Raises UsageError where the number of words differs from that of bins.
    """
    spoken, count = depth_words(words), len(model.centres)
    if spoken.kind != "words":
        raise UsageError(f"'{words}' is no scale of words: give {', '.join(SCALES)}, or one word per bin as 'near|far'")
    if spoken.count != count:
        raise UsageError(f"the scale '{words}' has {spoken.count} words, these tokens have {count} bins: leave it out of --scales")
    settings = {**model.settings, "depth": words, "batchnorm": "frozen", "init": "random"}
    other = DepthTokens(model.clip, **settings)
    with torch.no_grad():
        if "context" in model.tokens:
            other.tokens["context"].copy_(model.tokens["context"])
        other.log_scale.copy_(model.log_scale)
    return other.to(model.centres.device)


def _with_images(study: Study, scales: dict[str, DepthTokens], candidates: Candidates, own: Tensor, said: Report) -> None:
    """Search, score and draw maps, on the study's data."""
    model, settings, data = study.model, study.settings, study.data
    assert data is not None
    words = candidates.features[: study.vocabulary]
    nearest_word = (own @ words.T).argmax(dim=1).tolist()  # of unit length: the largest product is the least distance
    if settings.search and data.train is not None:
        study.search = search_best_words(
            model, scales, candidates, nearest_word, data.train, vocabulary=study.vocabulary, patches=settings.patches,
            seed=settings.seed, report=said,
        )  # fmt: skip
        if not study.search.found.converged:
            study.notes.append("the search stopped at its limit of rounds: a change of one word might still help")
    best = None if study.search is None else study.search.features
    names = [candidates.names[index] for index in nearest_word]
    ablations, left_out = chosen_ablations(model, words[nearest_word], names)
    study.notes += [left_out] if left_out else []
    study.rows = score(model, scales, best, ablations, data, said)
    if data.shown is not None:
        study.maps = token_maps(model, data.shown, data.protocol, settings.images)


def _neighbours(
    studied: dict[str, DepthTokens],
    settings: StudySettings,
    candidates: Candidates,
    names: list[str],
    ids: list[int],
    said: Report,
) -> list[NeighbourTable]:
    model = studied[TOKENS]
    position, features = settings.position, candidates.features[: len(names)]
    if settings.template is not None or position is not None:
        template = settings.template or model.settings["template"]
        _, features = vocabulary_features(
            model.encoder, template, ids, position=position, context=_context(model, template),
            progress=partial(said, "encoding the vocabulary once more"),
        )  # fmt: skip
    embedding = model.clip.text.embedding.weight.detach()[ids].float()
    tables = []
    for name, one in studied.items():
        with torch.inference_mode():
            if position is None:
                own = one.text_features()
            else:
                own = F.normalize(features_at(one.encoder, one.layout, position, one.vectors()), dim=-1)
        tables.append(NeighbourTable(name, "embedding", nearest(own, features.to(own.device), names, settings.neighbours)))
        tables.append(
            NeighbourTable(name, "token", nearest(depth_vectors(one).to(embedding.device), embedding, names, settings.neighbours))
        )
    return tables


def _entries(model: DepthTokens, settings: StudySettings) -> Sequence[int] | None:
    """Ids of the vocabulary entries that may be neighbours and words; None = all."""
    if not settings.trained_vocabulary_only:
        return None
    if model.clip.name != "bundled":
        raise UsageError("--trained-vocabulary-only is for the bundled CLIP: of other CLIPs nobody knows which entries training saw")
    return [index for index, token in trained_tokens().items() if not token.startswith("<")]


def _scale_names(model: DepthTokens, settings: StudySettings) -> list[str]:
    if settings.scales is not None:
        return list(dict.fromkeys(settings.scales))
    return [name for name, words in SCALES.items() if len(words) == len(model.centres) and name != model.settings["depth"]]


def _context(model: DepthTokens, template: str) -> Tensor | None:
    """The model's learned context, for a template that has slots for it."""
    return model.tokens["context"].detach() if "context" in model.tokens and parse_template(template).contexts else None


def _check(model: DepthTokens, settings: StudySettings, data: StudyData | None) -> None:
    if settings.neighbours < 1 or settings.patches < 1 or settings.images < 0:
        raise UsageError("a study needs at least one neighbour and one patch, and no negative number of images")
    if settings.position is not None:  # fails here rather than after the vocabulary has been encoded
        with torch.inference_mode():
            features_at(model.encoder, model.layout, settings.position, model.vectors())
    if settings.template is not None:
        vocabulary_features(model.encoder, settings.template, [0], context=_context(model, settings.template))
    if data is None:
        return
    if settings.search and data.train is not None and (data.train.name, data.train.split) == (data.test.name, data.test.split):
        where = f"{data.test.name} ({data.test.split})"
        raise UsageError(f"words would be searched on the images that test them, {where}: give another split, or use --no-search")
    if len(data.test.names) < 2:
        raise UsageError(f"intervals need at least two test images, {data.test.name} ({data.test.split}) has {len(data.test.names)}")


def _notes(model: DepthTokens, data: StudyData | None) -> list[str]:
    notes = []
    if "context" in model.tokens:
        notes.append("words stand in the tokens' own template, with its learned context vectors: no one-word row is plain language alone")
    if len(model.centres) < 3:
        notes.append("two tokens are always in order, so there is no path through them to look at, and none can be removed or merged")
    if data is None:
        notes.append("without images there are no scores, no ablations, no word search and no heat maps: give --data for them")
        return notes
    if data.train is None:
        notes.append("no word search")
    if data.controls is None:
        notes.append("no training split at hand: the rows `constant` and `mean map` are missing")
    if data.shown is None:
        notes.append("the test images are not at hand, only their features: no heat maps")
    return notes
