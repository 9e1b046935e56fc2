"""The tools that make what the package carries."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from depthtokens import dense_features, load_clip
from helpers import TESTS

TOOLS = TESTS.parent / "tools"


class Stopped(Exception):
    """As if the machine had gone."""


@pytest.mark.slow
def test_training_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    train_clip = importlib.import_module("train_clip")

    def config(name: str, **changes: object):
        few = {"indoor_scenes": 4, "road_scenes": 2, "steps": 3, "low_steps": 1, "batch": 4, "regions": 2, "warmup": 1, "decay_steps": 2}
        every = {"workers": 1, "log_every": 1, "save_every": 2, "device": "cpu"}
        return train_clip.Config(work=tmp_path / name, out=tmp_path / name / "clip", cache=tmp_path / "cache", **few, **every, **changes)

    train_clip.main(config("whole"))
    save = torch.save

    def once(state: dict, path: Path) -> None:
        save(state, path)
        path.replace(path.with_suffix(".pt"))
        raise Stopped

    monkeypatch.setattr(train_clip.torch, "save", once)
    with pytest.raises(Stopped):
        train_clip.main(config("parts"))
    assert not (tmp_path / "parts" / "clip").exists()
    monkeypatch.setattr(train_clip.torch, "save", save)
    train_clip.main(config("parts", resume=True))
    whole, parts = (load_file(tmp_path / name / "clip" / "open_clip_model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)
    logs = [(tmp_path / name / "clip" / "training_log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    assert [len(log) for log in logs] == [3, 3]
    clip = load_clip(str(tmp_path / "parts" / "clip"))
    assert dense_features(clip, torch.zeros(1, 3, 64, 96), "value").shape == (1, 256, 2, 3)
