"""Uncertainty: sparsification against an oracle, and coverage of central intervals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from depthtokens import DataError
from depthtokens.depth.condition import Gain
from depthtokens.depth.fused import Output
from depthtokens.depth.protocol import find_protocol
from depthtokens.experiment.predictions import Predictions
from depthtokens.experiment.source import Reading, Shown, open_source
from depthtokens.experiment.uncertainty import BINS, LEVELS, NORMAL, score_uncertainty
from depthtokens.scenes import Scenes
from helpers import make_model

AUTY = find_protocol("auty2023")


@pytest.fixture(scope="module")
def rooms():
    return Scenes("indoor", "test", 2, size=(64, 96), seed=3)


def scored(folder, rooms, deviation):
    """Scores of made-up predictions, off by normal noise; `deviation` makes their uncertainty of that noise."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(rooms.names):
        truth = rooms.read(index)[1]
        noise = rng.normal(size=truth.shape).astype(np.float32) * np.linspace(0.02, 0.2, 96, dtype=np.float32)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{name}.npz", depth=truth.clip(0.5) + noise, uncertainty=deviation(noise))
    return score_uncertainty(None, Predictions(folder, rooms, workers=0), AUTY)


def test_an_oracle_has_no_area_and_a_constant_no_gain(rooms, tmp_path):
    oracle = scored(tmp_path, rooms, np.abs)
    assert oracle.sparsification["rmse"].ause == pytest.approx(0, abs=1e-9) and oracle.sparsification["rmse"].aurg > 0.02
    constant = scored(tmp_path, rooms, np.ones_like).sparsification["abs_rel"]
    assert constant.aurg == pytest.approx(0, abs=1e-9) and constant.ause > 0.003
    assert len(constant.oracle) == 51 and constant.oracle[0] == pytest.approx(constant.random[0]) and constant.oracle[-1] == 0
    wrong = scored(tmp_path, rooms, lambda noise: 1 - np.abs(noise)).sparsification["rmse"]
    assert wrong.aurg < 0


def test_normal_intervals_hold_what_they_say(rooms, tmp_path):
    true = np.linspace(0.02, 0.2, 96, dtype=np.float32)
    found = scored(tmp_path, rooms, lambda noise: np.broadcast_to(true, noise.shape))
    assert found.coverage == pytest.approx(LEVELS, abs=0.02) and found.intervals == NORMAL and found.images == 2
    narrow = scored(tmp_path, rooms, lambda noise: np.broadcast_to(true / 3, noise.shape))
    assert narrow.covered(0.8) < 0.5


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_bins_spread_their_probability_evenly_to_the_mid_points(factor):
    """Truth that lies evenly within bins, as the probabilities say, is covered as often as they say; with a factor too."""
    shares, centres = torch.tensor([0.5, 0.2, 0.3]), torch.tensor([1.0, 3.0, 9.0])  # edges 0.5, 2, 6, 10
    rng = np.random.default_rng(0)
    bins = rng.choice(3, p=shares.double().numpy() / shares.double().sum().item(), size=(1, 1, 100, 100))
    truth = factor * torch.from_numpy(rng.uniform(np.array([0.5, 2, 6])[bins], np.array([2, 6, 10])[bins])).float()
    depth, gain = factor * (shares * centres).sum(), Gain(1)
    gain.bias.data.fill_(np.log(factor))
    model = SimpleNamespace(
        eval=lambda: None, text_features=lambda: 0, centres=centres, condition=gain,
        settings=SimpleNamespace(depth_range=(0.5, 10.0), condition="gain"),
        depth_from=lambda patches, text: Output(depth.expand(1, 1, 2, 2), shares[None, :, None, None].expand(1, 3, 2, 2)),
    )  # fmt: skip
    source = SimpleNamespace(
        name="made up", split="test", names=["a"], depth_range=(0.1, 30.0), eval_crop=None,
        evaluation=lambda protocol: [Shown([0], truth, truth, truth)],
    )  # fmt: skip
    found = score_uncertainty(model, source, AUTY)
    assert found.coverage == pytest.approx(LEVELS, abs=0.02) and found.intervals == BINS


def test_a_models_uncertainty_where_images_are_cropped_and_mirrored(tiny_clip, nyu_tree):
    from depthtokens.data import open_dataset

    model, data = make_model(tiny_clip), open_dataset(f"nyu:{nyu_tree}", "test")
    found = score_uncertainty(model, open_source(model, data, None, Reading(workers=0)), "depthclip")
    plain = found.to_dict()
    assert found.images == 3 and plain["sparsification"]["abs_rel"]["ause"] >= 0 and plain["coverage"][-1] == {"level": 1.0, "covered": 1}
    assert all(a <= b for a, b in zip(found.coverage, found.coverage[1:], strict=False))


def test_files_without_uncertainty_are_named(rooms, tmp_path):
    for name in rooms.names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"{name}.npy", np.ones((2, 3)))
    with pytest.raises(DataError, match="indoor/test/000000: its file holds no uncertainty: give a .npz"):
        score_uncertainty(None, Predictions(tmp_path, rooms, workers=0), AUTY)
