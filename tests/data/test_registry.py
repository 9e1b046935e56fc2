"""Data sets by name: how a name is written, and that every one of them can be opened by it."""

import subprocess
import sys

import pytest

from depthtokens.data import READERS, dataset_class, open_dataset
from depthtokens.data.dataset import DepthDataset
from depthtokens.errors import UsageError


def test_open_dataset_says_how_to_name_data(tmp_path, message):
    assert "did you mean 'nyu'?" in message(lambda: open_dataset(f"nyuu:{tmp_path}"), UsageError)
    assert message(lambda: open_dataset("nyu"), UsageError) == "'nyu' needs its folder: nyu:ROOT"
    assert f"write nyu:{tmp_path} or kitti:{tmp_path} or folder:{tmp_path}" in message(lambda: open_dataset(str(tmp_path)), UsageError)
    assert "no folder" in message(lambda: open_dataset(f"kitti:{tmp_path}/absent"))
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in message(lambda: open_dataset(f"kitti:{tmp_path}/file"))
    assert "unknown split 'tset': did you mean 'test'?" in message(lambda: open_dataset(f"nyu:{tmp_path}", "tset"), UsageError)
    assert "--depth-scale is for folder:ROOT only" in message(lambda: open_dataset(f"nyu:{tmp_path}", depth_scale=1000), UsageError)
    assert "--depth-range is for folder:ROOT only" in message(lambda: open_dataset(f"kitti:{tmp_path}", depth_range=(1, 2)), UsageError)


@pytest.mark.parametrize("name", READERS)
def test_every_data_set_goes_by_its_own_name(name):
    found = dataset_class(name)
    assert issubclass(found, DepthDataset) and name == found.NAME


def test_importing_the_room_loads_no_torch():
    code = (
        "import sys, depthtokens.data, depthtokens.data.images, depthtokens.data.formats; depthtokens.data.open_dataset; "
        "assert 'torch' not in sys.modules; depthtokens.data.dataset_class('nyu')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
