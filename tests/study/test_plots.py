"""Pictures show what they are given: lengths, colours, extremes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from depthtokens.experiment.statistics import Interval
from depthtokens.study.geometry import pairwise, path
from depthtokens.study.plots import ablation_chart, bars, distance_map, map_plot, path_plot

CENTRES = torch.tensor([0.7, 2.1, 3.6, 5.0, 6.4, 7.9, 9.3])


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
    mixed = pixels(ablation_chart({"removed 0": 1.0, "merged 0+1": 2.0}, 1.5, "AbsRel", kinds=["removed", "merged"]))
    assert count_of(mixed, green) / count_of(mixed, blue) == pytest.approx(2, rel=0.05)


def test_a_token_map_lights_up_where_its_token_speaks():
    probs = np.zeros((3, 4, 5))
    probs[0] = 1
    probs[:, 1, 2] = 0, 0, 1
    yellow, violet = (253, 231, 37), (68, 1, 84)  # the ends of viridis
    picture = pixels(map_plot(np.full((80, 100, 3), 200, np.uint8), probs, [1.0, 2.0, 3.0]))
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
