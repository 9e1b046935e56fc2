"""Experiments as TOML: there and back, and what is refused."""

from __future__ import annotations

import pytest

from depthtokens import Experiment, UsageError
from depthtokens.experiment.config import RECIPES


def test_experiment_to_toml_and_back(tmp_path):
    first = Experiment(
        data='nyu:a "quoted" folder\\x \U0001f4f7\x7f', crop=(64, 96), depth_range=(0.5, 10.0), weights=None, depth="near|far"
    )
    (tmp_path / "e.toml").write_text(first.to_toml())
    second = Experiment.from_toml(tmp_path / "e.toml")
    assert second == first and second.crop == (64, 96) and second.weights == "random"


@pytest.mark.parametrize(("text", "message"), [
    ('data = "nyu:x"\nepoch = 3', "did you mean 'epochs'"), ('data = "nyu:x"\nepochs = "3"', "should be a whole number"),
    ('data = "nyu:x"\ncrop = [64]', "two numbers"), ('data = "nyu:x"\ncrop = [64, "x"]', "two numbers"),
    ('data = "nyu:x"\nweight_decay = nan', "should be a number"), ('data = "nyu:x"\nseed = -1', "seed must be between"),
    ("epochs = 3", "does not say `data`"), ("data = nyu", "not valid TOML"), ('data = "nyu:x"\nepochs = 0', "at least 1"),
    ('data = "nyu:x"\nobjective = "ce"', "unknown objective"), ('data = "nyu:x"\nrecipe = "turned"', "did you mean 'tuned'"),
])  # fmt: skip
def test_bad_toml(tmp_path, text, message):
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        Experiment.from_toml(tmp_path / "e.toml")
    assert message in str(caught.value)


def test_a_recipe_gives_what_is_not_said(tmp_path):
    (tmp_path / "e.toml").write_text('data = "nyu:x"\nrecipe = "tuned"\nlr = 0.5')
    assert Experiment.from_toml(tmp_path / "e.toml") == Experiment(data="nyu:x", **{**RECIPES["tuned"], "lr": 0.5})
    assert Experiment.from_toml(tmp_path / "e.toml", recipe="auty2023") == Experiment(data="nyu:x", lr=0.5)
    assert Experiment(data="nyu:x", **RECIPES["tuned"]) != Experiment(data="nyu:x") == Experiment.from_dict({"data": "nyu:x"})
