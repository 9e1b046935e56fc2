"""The best word for every bin, searched on patches: coordinate descent that tries every candidate for one bin at a time.

It is cheap because the softmax over bins, seen from one of them, is a sigmoid: with the other bins' expected depth o and log-sum a of
exponentials, a candidate of logit l in a bin of centre c gives depth o + (c − o)·sigmoid(l − a).

`search` goes down in whatever it may choose from: all of a table of words, or phrases, see `phrases`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

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
        ends: the candidates of every start after its descent.
    """

    indices: tuple[int, ...]
    score: float
    start_scores: list[float]
    end_scores: list[float]
    history: list[Step]
    converged: bool
    ends: list[tuple[int, ...]]


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
    drawn = drawn_at_random(len(candidates), random_starts, len(centres), seed)
    return search(Words(candidates, patches, scale), truth, [*starts, *drawn], centres, sweeps=sweeps, progress=progress)


def drawn_at_random(choices: int, rows: int, columns: int, seed: int) -> list[list[int]]:
    """Indices below `choices`."""
    drawn: list[list[int]] = torch.randint(choices, (rows, columns), generator=torch.Generator().manual_seed(seed)).tolist()
    return drawn


class Choices(Protocol):
    """What a bin may take, and how that is searched.

    Attributes:
        changes: how many kinds of change to a bin there are.
    """

    changes: int

    def rows(self, indices: list[int]) -> Tensor:
        """Logits [len(indices), P] of candidates."""
        ...

    def best(self, index: int, change: int, others: Others) -> int | None:
        """The best candidate that a change makes of another; None where the change does not apply.

        Args:
            index: the candidate in place.
            change: which kind, from 0.
            others: the bin as the other bins leave it.
        """
        ...


def search(
    choices: Choices,
    truth: Tensor,
    starts: Sequence[Sequence[int]],
    centres: Tensor,
    *,
    sweeps: int = 20,
    seconds: float = math.inf,
    progress: Progress = silent,
) -> Found:
    """`search_words` in what is at choice: the same descent, whatever changes that offers.

    Every start has an equal share of the seconds that are left as it begins. Where no share runs out, the same input gives the same
    result; where one does, the descent stops between two changes, and the history says which it had made.

    Args:
        choices: what a bin may take.
        truth: [P] metres.
        starts: N candidates each, as indices.
        centres: [N] metres.
        sweeps: rounds over all bins and changes at most, for each start.
        seconds: for all starts together.
        progress: called after each descent.

    Raises:
        UsageError: as `search_words`.
    """
    count = len(centres)
    if any(len(start) != count for start in starts) or count < 2 or not starts:
        raise UsageError(f"a search needs at least one start, each of {count} (two or more) candidates")
    deadline = time.monotonic() + seconds
    descents = []
    for number, start in enumerate(starts):
        now = time.monotonic()
        until = now + (deadline - now) / (len(starts) - number)
        descents.append(_descend(number, list(start), choices, truth.double(), centres.double(), sweeps, until))
        progress("searching words", number + 1, len(starts))
    best = min(descents, key=lambda descent: descent.scores[-1])
    return Found(
        tuple(best.indices),
        best.scores[-1],
        [descent.scores[0] for descent in descents],
        [descent.scores[-1] for descent in descents],
        [step for descent in descents for step in descent.steps],
        all(descent.converged for descent in descents),
        [tuple(descent.indices) for descent in descents],
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


def _descend(number: int, start: list[int], choices: Choices, truth: Tensor, centres: Tensor, sweeps: int, until: float) -> _Descent:
    """Go down from one start, bin after bin, change after change."""
    logits = choices.rows(start)  # [N, P], those of the words in place
    descent = _Descent(list(start), [_score(logits, truth, centres)], [])
    count, unchanged = len(centres), 0
    for turn in range(sweeps * choices.changes * count):
        if time.monotonic() > until:
            break
        k = turn % count
        index = choices.best(descent.indices[k], turn // count % choices.changes, Others.of(logits, k, truth, centres))
        score = math.inf
        if index is not None:
            trial = logits.clone()
            trial[k] = choices.rows([index])[0]
            score = _score(trial, truth, centres)
        if index is not None and score < descent.scores[-1]:
            logits, unchanged = trial, 0
            descent.indices[k] = index
            descent.scores.append(score)
            descent.steps.append(Step(number, k, index, score))
        else:
            unchanged += 1
        if unchanged == count * choices.changes:
            descent.converged = True
            break
    return descent


@dataclass(frozen=True)
class Others:
    """One bin as the other bins leave it: all that a candidate for it is judged by.

    Attributes:
        reference: [P], log-sum of exponentials of the others' logits.
        gain: [P] metres, the bin's centre less the others' expected depth.
        offset: [P] metres, that depth less the truth.
        weights: [P], 1 / truth / P.
    """

    reference: Tensor
    gain: Tensor
    offset: Tensor
    weights: Tensor

    @classmethod
    def of(cls, logits: Tensor, k: int, truth: Tensor, centres: Tensor) -> Others:
        """From all bins' logits [N, P], for bin k; truth [P] and centres [N] in double precision."""
        others = [i for i in range(len(centres)) if i != k]
        rest = logits[others].double()
        depth = centres[others] @ rest.softmax(dim=0)
        weights = (1 / truth / len(truth)).float()
        return cls(rest.logsumexp(dim=0).float(), (centres[k] - depth).float(), (depth - truth).float(), weights)

    def errors(self, logits: Tensor) -> Tensor:
        """Score [n] of candidates for the bin, from their logits [n, P]; differentiable."""
        share = torch.sub(logits, self.reference).sigmoid_()
        return torch.mv(torch.addcmul(self.offset, self.gain, share).abs_(), self.weights)


def _score(logits: Tensor, truth: Tensor, centres: Tensor) -> float:
    """Mean absolute relative error from logits [N, P]; truth [P] and centres [N] in double precision."""
    depth = centres @ logits.double().softmax(dim=0)
    return float(((depth - truth).abs() / truth).mean())


class Words:
    """A table of candidates: any may take a bin, and all are tried.

    Their logits on all patches, [V, P] float32, are kept where they fit, otherwise made again a stretch at a time.

    Attributes:
        candidates: [V, C].
        count: V.
        patches: [C, P], scaled.
    """

    changes = 1

    def __init__(self, candidates: Tensor, patches: Tensor, scale: float) -> None:
        self.candidates, self.patches, self.count = candidates.float().to(patches.device), scale * patches.float().T, len(candidates)
        self.kept = self.candidates @ self.patches if 4 * self.count * len(patches) <= CACHE else None

    def rows(self, indices: list[int]) -> Tensor:
        """Logits [len(indices), P]."""
        return self.candidates[indices] @ self.patches if self.kept is None else self.kept[indices]

    def best(self, index: int, change: int, others: Others) -> int:
        """The best candidate of all, whatever is in place."""
        errors = torch.empty(self.count, device=self.patches.device)
        for first, logits in self._tiles():
            errors[first : first + len(logits)] = others.errors(logits)
        return int(errors.argmin())

    def _tiles(self) -> Iterator[tuple[int, Tensor]]:
        """Index of the first row, and rows [≤ tile, P]."""
        tile = max(1, TILE // self.patches.shape[1])
        stretch = 16 * tile  # long enough for a matrix product to be fast
        for start in range(0, self.count, stretch):
            rows = self.candidates[start : start + stretch] @ self.patches if self.kept is None else self.kept[start : start + stretch]
            for first in range(0, len(rows), tile):
                yield start + first, rows[first : first + tile]
