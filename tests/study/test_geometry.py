"""Distances, paths and ablations: on shapes whose answer is known, against brute force, and against the model itself."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from depthtokens import DepthTokens, UsageError
from depthtokens.experiment.statistics import Interval
from depthtokens.study import geometry
from depthtokens.study.ablations import merged, variants
from depthtokens.study.geometry import norms, pairwise, path, spearman
from depthtokens.study.plots import ablation_chart, bars, distance_map, path_plot, token_maps

CENTRES = torch.tensor([0.7, 2.1, 3.6, 5.0, 6.4, 7.9, 9.3])


def test_distances_and_norms():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 0.0]])
    assert pairwise(vectors).tolist() == [[0, 5, 4], [5, 0, 3], [4, 3, 0]] and norms(vectors).tolist() == [5, 0, 3]


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats", reason="scipy (the h5 extra) is not installed")
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


def test_every_ablation_of_three_tokens():
    features = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.2]]), dim=1)
    centres = torch.tensor([1.0, 9.0, 3.0])
    found = {variant.name: variant for variant in variants(features, centres, words=torch.ones(3, 2))}
    assert list(found) == [
        "all", "removed 0", "removed 1", "removed 2", "merged 0+2", "merged 2+1", "replaced 0", "replaced 1", "replaced 2",
        "pair 0+1", "pair 0+2", "pair 1+2",
    ]  # fmt: skip
    assert found["removed 1"].centres.tolist() == [1, 3] and torch.equal(found["removed 1"].features, features[[0, 2]])
    assert found["merged 2+1"].centres.tolist() == [1, 6]
    assert torch.allclose(found["merged 2+1"].features[1], F.normalize(features[1] + features[2], dim=0))
    assert torch.allclose(found["replaced 2"].features[2], torch.full((2,), 0.5**0.5)) and torch.equal(found["all"].features, features)
    assert found["pair 1+2"].centres.tolist() == [9, 3]
    assert all(torch.allclose(v.features.norm(dim=1), torch.ones(len(v.features))) for v in found.values())
    assert [v.name for v in variants(features[:2], centres[:2])] == ["all"]
    assert [v.name for v in variants(features, centres, kinds=("removed",))] == ["removed 0", "removed 1", "removed 2"]
    with pytest.raises(UsageError, match="unknown ablation 'remove': did you mean 'removed'"):
        variants(features, centres, kinds=("remove",))


def test_merging_before_the_text_tower(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:3", dense="value")
    vectors = model.tokens["depth"].detach()
    found = merged(
        model.text_features().detach(), model.centres, 0, 1, vectors, lambda v: model.encoder([["This object appears to be", v]])
    )
    own = DepthTokens(tiny_clip, depth="learned:2", dense="value")
    own.tokens["depth"].data = torch.stack([vectors[:2].mean(dim=0), vectors[2]])
    assert torch.allclose(found.features, own.text_features().detach(), atol=1e-5)


def test_rows_score_as_the_model_does(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:3", dense="value", scale="40")
    patches = torch.randn(2, 64, 3, 4)
    text = model.text_features().detach()
    unchanged = variants(text, model.centres)[0].row(40.0)
    assert torch.allclose(unchanged(patches), model.depth_from(patches, text).depth, atol=1e-5)
    two = DepthTokens(tiny_clip, depth="learned:2", dense="value", scale="40", bins=model.centres[1:].tolist())
    assert torch.allclose(variants(text, model.centres)[1].row(40.0)(patches), two.depth_from(patches, text[1:]).depth, atol=1e-5)


def pixels(png):
    """RGB [H, W, 3] of a picture."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def count_of(picture, colour):
    """How many pixels of [H, W, 3] have about that colour."""
    return int((np.abs(picture - np.array(colour)).max(axis=2) <= 3).sum())


def test_bars_are_as_long_as_their_values():
    rows = {"one": 1.0, "half": 0.5, "quarter": Interval(0.25, 0.2, 0.3, 0.95, 100, 1)}
    purple = (0x7B, 0x2D, 0x8B)
    one, half, quarter = (count_of(pixels(bars(rows, "AbsRel", best=name)), purple) for name in rows)
    assert half / one == pytest.approx(0.5, abs=0.02) and quarter / one == pytest.approx(0.25, abs=0.04)  # the whisker covers some
    assert count_of(pixels(bars(rows, "AbsRel")), purple) == 0
    assert bars({"replaced 3 by $$": 0.5, "$x_": 0.2}, "AbsRel")  # entries of the vocabulary, not formulas


def test_an_ablation_chart_shows_the_extremes():
    rows = {f"removed {i}": float(i + 1) for i in range(100)}
    many, most = (pixels(ablation_chart(part, 5.0, "AbsRel")) for part in (rows, dict(list(rows.items())[:24] + list(rows.items())[76:])))
    assert many.shape == most.shape and len(pixels(ablation_chart(dict(list(rows.items())[:5]), 5.0, "AbsRel"))) < len(many) / 3
    blue, green = (0x5B, 0x7D, 0xB1), (0x69, 0xA8, 0x89)
    mixed = pixels(ablation_chart({"removed 0": 1.0, "merged 0+1": 2.0}, 1.5, "AbsRel"))
    assert count_of(mixed, green) / count_of(mixed, blue) == pytest.approx(2, rel=0.05)


def test_a_token_map_lights_up_where_its_token_speaks():
    probs = np.zeros((3, 4, 5))
    probs[0] = 1
    probs[:, 1, 2] = 0, 0, 1
    yellow, violet = (253, 231, 37), (68, 1, 84)  # the ends of viridis
    picture = pixels(token_maps(np.full((80, 100, 3), 200, np.uint8), probs, [1.0, 2.0, 3.0]))
    assert count_of(picture, yellow) / count_of(picture, violet) == pytest.approx((19 + 0 + 1) / (1 + 20 + 19), rel=0.1)


def test_distance_and_path_pictures():
    features = F.normalize(torch.randn(7, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = [f"depth_{i}" for i in range(7)]
    apart = torch.full((7, 7), 1.0).fill_diagonal_(0)
    apart[0, 1] = apart[1, 0] = 3.0
    picture = pixels(distance_map(apart, labels))
    yellow, violet = count_of(picture, (253, 231, 37)), count_of(picture, (68, 1, 84))
    assert yellow / violet == pytest.approx(20, rel=0.2)  # 40 cells of the least distance, 2 of the greatest, less their numbers
    black = count_of(pixels(path_plot(path(features, CENTRES), CENTRES, [""] * 7)), (0, 0, 3))
    assert black > 0  # the farthest token, in the dark end of the depth colours
    for many in (256, 30):
        wide = F.normalize(torch.randn(many, 16), dim=1)
        assert len(distance_map(pairwise(wide), [str(i) for i in range(many)])) > 10_000
