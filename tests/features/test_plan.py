"""Plans: what makes no sense, and how big a store will be."""

from __future__ import annotations

import pytest

from depthtokens import UsageError
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from stores import MODES, message, opened


def test_input_crop_that_does_not_fit(tiny_clip, folder):
    assert "480x640" in message(lambda: plan(tiny_clip, opened(folder), Views(input_crop=(0, 64, 0, 64)), ["value"]))


def test_plans_that_make_no_sense(tiny_clip, folder):
    data = opened(folder)
    assert "with augmentation" in message(lambda: plan(tiny_clip, data, Views(2), ["value"]))
    assert "without augmentation" in message(lambda: plan(tiny_clip, opened(folder, augment=True), Views(), ["value"]))
    for call in (
        lambda: plan(tiny_clip, data, Views(), []),
        lambda: plan(tiny_clip, data, Views(), ["tokens"]),
        lambda: plan(tiny_clip, data, Views(), ["valeu"]),
        lambda: plan(tiny_clip, data, Views(), ["value"], "float32"),
        lambda: plan(tiny_clip, data, Views(), ["value"], precision="half"),
        lambda: Views(0),
        lambda: Views(normalisation="clpi"),
    ):
        with pytest.raises(UsageError):
            call()


def test_estimate_is_the_size(tiny_clip, folder, tmp_path):
    data = opened(folder, augment=True, crop=(64, 64))
    planned = plan(tiny_clip, data, Views(2, mirrored=True), MODES)
    assert write(planned, tmp_path / "s", workers=0).bytes == pytest.approx(planned.bytes, rel=0.05)
