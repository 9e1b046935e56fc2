"""Stores that are made when they are needed."""

from __future__ import annotations

import os

import pytest

from depthtokens import DepthTokens
from depthtokens.experiment.source import Images, Reading, open_source
from depthtokens.features.cache import CannotStore, cached
from depthtokens.features.views import Views
from stores import opened


def test_cached(tiny_clip, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path))
    told = []
    first = cached(tiny_clip, opened(folder), Views(), ["value"], notify=told.append, workers=0)
    assert len(told) == 1 and "7 images" in told[0] and str(first.path) in told[0]
    assert first.path.parent == tmp_path / "features"
    again = cached(tiny_clip, opened(folder), Views(), ["value"], notify=told.append, workers=0)
    assert len(told) == 1 and again.path == first.path
    assert cached(tiny_clip, opened(folder), Views(), ["layer4"], workers=0).path != first.path
    os.truncate(first.path / first.meta["shards"][0]["file"], 10)
    cached(tiny_clip, opened(folder), Views(), ["value"], notify=told.append, workers=0).check()
    assert len(told) == 2
    (first.path / "meta.json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in first.path.glob("*.safetensors")}
    cached(tiny_clip, opened(folder), Views(), ["value"], notify=told.append, workers=0).check()
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_cache_that_cannot_be_written(tiny_clip, folder, tmp_path, monkeypatch):
    """A shared, read-only cache is read where it holds the store; otherwise images are, and it is said."""
    made = cached(tiny_clip, opened(folder), Views(), ["value"], folder=tmp_path, workers=0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cached(tiny_clip, opened(folder), Views(), ["value"], folder=tmp_path, workers=0).path == made.path
    with pytest.raises(CannotStore, match="cannot keep patch features in .*no right to write"):
        cached(tiny_clip, opened(folder), Views(), ["layer4"], folder=tmp_path, workers=0)
    said, model = [], DepthTokens(tiny_clip, dense="layer4")
    source = open_source(model, opened(folder), Views(), Reading(cache=True, folder=tmp_path, workers=0, notify=said.append))
    assert isinstance(source, Images) and len(said) == 1 and "images are read each time" in said[0]
    with pytest.raises(CannotStore):  # mirrored views are stored ones
        open_source(model, opened(folder), Views(mirrored=True), Reading(cache=True, folder=tmp_path, workers=0), flip=True)
