"""How far words can go: the best word for every bin, searched on training features, the fair upper bound for one-word language.

The search is coordinate descent that tries every candidate for one bin at a time. It is cheap because the softmax over bins, seen from
one of them, is a sigmoid: with the other bins' expected depth o and log-sum a of exponentials, a candidate of logit l in a bin of
centre c gives depth o + (c − o)·sigmoid(l − a).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..prompt.encoder import PromptEncoder
from ..prompt.scales import SCALES, Word
from ..prompt.template import parse_template
from ..prompt.tokens import word_ids
from .neighbours import Progress, vocabulary_entries, vocabulary_features

CACHE = 2**30
"""Bytes of similarities kept between passes; more are computed anew in every pass."""
TILE = 2**18
"""Similarities worked on at once, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Candidates:
    """What may stand for {depth}: names, features [V, C] float32 L2-normalised, and the hand-made scales as indices among them."""

    names: list[str]
    features: Tensor
    scales: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Step:
    """One accepted change: in the descent from start number `start`, bin `bin` took candidate `index`, which gave `score`."""

    start: int
    bin: int
    index: int
    score: float


@dataclass(frozen=True)
class Found:
    """The best words of a search: N candidate indices, bin 0 first, and their score (mean absolute relative error, less is better).

    start_scores, end_scores: of every start before and after its descent; the last ones are the random starts. history: every
    accepted change, in order. converged: whether every descent ended where no change of one word helps.
    """

    indices: tuple[int, ...]
    score: float
    start_scores: list[float]
    end_scores: list[float]
    history: list[Step]
    converged: bool


def word_candidates(
    encoder: PromptEncoder,
    template: str = "baseline",
    tokens: Sequence[str | int] | None = None,
    *,
    context: Tensor | None = None,
    scales: Mapping[str, Sequence[Word]] = SCALES,
    progress: Progress | None = None,
) -> Candidates:
    """Every vocabulary entry, or `tokens`, and behind them every phrase of the scales (the hand-made ones) that is none, in a template.

    Where `tokens` are given, phrases with other tokens in them are left out, and so are the scales that need one. Other arguments and
    errors as in `vocabulary_features`.
    """
    names, features = vocabulary_features(encoder, template, tokens, context=context, progress=progress)
    entries = vocabulary_entries(encoder.clip.tokenizer, tokens)[1]
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


def word_score(patches: Tensor, truth: Tensor, text: Tensor, centres: Tensor, scale: float) -> float:
    """Mean absolute relative error of the depths that text features [N, C] give patches [P, C] of truth [P] metres.

    centres: [N] metres. scale: factor on similarities, as `DepthTokens` applies it.
    """
    return _score(scale * (text.float() @ patches.float().T), truth.double(), centres.double())


def search_words(
    patches: Tensor,
    truth: Tensor,
    candidates: Tensor,
    starts: Sequence[Sequence[int]],
    centres: Tensor,
    scale: float,
    *,
    random_starts: int = 1,
    seed: int = 0,
    sweeps: int = 20,
    progress: Progress | None = None,
) -> Found:
    """The candidate for each bin that together give the least mean absolute relative error on patches, as far as descent finds it.

    patches [P, C] and candidates [V, C]: float32, L2-normalised as the model has them. truth [P], centres [N]: metres. starts: N
    candidate indices each; random_starts more are drawn. Each start goes down bin by bin, trying all V candidates for one bin, until
    none helps or after `sweeps` rounds. A change is taken only if it lowers the score of all patches in double precision: the result
    is at least as good as every start. progress: called with descents done and their number.
    Raises UsageError for starts of another length than centres, or none at all.
    """
    count = len(centres)
    if any(len(start) != count for start in starts) or count < 2 or not len(starts) + random_starts:
        raise UsageError(f"a search needs at least one start, each of {count} (two or more) candidates")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(candidates), (random_starts, count), generator=generator).tolist()
    table = _Similarities(candidates, patches, scale)
    descents = []
    for number, start in enumerate([*map(list, starts), *drawn]):
        descents.append(_descend(number, start, table, truth.double(), centres.double(), sweeps))
        if progress:
            progress(number + 1, len(starts) + random_starts)
    best = min(descents, key=lambda descent: descent.scores[-1])
    return Found(
        tuple(best.indices),
        best.scores[-1],
        [descent.scores[0] for descent in descents],
        [descent.scores[-1] for descent in descents],
        [step for descent in descents for step in descent.steps],
        all(descent.converged for descent in descents),
    )


@dataclass
class _Descent:
    indices: list[int]
    scores: list[float]
    steps: list[Step]
    converged: bool = False


def _descend(number: int, start: list[int], table: _Similarities, truth: Tensor, centres: Tensor, sweeps: int) -> _Descent:
    logits = table.rows(start)  # [N, P], those of the words in place
    descent = _Descent(list(start), [_score(logits, truth, centres)], [])
    unchanged = 0
    for turn in range(sweeps * len(centres)):
        k = turn % len(centres)
        others = [i for i in range(len(centres)) if i != k]
        rest = logits[others].double()
        index = int(_errors(table, rest.logsumexp(dim=0), centres[others] @ rest.softmax(dim=0), truth, centres[k]).argmin())
        trial = logits.clone()
        trial[k] = table.rows([index])[0]
        score = _score(trial, truth, centres)
        if score < descent.scores[-1]:
            logits, unchanged = trial, 0
            descent.indices[k] = index
            descent.scores.append(score)
            descent.steps.append(Step(number, k, index, score))
        else:
            unchanged += 1
        if unchanged == len(centres):
            descent.converged = True
            break
    return descent


def _errors(table: _Similarities, log_sum: Tensor, other: Tensor, truth: Tensor, centre: Tensor) -> Tensor:
    """Score [V] of every candidate for one bin of that centre, given log-sum [P] and expected depth [P] of the other bins."""
    reference, gain, offset = log_sum.float(), (centre - other).float(), (other - truth).float()
    weights = (1 / truth / len(truth)).float()
    errors = torch.empty(table.count, device=truth.device)
    for first, logits in table.tiles():
        share = torch.sub(logits, reference).sigmoid_()
        torch.addcmul(offset, gain, share, out=share)
        torch.mv(share.abs_(), weights, out=errors[first : first + len(logits)])
    return errors


def _score(logits: Tensor, truth: Tensor, centres: Tensor) -> float:
    """Mean absolute relative error from logits [N, P]; truth [P] and centres [N] in double precision."""
    depth = centres @ logits.double().softmax(dim=0)
    return float(((depth - truth).abs() / truth).mean())


class _Similarities:
    """Logits of all candidates on all patches, [V, P] float32: kept where they fit, otherwise made again a stretch at a time."""

    def __init__(self, candidates: Tensor, patches: Tensor, scale: float) -> None:
        self.candidates, self.patches, self.count = candidates.float().to(patches.device), scale * patches.float().T, len(candidates)
        self.kept = self.candidates @ self.patches if 4 * self.count * len(patches) <= CACHE else None

    def rows(self, indices: list[int]) -> Tensor:
        """[len(indices), P]."""
        return self.candidates[indices] @ self.patches if self.kept is None else self.kept[indices]

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        """Index of the first row, and rows [≤ tile, P]."""
        tile = max(1, TILE // self.patches.shape[1])
        stretch = 16 * tile  # long enough for a matrix product to be fast
        for start in range(0, self.count, stretch):
            rows = self.candidates[start : start + stretch] @ self.patches if self.kept is None else self.kept[start : start + stretch]
            for first in range(0, len(rows), tile):
                yield start + first, rows[first : first + tile]
