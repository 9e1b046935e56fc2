"""Data by the name that a person gives it: what a store keeps of how its data was opened."""

import numpy as np
import pytest
from PIL import Image

from depthtokens import DepthTokens, Experiment, UsageError, train
from depthtokens.data import open_dataset
from depthtokens.experiment.named import NamedData
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write


def test_a_store_of_in_painted_depth_opens_its_data_as_that(tiny_clip, tmp_path):
    """Its controls would be learned on the sensor's depth otherwise."""
    h5py = pytest.importorskip("h5py", reason="the .mat file needs h5py")
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((2, 3, 64, 64), np.uint8)
        file["rawDepths"], file["depths"] = np.zeros((2, 64, 64), np.float32), np.full((2, 64, 64), 3, np.float32)
    data = open_dataset(f"nyu:{path}", "all", nyu_depth="filled")
    store = write(plan(tiny_clip, data, Views(), ["layer4"]), tmp_path / "store", workers=0)
    assert store.check_data() == "unchanged"
    opened = NamedData(f"store:{store.path}").split("all")
    assert opened.truth(0).min() == 3 and opened.fingerprint() == data.fingerprint()
    assert not NamedData(f"nyu:{path}").split("all").truth(0).any()


def pairs(root):
    """A folder that does not say its unit."""
    for split in ("train", "test"):
        for kind, values in (("images", np.zeros((64, 64, 3), np.uint8)), ("depth", np.full((64, 64), 4000, np.uint16))):
            (root / split / kind).mkdir(parents=True)
            Image.fromarray(values).save(root / split / kind / "a.png")
    return root


def test_units_told_to_training_are_known_without_its_place(tiny_file, tmp_path):
    """Token files name the data by the last part of its path; the same folder is known again, another of that name is not."""
    data = pairs(tmp_path / "mine" / "rooms")
    options = {"views": 1, "epochs": 1, "workers": 0, "cache": False, "clip": str(tiny_file), "out": str(tmp_path / "run")}
    tokens = train(Experiment(data=f"folder:{data}", depth_scale=1000, depth_range=(1, 9), **options)).tokens
    assert str(tmp_path).encode() not in tokens.read_bytes()
    training = DepthTokens.load(tokens).provenance.training
    assert training["experiment"]["data"] == "folder:rooms" and training["experiment"]["out"] == "run"
    opened = NamedData(f"folder:{data}", trained=training).split("test")
    assert opened.depth_scale == 1000 and opened.depth_range == (1, 9) and opened.truth(0).max() == 4
    other = pairs(tmp_path / "other" / "rooms")
    with pytest.raises(UsageError, match="--depth-scale"):
        NamedData(f"folder:{other}", trained=training).split("test")


def test_units_in_token_files_of_before(tmp_path):
    data = pairs(tmp_path / "rooms")
    before = {"experiment": {"data": f"folder:{data}", "depth_scale": 500, "depth_range": [1, 9], "out": "/home/me"}}
    assert NamedData(f"folder:{data}", trained=before).split("test").depth_scale == 500
    for experiment in ({"data": f"folder:{data}", "depth_scale": "500"}, {"data": f"folder:{data}", "depth_scale": float("nan")}):
        with pytest.raises(UsageError, match="training: depth_scale"):
            NamedData(f"folder:{data}", trained={"experiment": experiment}).split("test")
    for trained in ({}, {"experiment": 3}, {"experiment": {"data": 3}}):
        with pytest.raises(UsageError, match="--depth-scale"):
            NamedData(f"folder:{data}", trained=trained).split("test")
