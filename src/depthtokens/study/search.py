"""The best word for every bin, searched on patches: coordinate descent that tries every candidate for one bin at a time.

It is cheap because the softmax over bins, seen from one of them, is a sigmoid: with the other bins' expected depth o and log-sum a of
exponentials, a candidate of logit l in a bin of centre c gives depth o + (c − o)·sigmoid(l − a).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from ..progress import Progress, silent

CACHE = 2**30
"""Bytes of similarities kept between passes; more are computed anew in every pass."""
TILE = 2**18
"""Similarities worked on at once, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Step:
    """One accepted change.

    Attributes:
        start: number of the start that this descent began from.
        bin: that took another candidate.
        index: of that candidate.
        score: after it.
    """

    start: int
    bin: int
    index: int
    score: float


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        indices: N candidates, bin 0 first.
        score: theirs, the mean absolute relative error; less is better.
        start_scores, end_scores: of every start, before and after its descent; the last ones are the random starts.
        history: every accepted change, in order.
        converged: whether every descent ended where no change of one word helps.
    """

    indices: tuple[int, ...]
    score: float
    start_scores: list[float]
    end_scores: list[float]
    history: list[Step]
    converged: bool


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
    progress: Progress = silent,
) -> Found:
    """The candidate for each bin that together give the least mean absolute relative error on patches, as far as descent finds it.

    Each start goes down bin by bin, trying all candidates for one bin, until none helps. A change is taken only if it lowers the score
    of all patches in double precision: the result is at least as good as every start.

    Args:
        patches: [P, C] float32, L2-normalised as the model has them.
        truth: [P] metres.
        candidates: [V, C] float32, L2-normalised.
        starts: N candidates each, as indices.
        centres: [N] metres.
        scale: factor on similarities, as `DepthTokens` applies it.
        random_starts: how many starts are drawn beside those given.
        seed: of those.
        sweeps: rounds over all bins at most, for each start.
        progress: called after each descent.

    Raises:
        UsageError: for starts of another length than centres, or none at all.
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
        progress("searching words", number + 1, len(starts) + random_starts)
    best = min(descents, key=lambda descent: descent.scores[-1])
    return Found(
        tuple(best.indices),
        best.scores[-1],
        [descent.scores[0] for descent in descents],
        [descent.scores[-1] for descent in descents],
        [step for descent in descents for step in descent.steps],
        all(descent.converged for descent in descents),
    )


def word_score(patches: Tensor, truth: Tensor, text: Tensor, centres: Tensor, scale: float) -> float:
    """Mean absolute relative error of the depths that sentences give patches.

    Args:
        patches: [P, C].
        truth: [P] metres.
        text: [N, C], the sentences' text features.
        centres: [N] metres.
        scale: factor on similarities, as `DepthTokens` applies it.
    """
    return _score(scale * (text.float() @ patches.float().T), truth.double(), centres.double())


@dataclass
class _Descent:
    """The way down from one start: where it is, the scores on the way, and every step."""

    indices: list[int]
    scores: list[float]
    steps: list[Step]
    converged: bool = False


def _descend(number: int, start: list[int], table: _Similarities, truth: Tensor, centres: Tensor, sweeps: int) -> _Descent:
    """Go down from one start, bin after bin."""
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
