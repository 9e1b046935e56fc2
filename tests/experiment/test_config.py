"""Experiments as TOML: there and back, and what is refused."""

from __future__ import annotations

import pytest

from depthtokens import Experiment, UsageError


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
])  # fmt: skip
def test_bad_toml(tmp_path, text, message):
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        Experiment.from_toml(tmp_path / "e.toml")
    assert message in str(caught.value)
