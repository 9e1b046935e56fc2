"""Where depth bins lie, however they are given; and what is no layout of bins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depthtokens import DepthTokens, UsageError
from depthtokens.depth.bins import bin_centres
from depthtokens.depth.settings import ModelSettings

NYU = (0.001, 10.0)


def test_bins():
    assert bin_centres("linear:4", 4, (0.5, 4.5)) == pytest.approx((1.0, 2.0, 3.0, 4.0))
    assert bin_centres("log", 2, (1.0, 16.0)) == pytest.approx((2.0, 8.0))
    assert bin_centres("const80", 7, NYU) == pytest.approx(bin_centres("log", 7, (0.001, 80.0)))
    assert bin_centres("depthclip", 7, NYU) == (1.0, 1.5, 2.0, 2.25, 2.5, 2.75, 3.0)
    assert bin_centres("1|1.5|2", 3, NYU) == bin_centres([1, 1.5, 2], 3, NYU) == (1.0, 1.5, 2.0)


@given(st.integers(2, 300), st.floats(1e-3, 1), st.floats(2, 100), st.sampled_from(["linear", "log"]))
def test_bins_lie_inside_the_range_in_order(count, lo, hi, name):
    centres = bin_centres(f"{name}:{count}", count, (lo, hi))
    assert len(centres) == count and lo < centres[0] and centres[-1] < hi
    steps = [math.log(c) if name == "log" else c for c in centres]
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert min(gaps) > 0 and max(gaps) == pytest.approx(min(gaps), rel=1e-6)


@pytest.mark.parametrize(("spec", "count", "message"), [
    ("linar:7", 7, "did you mean 'linear'"), ("linear:7", 8, "8 depth words or tokens need 8 bins"), ("log:x", 7, "write a count"),
    ("1|2|30", 3, "outside the depth range"), ("1|b", 2, "centres are numbers"), ([1, 2, 3], 7, "makes 3"),
    ("3|2|1", 3, "must increase.*2 m follows 3 m"), ([1, 2, 2], 3, "must increase.*2 m follows 2 m"), ("1|nan|3", 3, "not a number"),
    (np.array([1.0, np.nan]), 2, "not a number"),
    ([1, math.inf], 2, "outside the depth range"), (np.zeros((2, 2)), 2, "centres are numbers"),
    (np.linspace(1, 2, 200), 7, "makes 200"), (None, 7, "centres are numbers"), (5, 7, "centres are numbers"),
    ([None, 1], 2, "centres are numbers"),
    ("linear", 0, "at least one"),
])  # fmt: skip
def test_bad_bins(spec, count, message):
    with pytest.raises(UsageError, match=message) as caught:
        bin_centres(spec, count, NYU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "depth_range", [(10.0, 1.0), (1.0, 1.0), (0.0, 10.0), (-1.0, 10.0), (1.0, math.inf), (math.nan, 10.0), (1.0, math.nan)]
)
def test_ranges_that_are_none(depth_range):
    with pytest.raises(UsageError, match="needs 0 < lo < hi"):
        bin_centres("linear", 7, depth_range)
    for other in (("1", "b"), (1.0,), (1.0, 2.0, 3.0), 10.0, None):
        with pytest.raises(UsageError, match="two numbers"):
            bin_centres("linear", 7, other)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, tuple, iter, lambda values: np.asarray(values, np.float32)])
def test_centres_of_any_kind_of_list(kind):
    values = np.linspace(1, 3, 5).tolist()
    centres = bin_centres(kind(values), 5, (np.float32(0.5), np.float64(4)))
    assert centres == (1.0, 1.5, 2.0, 2.5, 3.0) and all(type(centre) is float for centre in centres)
    assert bin_centres(np.str_("linear"), np.int64(4), NYU) == bin_centres("linear", 4, NYU)


def test_numbers_of_numpy_are_kept_as_plain_ones(tiny_clip, tmp_path):
    """A model takes them, and its file can be written and read."""
    model = DepthTokens(
        tiny_clip, depth=np.str_("learned:5"), bins=np.linspace(1, 3, 5), scale=np.float32(50), seed=np.int64(3),
        depth_range=(np.float32(0.5), np.float32(8)), init=np.array(["a", "b", "c", "d", "e"]), predict_side=np.int64(64),
    )  # fmt: skip
    model.save(tmp_path / "tokens.safetensors")
    found = DepthTokens.load(tmp_path / "tokens.safetensors", tiny_clip).settings
    assert found == model.settings and found.centres == (1.0, 1.5, 2.0, 2.5, 3.0) and found.scale == 50 and found.init == "a|b|c|d|e"
    assert {type(found.seed), type(found.predict_side)} == {int} and type(model.settings.scale) is float
    assert ModelSettings(bins=np.linspace(1, 3, 7)).bins == ModelSettings(bins=np.linspace(1, 3, 7).tolist()).bins
    for arguments, message in (({"depth": ["a|b", "c"]}, "stands between words"), ({"scale": None}, "logit scale"),
                               ({"bins": [[1, 2], [3]]}, "a list of words or of numbers")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            DepthTokens(tiny_clip, **arguments)
