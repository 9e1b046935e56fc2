"""Small CLIPs and data that tests share."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")
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
