"""Small CLIPs and data that tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens import DataError
from helpers import REFERENCE, TINY_CONFIG, load_script

SHARED = []
"""CLIPs that tests share, each loaded from a file that stays."""

LONGEST = ("test_spread.py", "test_faults.py", "test_export.py")
"""Files of tests that take minutes."""

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Home, caches and the temporary folder of all tests, and of what they start, are one folder that goes with them, so that nothing is written
# elsewhere; what pytest keeps of the last runs stays where it keeps it. The name is short, since sockets are opened in there.
_place = tempfile.TemporaryDirectory(prefix="dtokens-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"), ignore_cleanup_errors=True)
_around = Path(_place.name).parent
for _left in _around.glob("dtokens-*"):
    with suppress(OSError):
        if time.time() - _left.stat().st_mtime > 24 * 3600:  # of tests that were killed
            shutil.rmtree(_left)
for _name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "MPLCONFIGDIR"):
    os.environ.pop(_name, None)  # these would lead to the user's own
_folders = {"HOME": "home", "USERPROFILE": "home", "DEPTHTOKENS_CACHE": "cache", "HYPOTHESIS_STORAGE_DIRECTORY": "hypothesis"}
os.environ |= {name: str(Path(_place.name, folder)) for name, folder in _folders.items()}
os.environ |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), _place.name)
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_around))
tempfile.tempdir = _place.name
Path(os.environ["HOME"]).mkdir()


def pytest_collection_modifyitems(items):
    """The longest files first: processes share the work by files, and all but one would be idle at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def shared(path):
    """The CLIP of a file that stays, for all tests: it goes on being remembered."""
    from depthtokens import load_clip

    SHARED.append(load_clip(str(path)))
    return SHARED[-1]


@pytest.fixture
def message():
    """A function that calls another, which must raise an error of one line, and gives that line."""

    def one_line(action, kind=DataError):
        with pytest.raises(kind) as caught:
            action()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return one_line


@pytest.fixture(scope="session")
def reference_file(tmp_path_factory):
    """The reference's seeded CLIP as a plain OpenAI state dict on disk."""
    state = load_script(REFERENCE / "toy_clip.py").toy_clip(seed=11)
    path = tmp_path_factory.mktemp("clip") / "toy.pt"
    torch.save({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def reference_clip(reference_file):
    return shared(reference_file)


@pytest.fixture(scope="session")
def tiny_model():
    """A CLIP ResNet of a few thousand weights (beside its vocabulary) with BatchNorm statistics that are not trivial."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY_CONFIG, quick_gelu=True).eval()
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        if name.endswith(("running_var", "bn3.weight")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def tiny_file(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.pt"
    torch.save(tiny_model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def tiny_clip(tiny_file):
    return shared(tiny_file)


@pytest.fixture(autouse=True)
def remembered_clips():
    """After each test only the CLIPs that all tests share are remembered: none that it has loaded, changed or deleted."""
    yield
    from depthtokens.clip.remembered import CLIPS, remember
    from depthtokens.files import cache_folder

    (cache_folder() / CLIPS).unlink(missing_ok=True)
    for clip in SHARED:
        remember(clip.name, None, clip.fingerprint)


@pytest.fixture(scope="session")
def vit_file(tmp_path_factory):
    """A small ViT, patches of 16 pixels."""
    import open_clip

    vision = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
    path = tmp_path_factory.mktemp("vit") / "vit.pt"
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**{**TINY_CONFIG, "vision_cfg": vision}).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def vit_clip(vit_file):
    return shared(vit_file)


@pytest.fixture(scope="session")
def attnpool_clip(tiny_file):
    """The tiny CLIP with position embeddings that matter: its own leave all positions of the attention pool nearly alike."""
    from depthtokens import load_clip

    clip = load_clip(str(tiny_file))
    clip.visual.attnpool.positional_embedding.data *= 30
    return clip


@pytest.fixture(scope="session")
def nyu_tree(tmp_path_factory):
    """A small tree in NYUv2's layout: 6 training and 3 test pairs of smooth made-up rooms."""
    root = tmp_path_factory.mktemp("nyu")
    rng = np.random.default_rng(0)
    for folder, count in (("sync/room", 6), ("official_splits/test/room", 3)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            far = rng.uniform(3, 9)
            depth = np.linspace(far, 1.0, 480)[:, None] * np.linspace(1, rng.uniform(0.7, 1.0), 640)[None]
            rgb = (255 * np.stack([depth / 10, 1 - depth / 10, rng.random(depth.shape)], axis=-1)).clip(0, 255).astype(np.uint8)
            Image.fromarray(rgb).save(root / folder / f"rgb_{i:05d}.jpg")
            Image.fromarray((depth * 1000).astype(np.uint16)).save(root / folder / f"sync_depth_{i:05d}.png")
    return root


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub, and an empty cache of it."""
    from huggingface_hub import constants

    from hub import serve

    with serve() as (hub, address):
        values = {
            "ENDPOINT": address, "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HUB_CACHE": str(tmp_path / "hub"),
        }  # fmt: skip
        for name, value in values.items():  # the library reads its environment once, as it is imported
            monkeypatch.setattr(constants, name, value)
        yield hub
