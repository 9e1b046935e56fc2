"""Results: figures of runs and images, what follows from them, and how files keep them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from depthtokens.depth.metrics import METRICS
from depthtokens.depth.protocol import find_protocol
from depthtokens.errors import UsageError
from depthtokens.experiment.evaluate import Scores
from depthtokens.experiment.result import Result
from depthtokens.experiment.statistics import bootstrap_mean, mean_std, paired_bootstrap

NAMES = ["a", "b", "c", "d"]


def scores(seed, protocol="auty2023", names=NAMES):
    """Made-up scores of one run, whose image-wise and pixel-wise figures differ."""
    rng = np.random.default_rng(seed)
    per_image = [{"name": name, **{metric: float(rng.uniform(0.1, 0.9)) for metric in METRICS}} for name in names]
    image_wise = {metric: float(np.mean([row[metric] for row in per_image])) for metric in METRICS}
    return Scores(find_protocol(protocol), (0.001, 10.0), image_wise, dict.fromkeys(METRICS, 2.0 + seed), per_image, [])


def test_shown_and_as_csv(tmp_path):
    result = Result.of([scores(0), scores(1)], seeds=[3, 4])
    lines = repr(result).splitlines()
    assert lines[0] == "Result of 2 runs on 4 images" and len(lines) == 1 + len(METRICS)
    assert str(result.measured("abs_rel")) in repr(result) and "<table>" in result._repr_html_()
    rows = list(csv.DictReader(result.to_csv(tmp_path / "result.csv").splitlines()))
    assert [(row["seed"], row["name"]) for row in rows] == [(seed, name) for seed in "34" for name in NAMES]
    assert float(rows[5]["abs_rel"]) == result.images["abs_rel"][1][1]
    assert (tmp_path / "result.csv").read_text() == result.to_csv()


def test_figures_of_runs_and_images():
    runs = [scores(0), scores(1)]
    result = Result.of(runs, seeds=[3, 4], parameters=3584, minutes=1.5)
    assert (result.seeds, result.parameters, result.minutes, result.names) == ([3, 4], 3584, 1.5, NAMES)
    for metric in METRICS:
        values = [run.image_wise[metric] for run in runs]
        images = [[row[metric] for row in run.per_image] for run in runs]
        assert result.scores[metric] == values and result.images[metric] == images
        assert result.measured(metric) == mean_std(values) and result.score(metric) == result.measured(metric).mean
        assert result.interval(metric) == bootstrap_mean(images) and result.interval(metric) is result.interval(metric)
        assert result.interval(metric).seeds == 2 and result.interval(metric).images == 4


def test_one_run_has_no_spread():
    result = Result.of([scores(0)])
    assert result.seeds == [0] and result.measured("abs_rel").std is None and result.measured("abs_rel").count == 1


def test_the_protocol_decides_what_is_quoted():
    assert Result.of([scores(5, "pooled")]).scores["rmse"] == [7.0]


def test_figures_of_images_are_rounded_where_asked():
    exact, kept = Result.of([scores(0)]), Result.of([scores(0)], digits=3)
    assert kept.scores == exact.scores
    for one, other in zip(kept.images["abs_rel"][0], exact.images["abs_rel"][0], strict=True):
        assert one != other and one == float(f"{other:.3g}")


def test_differences_are_paired_and_between_the_same_images_only():
    one, other = Result.of([scores(0), scores(1)], seeds=[0, 1]), Result.of([scores(2)])
    difference = one.minus(other, "abs_rel")
    assert difference == paired_bootstrap(one.images["abs_rel"], other.images["abs_rel"])
    assert difference.mean == pytest.approx(one.score("abs_rel") - other.score("abs_rel"))
    assert (difference.seeds, difference.seeds_b) == (2, 1)
    assert one.minus(Result.of([scores(2, names=["a", "b", "c", "e"])]), "abs_rel") is None
    assert one.minus(Result.of([scores(2, names=NAMES[::-1])]), "abs_rel") is None


def test_to_json_and_back():
    result = Result.of([scores(0), scores(1)], seeds=[0, 1], parameters=7, minutes=0.25)
    result.interval("abs_rel")  # what was computed from the figures is not kept with them
    values = json.loads(json.dumps(result.to_dict()))
    assert list(values) == ["seeds", "parameters", "scores", "images", "names", "minutes"]
    assert Result.from_dict(values) == result
    del values["minutes"]
    assert Result.from_dict(values).minutes == 0.0


def change(values, *keys, to):
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = to


@pytest.mark.parametrize(("keys", "to", "message"), [
    (("scores", "abs_rel"), [0.1], "the figures of abs_rel are not 2 runs over 4 images"),
    (("images", "rmse"), [[0.1] * 4], "the figures of rmse are not 2 runs"),
    (("images", "rmse", 1), [0.1] * 3, "the figures of rmse are not 2 runs over 4 images"),
    (("names",), ["a"], "over 1 images"), (("seeds",), 3, "not the figures of a row"), (("scores",), {}, "not the figures of a row"),
    (("colour",), "red", "not the figures of a row"),
    (("scores",), {name: [0.1, 0.2] for name in METRICS if name != "d1"}, "measured without δ < 1.25"),  # before there was such a metric
])  # fmt: skip
def test_other_values_are_refused(keys, to, message):
    values = Result.of([scores(0), scores(1)], seeds=[0, 1]).to_dict()
    change(values, *keys, to=to)
    with pytest.raises(UsageError, match=message) as caught:
        Result.from_dict(values)
    assert "\n" not in str(caught.value)
