"""`depthtokens features` and `depthtokens features check`, as a person runs them."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from depthtokens.features.store import FeatureStore
from helpers import load_script, refused, run


@pytest.fixture
def command(tiny_file, nyu_tree, tmp_path):
    return ["features", f"nyu:{nyu_tree}", "--clip", tiny_file, "--split", "test", "--out", tmp_path / "store", "--workers", 0]


def test_making_and_checking(capsys, command, tmp_path, nyu_tree):
    code, out, err = run(capsys, *command, "--dense", "layer4", "value", "--mirror")
    assert code == 0 and "3 images" in out and "depthtokens evaluate" in out
    assert err.startswith("writing ") and "for 3 images and mirrored (dense layer4, value)" in err
    store = FeatureStore(tmp_path / "store")
    assert store.modes == ("layer4", "value") and store.views.mirrored and store.data == f"nyu:{nyu_tree}"
    code, out, err = run(capsys, *command, "--dense", "layer4", "value", "--mirror")
    assert code == 0 and "nothing to do" in out and "writing" not in err
    code, out, _ = run(capsys, "features", "check", tmp_path / "store")
    assert code == 0 and "all checksums as written" in out and "data unchanged" in out
    code, out, _ = run(capsys, "features", "check", tmp_path / "store", "--json")
    assert code == 0 and json.loads(out)["data_state"] == "unchanged" and json.loads(out)["images"] == 3


def test_what_is_next_can_be_run(capsys, nyu_tree, tiny_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "features", f"nyu:{nyu_tree}", "--clip", tiny_file, "--dense", "value", "--out", "a store", "--workers", 0)
    program, *words = shlex.split(out.splitlines()[-1].removeprefix("next: "))
    assert code == 0 and program == "depthtokens" and words[:3] == ["train", "--data", "store:a store"]
    code, _, err = run(capsys, *words, "--epochs", 1, "--batch-size", 3, "--out", "run")
    assert code == 0, err


def test_test_split_without_mirror_images(capsys, command):
    code, out, _ = run(capsys, *command)
    assert code == 0 and "--mirror" in out and "depthtokens evaluate" not in out
    code, _, err = run(capsys, *command, "--crop", 64, 96)
    assert code == 2 and "--views K" in err


def test_verbs_on_stores(capsys, command, nyu_tree, tiny_file, tmp_path):
    """A folder's unit comes with its stores."""
    for split, source in (("train", "sync/room"), ("test", "official_splits/test/room")):
        for kind, name in (("images", "rgb"), ("depth", "sync_depth")):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            for path in (nyu_tree / source).glob(f"{name}_*"):
                shutil.copy(path, tmp_path / "data" / split / kind / path.name.removeprefix(f"{name}_"))
        made = ["features", f"folder:{tmp_path / 'data'}", "--split", split, "--depth-scale", 1000, "--depth-range", 0.5, 10, "--mirror"]
        assert run(capsys, *made, "--clip", tiny_file, "--out", tmp_path / split, "--workers", 0)[0] == 0
    data = ["--data", f"store:{tmp_path / 'train'}"]
    code, _, err = run(capsys, "train", *data, "--clip", tiny_file, "--epochs", 1, "--batch-size", 3, "--out", tmp_path / "run")
    assert code == 0, err
    tokens = tmp_path / "run" / "tokens.safetensors"
    code, out, err = run(capsys, "evaluate", tokens, "--data", f"store:{tmp_path / 'test'}", "--workers", 0, "--json")
    stored = json.loads(out)["rows"]
    assert "note: no row 'ridge'" in err
    assert code == 0 and [row["name"] for row in stored] == ["tokens", "constant", "mean map"] and stored[0]["depth_range"] == [0.5, 10]
    images = ["--data", f"folder:{tmp_path / 'data'}", "--depth-scale", 1000, "--depth-range", 0.5, 10, "--no-cache"]
    code, out, err = run(capsys, "evaluate", tokens, *images, "--workers", 0, "--json")
    assert code == 0 and "storing" not in err
    for one, other in zip(stored, [row for row in json.loads(out)["rows"] if row["name"] != "ridge"], strict=True):
        assert one["scores"]["abs_rel"] == pytest.approx(other["scores"]["abs_rel"], abs=1e-4)


def test_shares(capsys, command, tmp_path):
    code, out, _ = run(capsys, *command, "--shard", "2/2")
    assert code == 0 and "0 of 1 shards" in out and "--finish" in out
    assert "lacks 1 of 1 shards (0)" in refused(capsys, *command, "--finish", code=1)
    assert json.loads(run(capsys, *command, "--shard", "1/2", "--json")[1])["shards"] == 1
    code, out, _ = run(capsys, *command, "--finish")
    assert code == 0 and "3 images" in out
    for words, said in ((["--shard", "2"], "--shard 2: write 1/4"), (["--shard", "1/2", "--finish"], "give one"),
                        (["--per-task-cpus", "2"], "give --ray"),
                        (["--ray", "auto", "--per-task-cpus", 0], "more than 0 cores")):  # fmt: skip
        assert said in refused(capsys, *command, *words)


def test_random_views_and_a_protocols_crop(capsys, command, tmp_path):
    assert run(capsys, *command, "--views", 2, "--crop", 64, 96, "--seed", 3)[0] == 0
    store = FeatureStore(tmp_path / "store")
    assert store.views.count == 2 and store.meta["seed"] == 3 and store.image_sizes == [(64, 96)] * 3
    shutil.rmtree(tmp_path / "store")
    code, out, _ = run(capsys, *command, "--protocol", "depthclip", "--json")
    assert code == 0 and json.loads(out)["images"] == 3
    assert FeatureStore(tmp_path / "store").views.input_crop == (56, 472, 60, 604)


def test_damage_and_changed_data_are_one_line(capsys, command, nyu_tree, tmp_path):
    shutil.copytree(nyu_tree, tmp_path / "data")
    command[1] = f"nyu:{tmp_path / 'data'}"
    run(capsys, *command)
    depth = next((tmp_path / "data" / "official_splits").rglob("sync_depth_00001.png"))
    Image.fromarray(np.full((480, 640), 7, np.uint16)).save(depth)
    code, _, err = run(capsys, "features", "check", tmp_path / "store")
    assert code == 1 and "is whole, but" in err and "has changed" in err
    shard = next((tmp_path / "store").glob("*.safetensors"))
    with shard.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xee")
    code, _, err = run(capsys, "features", "check", tmp_path / "store")
    assert code == 1 and shard.name in err and err.strip().splitlines()[-1].startswith("depthtokens: 1 of 1 shards")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["features"], 2, "--help"),
        (["features", "nyu:/nowhere"], 2, "--out DIR"),
        (["features", "nyu:/nowhere", "--out", "x"], 1, "no folder /nowhere"),
        (["features", "check"], 2, "features check --help"),
        (["features", "check", "/nowhere"], 1, "no store"),
        (["features", "chek", "--out", "x"], 2, "'chek' does not say which data set"),
    ],
)
def test_mistakes(capsys, words, code, said):
    found, _, err = run(capsys, *words)
    assert found == code and said in err and err.count("\n") == 1


@pytest.mark.slow
def test_figures_by_size(pytestconfig):
    [row] = load_script(pytestconfig.rootpath / "benchmarks" / "store.py").measure([20], (64, 64))
    assert row["images"] == 20 and all(value > 0 for name, value in row.items() if name.endswith("ms/image"))
