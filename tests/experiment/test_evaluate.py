"""Scoring: heads and controls by one protocol, from images and from a store."""

from __future__ import annotations

import pytest
import torch

from depthtokens import evaluate
from depthtokens.depth.metrics import METRICS
from depthtokens.experiment.controls import Controls
from depthtokens.experiment.evaluate import score_heads
from depthtokens.experiment.source import Reading, open_source
from helpers import make_model as make


class Truth:
    """A data set of three images, one without depth, one of another size."""

    name, split, depth_range, eval_crop = "made up", "test", (0.1, 10.0), None
    names = ("a", "empty", "wide")

    def __len__(self):
        return 3

    def __getitem__(self, i):
        from depthtokens.data.dataset import Sample

        h, w = (32, 64) if i == 2 else (32, 32)
        return Sample(torch.zeros(3, h, w), torch.zeros(1, h, w) if i == 1 else torch.full((1, h, w), 2.0), i)


def test_score(tmp_path):
    heads = {"three": lambda x: torch.full((len(x), 1, 1, 1), 3.0)}
    controls = Controls(3.0, torch.tensor([[[[2.0, 3.0]]]]), 1)
    found = score_heads(heads, open_source(None, Truth(), None, Reading(workers=0)), "auty2023", controls)
    assert list(found) == ["three", "constant", "mean map"] and found["constant"].image_wise == found["three"].image_wise
    assert found["mean map"].protocol.flip is False and found["three"].protocol.flip is True
    assert found["mean map"].image_wise["abs_rel"] == pytest.approx(0.25)
    scores = found["three"]
    assert scores.skipped == ["empty"] and [row["name"] for row in scores.per_image] == ["a", "wide"]
    assert scores.quoted["abs_rel"] == pytest.approx(0.5) and scores.quoted["d2"] == 1 and scores.quoted["d1"] == 0
    text = scores.to_csv()
    assert scores.to_csv(tmp_path / "s.csv") == text == (tmp_path / "s.csv").read_text()
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == ",".join(["name", *METRICS, "pixels", "protocol"])
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("protocol", ["auty2023", "pooled"])
@pytest.mark.parametrize("mode", ["value", "layer4"])
def test_scores_from_a_store_are_those_from_images(tiny_clip, scenes, store, mode, protocol):
    model = make(tiny_clip, dense=mode)
    images, stored = evaluate(model, scenes, protocol, workers=0), evaluate(model, store, protocol)
    assert stored.quoted == pytest.approx(images.quoted, abs=1e-4, rel=1e-4) and stored.quoted != images.quoted
    assert [row["name"] for row in stored.per_image] == [row["name"] for row in images.per_image]


def test_scores_count_what_was_no_number():
    def broken(patches):
        depth = torch.full((len(patches), 1, 2, 2), 3.0)
        depth[0, 0, 0, 0] = float("nan")
        return depth

    heads = {"broken": broken, "whole": lambda x: torch.full((len(x), 1, 2, 2), 3.0)}
    found = score_heads(heads, open_source(None, Truth(), None, Reading(workers=0, batch_size=1)), "auty2023")
    assert found["broken"].not_finite == 2 * 3 and found["whole"].not_finite == 0  # mirrored too, in each of three images
    assert found["broken"].to_dict()["not_finite"] == 6
