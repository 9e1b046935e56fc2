"""The shape of learned tokens: distances, the path through them, and whether it follows depth.

Everything here works on the text features that a CLIP made of the tokens, so it serves words and vectors alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from ..errors import UsageError

EXACT = 12
"""Up to so many tokens the shortest path is found for certain (2^N steps); beyond, by improving many paths."""
PERMUTATIONS = 9999


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation.

    Attributes:
        value: from -1 to 1.
        p_value: the share of random orders that give one as far from zero or farther (two-sided).
    """

    value: float
    p_value: float

    def to_dict(self) -> dict[str, float]:
        """As plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{self.value:.2f} ({p})"


@dataclass(frozen=True)
class Path:
    """How N tokens lie along a line.

    Attributes:
        points: [N, 3] on the principal components, fewer dimensions filled with zeros; the first is turned so that it grows with depth,
            which makes `along_first` zero or positive.
        explained: [3] share of variance.
        along_first: rank correlation of the position on the first component with depth.
        order: token indices along the shortest path through all of them, from the near end.
        along_order: rank correlation of the position on that path with depth. A path has no direction, so it is never negative, and its
            p_value counts both directions.
        pairs: rank correlation between the distance of two tokens and the difference of their log depths, over all pairs; its p_value
            exchanges whole tokens.
    """

    points: NDArray[np.float64]
    explained: NDArray[np.float64]
    along_first: Correlation
    order: tuple[int, ...]
    along_order: Correlation
    pairs: Correlation

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "points": self.points.tolist(), "explained": self.explained.tolist(), "order": list(self.order),
            "along_first": self.along_first.to_dict(), "along_order": self.along_order.to_dict(), "pairs": self.pairs.to_dict(),
        }  # fmt: skip


def pairwise(features: Tensor) -> Tensor:
    """Euclidean distances [N, N] between rows of features [N, C]."""
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


def norms(vectors: Tensor) -> Tensor:
    """Euclidean length [N] of each vector [N, width]; a new vector's is about 0.02 · sqrt(width)."""
    return vectors.float().norm(dim=1)


def path(features: Tensor, centres: Tensor) -> Path:
    """How tokens lie along a line: principal components, the shortest path through them, and how both follow depth.

    Args:
        features: [N, C], the tokens' text features.
        centres: [N] metres.

    Raises:
        UsageError: for fewer than three tokens.
    """
    table, depths = features.detach().cpu().double().numpy(), centres.detach().cpu().double().numpy()
    if len(table) < 3 or len(table) != len(depths):
        raise UsageError(f"a path needs three tokens or more, and a depth for each: these are {len(table)} and {len(depths)}")
    centred = table - table.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    points, explained = np.zeros((len(table), 3)), np.zeros(3)
    kept = min(3, len(lengths))
    points[:, :kept] = left[:, :kept] * lengths[:kept]
    explained[:kept] = lengths[:kept] ** 2 / max(float((lengths**2).sum()), 1e-300)
    along_first = _against_depth(points[:, 0], depths)
    if spearman(points[:, 0], depths) < 0:
        points[:, 0] *= -1
    distances = np.linalg.norm(table[:, None] - table[None], axis=2)
    order = _shortest_path(distances)
    place = np.argsort(order).astype(np.float64)
    if spearman(place, depths) < 0:
        order = order[::-1]
    return Path(points, explained, along_first, tuple(order), _against_depth(place, depths), _pairs(distances, depths))


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation of two lists [n], ties given their mean rank; 0 where one of them does not vary."""
    x, y = _ranks(a), _ranks(b)
    spread = float(np.sqrt((x @ x) * (y @ y)))  # scipy's own quotient rounds a perfect order to 0.9999999999999999
    return float(x @ y) / spread if spread else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ranks, less their mean."""
    ranks: NDArray[np.float64] = rankdata(values)
    return ranks - ranks.mean()


