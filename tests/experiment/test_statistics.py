"""Intervals: coverage on data whose mean is known, equality with scipy, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthtokens import UsageError
from depthtokens.experiment import statistics
from depthtokens.experiment.statistics import bootstrap_mean, mean_std, paired_bootstrap

# Multiples of 1/64, so that sums and differences are exact and an invariance holds to rounding alone
NUMBERS = st.lists(st.integers(-640, 640).map(lambda k: k / 64), min_size=3, max_size=30)


def test_mean_and_spread_over_seeds():
    found = mean_std([0.30, 0.32, 0.34])
    assert found.mean == pytest.approx(0.32) and found.std == pytest.approx(0.02) and found.count == 3
    alone = mean_std([0.5])
    assert alone.std is None and str(alone) == "0.500"
    for wrong in ([], [1.0, float("nan")]):
        with pytest.raises(UsageError, match="one finite number per seed"):
            mean_std(wrong)


@pytest.mark.parametrize(("draw", "mean"), [("normal", 0.0), ("exponential", 1.0)])
def test_intervals_hold_the_mean_as_often_as_they_say(draw, mean):
    """600 made-up test sets of 60 images: coverage within four standard errors of 90 %, less 1 % that BCa lacks for skewed data."""
    rng = np.random.default_rng(7)
    sets = getattr(rng, draw)(size=(600, 60))
    inside = [low.low <= mean <= low.high for low in (bootstrap_mean(row, samples=400, level=0.9, seed=i) for i, row in enumerate(sets))]
    error = (0.9 * 0.1 / 600) ** 0.5
    assert 0.89 - 4 * error < np.mean(inside) < 0.90 + 4 * error


def test_pairing_sees_through_the_images():
    """Images differ far more than rows do: only the paired interval can tell the rows apart."""
    rng = np.random.default_rng(0)
    hardness = rng.exponential(1.0, 100)
    a, b = hardness + rng.normal(0, 0.05, 100), hardness + 0.1 + rng.normal(0, 0.05, 100)
    found = paired_bootstrap(a, b)
    assert found.clear and found.high < 0 and found.low < -0.1 < found.high + 0.02
    assert not paired_bootstrap(a, rng.permutation(b)).clear
    same = paired_bootstrap(a, a)
    assert (same.mean, same.low, same.high, same.clear) == (0, 0, 0, False)


def test_no_difference_is_called_clear_as_often_as_allowed():
    rng = np.random.default_rng(3)
    clear = [paired_bootstrap(*rng.normal(size=(2, 80)), samples=400, seed=i).clear for i in range(400)]
    assert 0.01 < np.mean(clear) < 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5


@pytest.mark.parametrize("values", [np.random.default_rng(1).gamma(2.0, 1.0, 200), np.random.default_rng(2).normal(5, 2, 40)])
def test_equal_to_scipys(values):
    stats = pytest.importorskip("scipy.stats", reason="scipy (the h5 extra) is not installed")
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(5)).confidence_interval
    ours = bootstrap_mean(values, samples=20000)
    tolerance = 0.06 * (theirs.high - theirs.low)  # Monte Carlo: a quantile of 20,000 resamples is good to about 1.5 % of the width
    assert abs(ours.low - theirs.low) < tolerance and abs(ours.high - theirs.high) < tolerance


def test_seeds_are_averaged_per_image_and_told_apart():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(3, 50)), rng.normal(size=50)
    found, flat = paired_bootstrap(a, b), paired_bootstrap(a.mean(axis=0), b)
    assert (found.low, found.high) == (flat.low, flat.high)
    assert (found.seeds, found.seeds_b, flat.seeds, found.images) == (3, 1, 1, 50)
    assert found.seed_std == pytest.approx(a.mean(axis=1).std(ddof=1) / 3**0.5) and flat.seed_std is None
    drifting = a + np.array([[0.0], [0.3], [0.6]])
    spread = a.mean(axis=1).var(ddof=1) + drifting.mean(axis=1).var(ddof=1)
    assert paired_bootstrap(a, drifting).seed_std == pytest.approx((spread / 3) ** 0.5)


@settings(deadline=None, max_examples=40)
@given(a=NUMBERS, shift=st.integers(-64, 64), factor=st.sampled_from([0.5, 2.0, 4.0]))
def test_units_and_offsets_move_the_interval_along(a, shift, factor):
    plain, moved = bootstrap_mean(a, samples=200), bootstrap_mean(factor * np.array(a) + shift, samples=200)
    assert moved.low == pytest.approx(factor * plain.low + shift, abs=1e-9)
    assert moved.high == pytest.approx(factor * plain.high + shift, abs=1e-9)
    assert min(a) - 1e-9 <= plain.low <= plain.high <= max(a) + 1e-9


@settings(deadline=None, max_examples=40)
@given(pairs=st.lists(st.tuples(st.integers(-64, 64), st.integers(-64, 64)), min_size=3, max_size=30), level=st.sampled_from([0.5, 0.8]))
def test_swapping_rows_mirrors_the_interval(pairs, level):
    a, b = np.array(pairs, dtype=float).T
    one, other = (paired_bootstrap(*rows, samples=200, level=level) for rows in ((a, b), (b, a)))
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low), abs=1e-9)
    wider = paired_bootstrap(a, b, samples=200, level=0.95)
    assert wider.low <= one.low + 1e-9 and one.high <= wider.high + 1e-9


def test_pieces_are_those_of_one_draw(monkeypatch):
    values = np.random.default_rng(6).normal(size=37)
    whole = bootstrap_mean(values)
    monkeypatch.setattr(statistics, "AT_ONCE", 1000)
    assert bootstrap_mean(values) == whole
    assert bootstrap_mean(values, seed=1) != whole


def test_what_cannot_be_had_is_said():
    with pytest.raises(UsageError, match="at least two images"):
        bootstrap_mean([1.0])
    with pytest.raises(UsageError, match="finite values"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(UsageError, match="one has 3 images, the other 2"):
        paired_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(UsageError, match="level between 0 and 1"):
        bootstrap_mean([1.0, 2.0], level=95)
    assert str(paired_bootstrap([1.0, 1.0], [2.0, 2.0])) == "-1.000 [-1.000, -1.000]"
