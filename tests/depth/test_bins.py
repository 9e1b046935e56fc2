"""Depth bins: the paper's numbers, any range, and layouts that are refused."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthtokens import UsageError
from depthtokens.depth.bins import bin_centres

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
])  # fmt: skip
def test_bad_bins(spec, count, message):
    with pytest.raises(UsageError, match=message):
        bin_centres(spec, count, NYU)
    with pytest.raises(UsageError, match="needs 0 < lo < hi"):
        bin_centres("linear", 7, (10.0, 1.0))
