"""Protocols: crops, valid pixels, and how a prediction comes to full size."""

from __future__ import annotations

import pytest
import torch

from depthtokens import DataError, UsageError
from depthtokens.depth.protocol import PROTOCOLS, count_not_finite, eigen_crop, find_protocol, garg_crop


def test_crops():
    assert eigen_crop(480, 640) == (45, 471, 41, 601)
    assert garg_crop(352, 1216) == (143, 349, 43, 1172)
    with pytest.raises(DataError, match="480x640"):
        eigen_crop(240, 320)


def test_valid_pixels():
    target = torch.full((1, 480, 640), 5.0)
    target[0, 100, 100], target[0, 100, 101], target[0, 100, 102] = 10.0, 10.01, 0.001
    auty, depthclip = find_protocol("auty2023"), find_protocol("depthclip")
    valid = auty.valid(target, (0.001, 10.0), "eigen")
    assert valid.sum() == (471 - 45) * (601 - 41) - 2 and valid[0, 100, 100] and not valid[0, 44, 100]
    assert auty.valid(target, (0.001, 10.0), None).sum() == 480 * 640 - 2
    valid = depthclip.valid(target, (0.001, 10.0), "eigen")
    assert valid.sum() == (471 - 56) * (601 - 60) - 3
    assert depthclip.shown(target).shape == (1, 416, 544)
    with pytest.raises(DataError, match="480x640"):
        depthclip.shown(target[..., :400, :])


def test_prediction_is_clamped_flipped_and_cleaned():
    auty = find_protocol("auty2023")
    ramp = torch.tensor([[[[-1.0, 2.0, 30.0]]]])
    images = torch.zeros(1, 3, 4, 9)
    images[..., 0] = 1  # tells the mirrored image from the first
    calls = []

    def network(shown):
        calls.append(shown)
        return ramp

    depth = auty.predict(network, images, (0.5, 10.0))
    assert torch.equal(calls[1], images.flip(-1))
    assert depth.shape == (1, 1, 4, 9)
    assert depth[0, 0, 0, 0] == pytest.approx((0.5 + 10) / 2) and depth[0, 0, 0, 4] == 2.0
    broken = torch.tensor([[[[float("nan"), float("inf"), 1.0]]]])
    assert auty.predict(lambda _: broken, images, (0.5, 10.0))[0, 0, 0, 0] == 0.5
    assert count_not_finite(broken, None) == 2 and count_not_finite(broken, broken) == 4 and count_not_finite(ramp) == 0


def test_protocols_are_data():
    assert set(PROTOCOLS) == {"auty2023", "pooled", "depthclip"}
    for protocol in PROTOCOLS.values():
        assert {"name", "source", "depth_range", "input_crop", "valid_crop", "flip", "average", "resize"} <= protocol.to_dict().keys()
    with pytest.raises(UsageError, match="did you mean 'auty2023'"):
        find_protocol("auty2022")
