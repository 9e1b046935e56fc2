"""The demonstration, small: its table, its token files, what happens when it is interrupted or may not write."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from depthtokens import DataError, DepthTokens, DepthTokensError
from depthtokens.demo import TOKENS
from depthtokens.demo import run as module
from depthtokens.demo.run import LEARNED, ROWS, DemoSettings, run_demo
from depthtokens.depth.checkpoint import read, write
from depthtokens.depth.metrics import METRICS
from depthtokens.files import locked
from depthtokens.progress import silent
from depthtokens.scenes import DEPTH_RANGE
from helpers import refused, run

SMALL = DemoSettings(train=24, test=8, size=(96, 128), epochs=6)
NAMES = ["constant", "mean map", "ridge", *ROWS]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def table(demo):
    return {name: (result.parameters, result.scores) for name, result in demo.results.items()}


@pytest.mark.parametrize("domain", ["indoor", "road"])
def test_two_runs_give_the_same_table(tmp_path, domain):
    settings, told = replace(SMALL, domain=domain), []
    first = run_demo(settings, tmp_path / "a", lambda label, done, total, note="": told.append((label, done == total)), tmp_path / "cache")
    again = run_demo(settings, tmp_path / "b", cache=tmp_path / "cache")
    ended = [label for label, last in told if last]
    assert ended[:2] == ["rendering train scenes", "rendering test scenes"]
    assert ended[-7:-3] == [f"{name}: learning" for name in ("learned-7", "4o4d + depth-7", "4o4d + learned-7", "learned-20 log")]
    assert ended[-3:] == ["reading training depths", "fitting the ridge", "scoring test images"]
    assert list(table(first)) == NAMES and table(first) == table(again)
    width = first.clip.text.width
    trained = {name: count for name, (count, _) in table(first).items()}
    learned = {"learned-7": 7, "4o4d + depth-7": 8, "4o4d + learned-7": 15, "learned-20 log": 20}
    assert trained == {"constant": 1, "mean map": 96 * 128, "ridge": 257} | {name: learned.get(name, 0) * width for name in ROWS}
    saved = DepthTokens.load(first.tokens)
    assert saved.settings.predict_side == 96 and saved.settings == first.models["learned-7"].settings
    assert torch.equal(saved.tokens["depth"], first.models["learned-7"].tokens["depth"])
    rows = first.to_dict()["rows"]
    assert [row["name"] for row in rows] == NAMES and [row["trained_parameters"] for row in rows] == list(trained.values())
    assert all(row["scores"] == {metric: first.results[row["name"]].scores[metric][0] for metric in METRICS} for row in rows)


def test_an_interrupted_run_goes_on(cache, tmp_path, monkeypatch):
    whole = run_demo(SMALL, tmp_path / "whole", cache=cache)
    learned, fit = [], module.fit

    def counting(learners, *args, **kwargs):
        if len(learned) == 2:
            raise KeyboardInterrupt
        learned.append(learners[0].model.settings.template)
        return fit(learners, *args, **kwargs)

    monkeypatch.setattr(module, "fit", counting)
    with pytest.raises(KeyboardInterrupt):
        run_demo(SMALL, tmp_path / "part", cache=cache)
    learned.clear()
    part = run_demo(SMALL, tmp_path / "part", cache=cache)
    assert len(learned) == 2 and table(part) == table(whole)  # two of four were there
    # Tokens of other settings, or damaged ones, are learned again.
    (tmp_path / "part" / "tokens" / "learned-7.safetensors").write_bytes(b"damaged")
    learned.clear()
    assert table(run_demo(SMALL, tmp_path / "part", cache=cache)) == table(whole) and len(learned) == 1


def test_tokens_of_other_settings_are_learned_again(cache, tmp_path, monkeypatch):
    """Also where only the header says so; a file that tells of its training as this one does is taken, whoever wrote it."""
    run_demo(SMALL, tmp_path, cache=cache)
    path = tmp_path / "tokens" / "learned-7.safetensors"
    tensors, header = read(path)
    assert header["training"] == json.loads(json.dumps({"demo": vars(SMALL), "renderer": module.RENDERER_VERSION}))
    assert header["protocol"] == "auty2023" and header["model"]["template"] == "This object appears to be {depth}"
    learned = []
    monkeypatch.setattr(module, "fit", lambda learners, *args, **kwargs: learned.append(learners[0].model.settings.depth))
    for changes in (
        {"training": {**header["training"], "renderer": -1}},
        {"training": {**header["training"], "demo": {**header["training"]["demo"], "lr": 0.5}}},
        {"training": None},
        {"model": {**header["model"], "scale": 39.0}},
    ):
        write(path, tensors, {key: value for key, value in (header | changes).items() if value is not None})
        run_demo(SMALL, tmp_path, cache=cache)
        assert learned == ["learned:7"], changes
        learned.clear()
    write(path, {name: value + 1 for name, value in tensors.items()}, {**header, "versions": {"depthtokens": "0.0.1"}})
    demo = run_demo(SMALL, tmp_path, cache=cache)
    assert not learned and torch.equal(demo.models["learned-7"].tokens["depth"], tensors["tokens.depth"] + 1)


def test_command_prints_json_and_nothing_else(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "DemoSettings", lambda **changes: replace(SMALL, **changes))
    code, printed, _ = run(capsys, "demo", "--json")
    rows = json.loads(printed)["rows"]
    assert code == 0 and [row["name"] for row in rows] == NAMES
    assert all(row["scores"].keys() >= {"abs_rel", "rmse", "d1"} for row in rows)
    assert (tmp_path / "depthtokens-demo" / "report.html").is_file()
    code, printed, _ = run(capsys, "demo")
    assert code == 0 and "learned-7" in printed and "report.html" in printed and printed.count("  depthtokens ") == 3


def test_one_demonstration_at_a_time(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("depthtokens.files.PATIENCE", 0.1)
    with locked(tmp_path), pytest.raises(DataError, match="another process is writing"):
        run_demo(SMALL, tmp_path, cache=cache)


def test_nowhere_to_write(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DepthTokensError, match="cannot write to"):
        run_demo(SMALL, tmp_path / "file" / "demo", silent)
    assert "cannot write to" in refused(capsys, "demo", "--out", tmp_path / "file", code=1)


def test_the_tokens_that_come_with_the_package():
    """They are what the demonstration learns with its usual settings, on the CLIP that comes too."""
    model, settings = DepthTokens.load(TOKENS), DemoSettings()
    assert model.clip.name == "bundled" and TOKENS.stat().st_size < 10_000
    assert model.settings == DepthTokens.of(model.clip, settings.model(ROWS[LEARNED], DEPTH_RANGE["indoor"])).settings
    assert model.provenance.training == settings.training() and model.provenance.protocol == settings.protocol
