"""Shards: what half precision and 16-bit steps give back."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from depthtokens.features.shard import Builder, Shard, StoredView, rows_of, steps_of
from depthtokens.features.views import Views


@given(arrays(np.uint16, (3, 5)), st.sampled_from([1000.0, 256.0, 5000.0, 1.0, 0.25]))
def test_depth_that_came_in_steps_goes_back_into_them(raw, scale):
    depth = raw.astype(np.float32) / np.float32(scale)
    steps = steps_of(depth, scale)
    assert steps.dtype == np.uint16 and np.array_equal(steps, raw)


@given(arrays(np.float32, (2, 3), elements=st.floats(0, 2**100, width=32)), st.sampled_from([1000.0, 256.0, None]))
def test_any_depth_survives(depth, scale):
    steps = steps_of(depth, scale)
    back = steps if steps.dtype == np.float32 else steps.astype(np.float32) / np.float32(scale)
    assert np.array_equal(back, depth)


@settings(max_examples=50)
@given(
    st.sampled_from([torch.float16, torch.bfloat16]),
    arrays(np.float32, (1, 6, 2, 2), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([1e-9, 1e-4, 1.0, 3e4, 1e12]),
)
def test_rows_of_any_length_survive(dtype, values, size):
    features = torch.from_numpy(values) * size
    directions, norm = rows_of(features, dtype)
    back = directions.float() * norm[..., None] / 6**0.5
    rows = features.flatten(2).transpose(1, 2)
    assert ((back - rows).norm(dim=-1) <= (2**-8 + 1e-5) * rows.norm(dim=-1) + 1e-22).all()
    assert directions.dtype == dtype and directions.isfinite().all()


def test_shard_with_truth_of_both_kinds(tmp_path):
    """One image's truth is not in steps: the shard holds metres, the other's too."""
    builder = Builder(["value"], 1000)
    maps = [np.full((2, 2), 1.234, np.float32), np.full((2, 2), np.pi, np.float32)]
    maps[0] = np.rint(maps[0] * 1000).astype(np.float32) / np.float32(1000)
    for depth in maps:
        builder.view(0, StoredView((1, 1), {"value": [(torch.ones(1, 4).half(), torch.ones(1))]}), depth)
    content = builder.content()
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    shard = Shard(path, hashlib.sha256(content).hexdigest(), Views(), 1000)
    for i, depth in enumerate(maps):
        shard.truth(i, 0, out := torch.empty(2, 2))
        assert np.array_equal(out.numpy(), depth)