def _against_depth(positions: NDArray[np.float64], depths: NDArray[np.float64]) -> Correlation:
    """Rank correlation without its sign (a component and a path have no direction), against orders drawn at random."""
    x, y = _ranks(positions), _ranks(depths)
    drawn = np.random.default_rng(0).permuted(np.tile(x, (PERMUTATIONS, 1)), axis=1) @ y
    observed = abs(float(x @ y))
    return Correlation(abs(spearman(positions, depths)), _share(np.abs(drawn), observed))


def _pairs(distances: NDArray[np.float64], depths: NDArray[np.float64]) -> Correlation:
    """Mantel's test: distances of pairs against differences of log depth, tokens exchanged at random."""
    upper = np.triu_indices(len(depths), 1)
    ranks = np.zeros_like(distances)
    ranks[upper] = _ranks(distances[upper])
    ranks += ranks.T
    logs = np.log(depths)
    apart = np.abs(logs[:, None] - logs[None])[upper]
    y = _ranks(apart)
    generator = np.random.default_rng(0)
    most = PERMUTATIONS if len(depths) <= 64 else 999
    orders = (generator.permutation(len(depths)) for _ in range(most))
    drawn = np.array([ranks[order[upper[0]], order[upper[1]]] @ y for order in orders])
    return Correlation(spearman(distances[upper], apart), _share(np.abs(drawn), abs(float(ranks[upper] @ y))))


def _share(drawn: NDArray[np.float64], observed: float) -> float:
    """How often chance reaches what was observed; what was observed counts as one draw."""
    return float((1 + np.count_nonzero(drawn >= observed * (1 - 1e-9))) / (1 + len(drawn)))


def _shortest_path(distances: NDArray[np.float64]) -> list[int]:
    """Order of the N points along the shortest path that visits each once; both ends are free."""
    return _exact_path(distances) if len(distances) <= EXACT else _improved_path(distances)


def _exact_path(distances: NDArray[np.float64]) -> list[int]:
    """Held and Karp: the best way to visit each set of points ending in each of them."""
    count = len(distances)
    length = np.full((1 << count, count), np.inf)
    before = np.zeros((1 << count, count), dtype=np.int64)
    length[[1 << i for i in range(count)], range(count)] = 0
    for visited in range(1, 1 << count):
        inside = [i for i in range(count) if visited >> i & 1]
        for end in inside if len(inside) > 1 else []:
            ways = length[visited & ~(1 << end)] + distances[:, end]
            before[visited, end] = ways.argmin()
            length[visited, end] = ways.min()
    visited = (1 << count) - 1
    end = int(length[visited].argmin())
    order = [end]
    while len(order) < count:
        visited, end = visited & ~(1 << end), int(before[visited, end])
        order.append(end)
    return order


def _improved_path(distances: NDArray[np.float64]) -> list[int]:
    """From several first points always to the nearest one left, then turning stretches round while that shortens the path."""
    starts = np.linspace(0, len(distances) - 1, 8).round().astype(int)
    orders = [_untangled(_greedy(distances, int(start)), distances) for start in starts]
    return min(orders, key=lambda order: float(distances[order[:-1], order[1:]].sum()))


def _greedy(distances: NDArray[np.float64], start: int) -> list[int]:
    """From a first point always to the nearest one left."""
    order, left = [start], set(range(len(distances))) - {start}
    while left:
        order.append(min(left, key=lambda point: float(distances[order[-1], point])))
        left.remove(order[-1])
    return order


def _untangled(order: list[int], distances: NDArray[np.float64]) -> list[int]:
    """2-opt: turn order[i:j] round, which changes only the steps into and out of the stretch, none at a free end."""
    count = len(order)
    padded = np.zeros((count + 1, count + 1))  # a point before the first and behind the last, at no distance from any
    padded[:count, :count] = distances
    while True:
        line = np.array([count, *order, count])
        step = padded[line[:-1], line[1:]]
        # gain[i, j]: turning places i..j (1 to count) round
        old = step[:-1, None] + step[None, 1:]
        new = padded[line[:-2, None], line[None, 1:-1]] + padded[line[1:-1, None], line[None, 2:]]
        gain = np.triu(old - new, 1)
        i, j = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[i, j] <= 1e-12:
            return order
        order[i : j + 1] = order[i : j + 1][::-1]
