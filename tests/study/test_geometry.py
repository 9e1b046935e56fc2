"""Distances and paths: on shapes whose answer is known, and against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from depthtokens import UsageError
from depthtokens.study import geometry
from depthtokens.study.geometry import norms, pairwise, path, spearman

CENTRES = torch.tensor([0.7, 2.1, 3.6, 5.0, 6.4, 7.9, 9.3])


def test_distances_and_norms():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 0.0]])
    assert pairwise(vectors).tolist() == [[0, 5, 4], [5, 0, 3], [4, 3, 0]] and norms(vectors).tolist() == [5, 0, 3]


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 12).astype(float), rng.integers(0, 6, 12).astype(float)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(np.ones(4), np.arange(4.0)) == 0


def test_a_bent_line_in_order_of_depth():
    """Seven points on a half circle in 20 dimensions: one path in order of depth, and two components explain all."""
    angle = torch.linspace(0, 3.0, 7)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(0)))[0]
    flat = torch.zeros(7, 20)
    flat[:, 0], flat[:, 1] = angle.cos(), angle.sin()
    found = path(flat @ turn, CENTRES)
    assert found.order == tuple(range(7)) and found.along_order.value == pytest.approx(1) and found.along_order.p_value < 0.005
    assert found.along_first.value == pytest.approx(1) and (np.diff(found.points[:, 0]) > 0).all()
    assert found.explained[:2].sum() == pytest.approx(1) and found.explained[0] > found.explained[1]
    assert found.pairs.value > 0.5 and found.pairs.p_value < 0.05
    assert np.linalg.norm(found.points[0] - found.points[6]) == pytest.approx((flat[0] - flat[6]).norm().item(), rel=1e-5)
    far_first = path((flat @ turn).flip(0), CENTRES)
    assert far_first.order == tuple(range(7)) and (np.diff(far_first.points[:, 0]) > 0).all()


def test_chance_is_called_chance():
    """p-values of points without any order are spread evenly: about a tenth below 0.1."""
    generator = torch.Generator().manual_seed(1)
    found = [path(torch.randn(7, 16, generator=generator), CENTRES) for _ in range(40)]
    for p_values in ([f.along_first.p_value for f in found], [f.along_order.p_value for f in found], [f.pairs.p_value for f in found]):
        assert 0.3 < np.mean(p_values) < 0.75 and np.mean(np.array(p_values) < 0.1) <= 0.25


@pytest.mark.parametrize("seed", range(4))
def test_the_shortest_path_is_the_shortest(seed):
    points = np.random.default_rng(seed).normal(size=(6, 3))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)

    def length(order):
        return sum(distances[a, b] for a, b in itertools.pairwise(order))

    shortest = min(map(length, itertools.permutations(range(6))))
    assert length(geometry._exact_path(distances)) == pytest.approx(shortest)
    improved = geometry._improved_path(distances)
    assert sorted(improved) == list(range(6)) and length(improved) <= 1.1 * shortest


def test_many_tokens_along_a_line():
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    centres = torch.linspace(0.1, 10, 60)
    points = torch.zeros(60, 4)
    points[:, 2] = centres
    found = path(points[order], centres[order])
    assert list(found.order) == order.argsort().tolist() and found.pairs.value > 0.5
    with pytest.raises(UsageError, match="three tokens or more"):
        path(points[:2], centres[:2])
