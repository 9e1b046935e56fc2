"""What tests of stored features share: folders of made-up images, stores of them, and what is close enough."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens import DepthTokensError
from depthtokens.data import open_dataset
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write

MODES = ("attnpool", "layer4", "value")


def message(call):
    with pytest.raises(DepthTokensError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make_folder(root, sizes, seed=0, suffix=".png"):
    """A folder data set of random images with depth in millimetres or in metres (.npy)."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "depth"):
        (root / kind).mkdir(parents=True)
    for i, (h, w) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)).save(root / "images" / f"{i:03d}.png")
        if suffix == ".png":
            Image.fromarray(rng.integers(0, 9000, (h, w)).astype(np.uint16)).save(root / "depth" / f"{i:03d}.png")
        else:
            np.save(root / "depth" / f"{i:03d}.npy", rng.uniform(0, 9, (h, w)).astype(np.float32))
    return root


def opened(root, **options):
    return open_dataset(f"folder:{root}", "all", depth_scale=1000, **options)


def make(clip, dataset, out, views=None, modes=("value",), **options):
    """A store of shards of two images."""
    return write(small_shards(plan(clip, dataset, views or Views(), modes, **options)), out, workers=0, batch_size=3)


def small_shards(planned, images=2):
    planned.meta["images_per_shard"] = images
    return planned


def assert_close(found, expected, dtype="float16"):
    """Within half rounding: relative to the row, since directions are stored at RMS 1."""
    step = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    rows = expected.norm(dim=1, keepdim=True)
    assert found.shape == expected.shape and found.dtype == torch.float32
    # No number may be off by more than half a unit in its last place, nor, near zero, by more than half's smallest step of the row's RMS.
    rms = rows / expected.shape[1] ** 0.5
    assert ((found - expected).abs() <= 1.05 * step * expected.abs() + 2**-24 * rms + 2e-6 * rows).all()
