"""What tests of this room share."""

from __future__ import annotations

import pytest

from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from depthtokens.scenes import Scenes


@pytest.fixture(scope="session")
def scenes():
    return Scenes("indoor", "train", 12, size=(64, 96), seed=3)


@pytest.fixture(scope="session")
def store(tiny_clip, scenes, tmp_path_factory):
    return write(plan(tiny_clip, scenes, Views(mirrored=True), ["value", "layer4"]), tmp_path_factory.mktemp("store"), workers=0)
