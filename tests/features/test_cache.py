"""Stores that are made when they are needed."""

from __future__ import annotations

import os

from depthtokens.features.cache import cached
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
