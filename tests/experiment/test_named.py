"""Data by the name that a person gives it: what a store keeps of how its data was opened."""

import numpy as np
import pytest

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
