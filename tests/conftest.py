"""Small CLIPs and data that tests share."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")
_cache = tempfile.TemporaryDirectory(prefix="depthtokens-tests-")
os.environ["DEPTHTOKENS_CACHE"] = _cache.name  # what tests store is gone with them
SHARED = Path(__file__).parents[2] / "shared"
REFERENCE = SHARED / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the released system's reference figures are not on this machine")
needs_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the real NYUv2 and KITTI files are not on this machine")


def load_script(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference_file(tmp_path_factory):
    """The reference's seeded CLIP as a plain OpenAI state dict on disk."""
    if not REFERENCE.is_dir():
        pytest.skip("the released system's reference figures are not on this machine")
    state = load_script(REFERENCE / "toy_clip.py").toy_clip(seed=11)
    path = tmp_path_factory.mktemp("clip") / "toy.pt"
    torch.save({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def reference_clip(reference_file):
    from depthtokens import load_clip

    return load_clip(str(reference_file))


TINY_CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


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
    from depthtokens import load_clip

    return load_clip(str(tiny_file))


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
