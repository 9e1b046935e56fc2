"""Scenes as a data set like any other."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from depthtokens.data import open_dataset
from depthtokens.data.dataset import DepthDataset
from depthtokens.errors import UsageError
from depthtokens.scenes import DEPTH_RANGE, Scenes

SIZE = (40, 56)


@pytest.mark.parametrize("domain", ["indoor", "road"])
def test_samples(domain):
    data = Scenes(domain, "test", 3, SIZE)
    assert isinstance(data, DepthDataset)
    assert (len(data), data.name, data.split, data.depth_range) == (3, "scenes", "test", DEPTH_RANGE[domain])
    assert data.eval_crop is None and data.augment is None and data.missing() == [] and len(set(data.names)) == 3
    sample = data[1]
    assert sample.image.shape == (3, *SIZE) and sample.image.dtype == torch.float32
    assert sample.depth.shape == (1, *SIZE) and sample.depth.dtype == torch.float32 and sample.index == 1
    low, high = DEPTH_RANGE[domain]
    depth = np.concatenate([data.read(i)[1].ravel() for i in range(3)])
    assert ((depth == 0) | ((depth >= low - 0.01) & (depth <= high + 0.01))).all()
    assert data.image_size(2) == SIZE
    assert data.caption(0) == data.caption(0) != data.caption(0, 1)
    with pytest.raises(IndexError):
        data[3]


def test_splits_and_seeds_differ():
    pictures = [
        Scenes("indoor", split, 2, SIZE, seed).read(i)[0].tobytes() for split in ("train", "test") for seed in (0, 1) for i in (0, 1)
    ]
    assert len(set(pictures)) == len(pictures)


def test_opened_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path))
    monkeypatch.setattr("depthtokens.scenes.dataset.SCENES", {"train": 2, "test": 1})
    test = open_dataset("scenes", "test")
    assert (type(test), len(test), test.domain, test.augment, test.job.seed) == (Scenes, 1, "indoor", None, 0)
    train = open_dataset("scenes:road", "train", augment=True, crop=(96, 128), seed=3)
    assert (len(train), train.domain, train.augment.crop, train.seed, train.job.seed) == (2, "road", (96, 128), 3, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"] and train[0].image.shape == (3, 96, 128)
    for spec, split in (("scenes:raod", "test"), ("scenes", "all")):
        with pytest.raises(UsageError):
            open_dataset(spec, split)


def test_stated_scenes_are_told_apart_without_rendering(monkeypatch):
    data = Scenes("road", "test", 3)
    stated = {"spec": data.spec, "name": "scenes", "split": "test", "list_file": None, "fingerprint": data.fingerprint()}
    stated |= {"depth_range": data.depth_range, "depth_scale": data.depth_scale}
    monkeypatch.setattr("depthtokens.scenes.store.render", None)
    assert Scenes.unchanged(stated, 3) == "unchanged"
    assert Scenes.unchanged(stated, 4).startswith("not opened (scenes of another size, seed or renderer")


@pytest.mark.parametrize("wrong", [{"domain": "indor"}, {"split": "all"}, {"count": 0}, {"size": (4, 4)}, {"seed": -1}])
def test_bad_arguments(wrong):
    with pytest.raises(UsageError):
        Scenes(**{"count": 1, "size": SIZE, **wrong})


def test_package_imports_light():
    code = "import sys, depthtokens.scenes; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
