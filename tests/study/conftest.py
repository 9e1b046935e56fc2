"""Models and one finished study that tests of this room share."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from depthtokens import DepthTokens
from depthtokens.cli import main


@pytest.fixture(scope="session")
def model_of():
    """A small model on a CLIP, with other settings where a test gives them."""

    def make(clip, **changes):
        return DepthTokens(clip, **{"depth": "learned:7", "dense": "value", "scale": 40, "depth_range": (0.5, 10.0), **changes})

    return make


@pytest.fixture(scope="session")
def tokens(tiny_clip, model_of, tmp_path_factory):
    """A token file."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    model_of(tiny_clip).save(path)
    return path


@contextmanager
def scenes_of(train, test):
    """So many scenes stand for the data set of that name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("depthtokens.scenes.dataset.SCENES", {"train": train, "test": test})
        yield


@pytest.fixture
def few_scenes():
    with scenes_of(10, 4):
        yield


@pytest.fixture
def other_scenes():
    with scenes_of(4, 2):
        yield


@pytest.fixture(scope="session")
def studied(tokens, tmp_path_factory):
    """The folder of a study with images, of few scenes."""
    out = tmp_path_factory.mktemp("out") / "study"
    with scenes_of(10, 4):
        main(["study", str(tokens), "--data", "scenes", "--out", str(out), "--workers", "0", "--images", "2", "--patches", "200"])
    return out
