"""Which words lie near what was learned: distances from a model's depth words to the whole vocabulary (paper, table 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.model import DepthTokens
from ..errors import UsageError, unknown
from ..progress import Progress, silent
from ..prompt.tokens import vectors_from_words
from .vocabulary import features_at, vocabulary_entries, vocabulary_features

EMBEDDING, TOKEN = SPACES = ("embedding", "token")
"""Where distances are measured: between whole sentences as the text tower gives them, or between what is put into the sentence."""


@dataclass(frozen=True)
class Neighbour:
    """Something near a depth word.

    Attributes:
        name: of a vocabulary entry, or "{depth_3}" for another depth word of the same model.
        distance: Euclidean.
    """

    name: str
    distance: float


@dataclass(frozen=True)
class NeighbourTable:
    """The nearest neighbours of each of N depth words.

    Attributes:
        words: whose neighbours they are: "tokens", or a scale's name.
        space: one of `SPACES`.
        rows: N lists, each with the nearest first.
    """

    words: str
    space: str
    rows: list[list[Neighbour]]


def nearest_words(
    model: DepthTokens,
    vocabulary: Sequence[str | int] | None = None,
    count: int = 5,
    template: str = "baseline",
    chunk: int = 512,
    *,
    space: str = EMBEDDING,
    position: int | None = None,
    progress: Progress = silent,
) -> list[list[Neighbour]]:
    """The nearest neighbours of each of a model's N depth words, learned, random or human.

    Args:
        model: the model, whose depth words are neighbours of each other too.
        vocabulary: candidates, as in `vocabulary_entries`; None for the whole vocabulary.
        count: neighbours of each depth word.
        template: the sentence that candidates are put into.
        chunk: prompts encoded at a time.
        space: "embedding": sentences are embedded, L2-normalised, and compared with the model's own text features, as in the paper.
            "token": the vectors that stand for {depth} are compared with the rows of the token embedding, before any sentence (a phrase
            counts as the mean of its tokens).
        position: read every prompt there instead of at end-of-text, see `features_at`.
        progress: called as the vocabulary is encoded.

    Returns:
        N lists, each with the nearest first.

    Raises:
        UsageError: for another space, or a position in the space of tokens.
    """
    if space not in SPACES:
        raise unknown("space of neighbours", space, SPACES)
    if space == TOKEN:
        if position is not None:
            raise UsageError("a position is where a sentence is read: the space of tokens has none")
        names, ids = vocabulary_entries(model.clip, vocabulary)
        return nearest_tokens(model, ids, names, count)
    own = depth_features(model, position)
    names, features = vocabulary_features(model.encoder, template, vocabulary, chunk, position, progress=progress)
    return nearest(own, features, names, count)


def neighbour_tables(
    studied: Mapping[str, DepthTokens], ids: Sequence[int], names: Sequence[str], features: Tensor, count: int, position: int | None = None
) -> list[NeighbourTable]:
    """Tables of neighbours, in both spaces, of several models of one CLIP.

    Args:
        studied: the models, by the names of their words.
        ids: of the V vocabulary entries that may be neighbours.
        names: of those entries.
        features: [V, C], those entries in a sentence, L2-normalised; read at `position` if one is given.
        count: neighbours of each depth word.
        position: where the models' own sentences are read; None is end-of-text.
    """
    tables = []
    for words, model in studied.items():
        tables.append(NeighbourTable(words, EMBEDDING, nearest(depth_features(model, position), features, names, count)))
        tables.append(NeighbourTable(words, TOKEN, nearest_tokens(model, ids, names, count)))
    return tables


def nearest_tokens(model: DepthTokens, ids: Sequence[int], names: Sequence[str], count: int) -> list[list[Neighbour]]:
    """The nearest of each of a model's depth vectors among the token embeddings of `ids`, called by `names`, and its other vectors."""
    table = embeddings(model, ids)
    return nearest(depth_vectors(model).to(table.device), table, names, count)


def nearest(own: Tensor, others: Tensor, names: Sequence[str], count: int) -> list[list[Neighbour]]:
    """The nearest of each row, among other rows and the rest of its own table.

    Args:
        own: [N, C]; its rows are called "{depth_i}".
        others: [V, C].
        names: of the others.
        count: neighbours of each row.
    """
    with torch.inference_mode():
        # Matrix products would leave equal rows some 1e-3 apart, and 0.000 is what a reader of this table looks for
        distances = torch.cdist(own, torch.cat([own, others.to(own.device)]), compute_mode="donot_use_mm_for_euclid_dist")
        distances.fill_diagonal_(float("inf"))  # a depth word is not its own neighbour
        values, order = distances.topk(min(count, distances.shape[1] - 1), largest=False)
    called = [*(f"{{depth_{i}}}" for i in range(len(own))), *names]
    return [[Neighbour(called[j], d) for d, j in zip(*row, strict=True)] for row in zip(values.tolist(), order.tolist(), strict=True)]


def depth_features(model: DepthTokens, position: int | None = None) -> Tensor:
    """What the text tower makes of a model's N sentences: [N, C], L2-normalised, without gradient.

    Args:
        model: the model.
        position: read them there instead of at end-of-text. Raises as `features_at`.
    """
    with torch.inference_mode():
        if position is None:
            return model.text_features()
        return F.normalize(features_at(model.encoder, model.layout, position, model.vectors()), dim=-1)


def depth_vectors(model: DepthTokens) -> Tensor:
    """What stands for {depth} before the text tower: [N, width] float32, for words the mean of their token embeddings."""
    if "depth" in model.tokens:
        return model.vectors().detach()[-len(model.centres) :].float()  # context vectors come first
    return vectors_from_words(model.clip, model.settings.words.words, len(model.words))


def embeddings(model: DepthTokens, ids: Sequence[int]) -> Tensor:
    """Token embeddings [V, width] float32 of vocabulary entries, by their ids."""
    return model.clip.text.lookup(ids).float()
