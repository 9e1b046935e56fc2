"""The command line as a user meets it: verbs, JSON, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from depthtokens import DepthTokens
from depthtokens.cli import VERBS
from helpers import run


@pytest.fixture(scope="module")
def tokens(tiny_clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    DepthTokens(tiny_clip, depth="learned:5", predict_side=96).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_help_and_import_load_no_torch():
    code = (
        "import sys, depthtokens; from depthtokens.cli import main; main(['--help']); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_without_torch(verb):
    code = f"import sys; from depthtokens.cli import main\ntry: main({verb.split()!r} + ['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False" and "--data" in done.stdout + " --data"


def test_train_evaluate_predict(capsys, nyu_tree, tiny_file, photos, tmp_path):
    out = tmp_path / "run"
    code, stdout, _ = run(capsys, "train", "--data", f"nyu:{nyu_tree}", "--clip", tiny_file, "--out", out, "--epochs", 1, "--batch-size", 3,
                          "--crop", 64, 96, "--workers", 0, "--depth", "learned:5", "--bins", "log")  # fmt: skip
    assert code == 0 and f"evaluate {out}/tokens.safetensors" in stdout
    code, stdout, _ = run(capsys, "evaluate", out / "tokens.safetensors", "--data", f"nyu:{nyu_tree}", "--workers", 0, "--json",
                          "--csv", tmp_path / "images.csv")  # fmt: skip
    rows = json.loads(stdout)["rows"]
    assert code == 0 and [row["name"] for row in rows] == ["tokens", "constant", "mean map"]
    assert rows[0]["protocol"]["name"] == "auty2023" and rows[0]["images"] == 3 and 0 < rows[0]["scores"]["abs_rel"] < 10
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 4
    code, stdout, _ = run(
        capsys, "evaluate", out / "tokens.safetensors", "--data", f"nyu:{nyu_tree}", "--workers", 0, "--protocol", "depthclip"
    )
    assert code == 0 and "protocol depthclip" in stdout and "mean map" in stdout and "pooled over pixels" in stdout
    code, stdout, _ = run(capsys, "train", "--resume", out, "--json")
    assert code == 0 and json.loads(stdout)["interrupted"] is False  # nothing left to do
    formats = ("--formats", "png", "npy", "colour", "side")
    code, stdout, _ = run(capsys, "predict", out / "tokens.safetensors", photos, "--out", tmp_path / "depth", *formats, "--json")
    images = json.loads(stdout)["images"]
    assert code == 0 and len(images) == 2 and len(list((tmp_path / "depth").iterdir())) == 8
    metres = np.load(tmp_path / "depth" / "a_depth.npy")
    assert metres.shape == (96, 128) and images[0]["max"] == pytest.approx(metres.max())
    assert np.abs(np.asarray(Image.open(tmp_path / "depth" / "a_depth.png")) / 1000 - metres).max() < 1e-3


def test_settings_from_toml_and_flags(capsys, nyu_tree, tiny_file, tmp_path):
    (tmp_path / "e.toml").write_text(
        f'data = "nyu:{nyu_tree}"\nclip = "{tiny_file}"\nepochs = 3\ncrop = [64, 96]\nworkers = 0\nbatch_size = 6\n'
    )
    code, stdout, _ = run(capsys, "train", "--config", tmp_path / "e.toml", "--epochs", 1, "--out", tmp_path / "run", "--json")
    assert code == 0 and json.loads(stdout)["trained_parameters"] == 7 * 64
    written = (tmp_path / "run" / "experiment.toml").read_text()
    assert "epochs = 1\n" in written and "crop = [64, 96]\n" in written


def test_predict_refuses_to_overwrite_and_reports_bad_files(capsys, tokens, photos, tmp_path):
    words = ("predict", tokens, photos / "*.jpg", "--out", tmp_path / "out", "--formats", "npy")
    assert run(capsys, *words)[0] == 0
    code, _, err = run(capsys, *words)
    assert code == 2 and "--overwrite" in err
    assert run(capsys, *words, "--overwrite")[0] == 0
    (tmp_path / "bad.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
    (tmp_path / "text.png").write_text("no image")
    code, _stdout, err = run(
        capsys, "predict", tokens, tmp_path / "bad.jpg", tmp_path / "text.png", photos / "b.png", "--out", tmp_path / "o2"
    )
    assert code == 1 and "2 of 3 images could not be read" in err and (tmp_path / "o2" / "b_depth.png").is_file()
    code, _, err = run(capsys, "predict", tokens, tmp_path / "nowhere" / "*.jpg")
    assert code == 1 and "no image at" in err
    (tmp_path / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    code, _, err = run(capsys, "predict", tokens, photos / "a.jpg", tmp_path / "a.jpg", "--out", tmp_path / "o3")
    assert code == 2 and "same name" in err


def test_data_check(capsys, nyu_tree, tmp_path):
    code, stdout, _ = run(capsys, "data", "check", f"nyu:{nyu_tree}", "--split", "test")
    assert code == 0 and "3 pairs" in stdout and "480x640 (3)" in stdout
    code, stdout, _ = run(capsys, "data", "check", f"nyu:{nyu_tree}", "--json")
    assert code == 0 and json.loads(stdout)["pairs"] == 6
    for folder, value in (("images", np.zeros((40, 40, 3), np.uint8)), ("depth", np.full((40, 40), 3000, np.uint16))):
        (tmp_path / "train" / folder).mkdir(parents=True)
        Image.fromarray(value).save(tmp_path / "train" / folder / "x.png")
    code, stdout, _ = run(capsys, "data", "check", f"folder:{tmp_path}", "--depth-scale", 1)
    assert "did you mean --depth-scale 1000?" in stdout
    (tmp_path / "train" / "images" / "x.png").write_bytes(b"broken")
    code, stdout, _ = run(capsys, "data", "check", f"folder:{tmp_path}", "--depth-scale", 1000)
    assert code == 1 and "unreadable: 1" in stdout


@pytest.mark.parametrize(("words", "code", "message"), [
    (["trian"], 2, "did you mean 'train'"),
    (["data", "chek"], 2, "did you mean 'data check'"),
    (["train", "--data", "nyu:{none}"], 1, "no folder"),
    (["train", "--data", "nyv:{root}"], 2, "did you mean 'nyu'"),
    (["train", "--data", "{root}"], 2, "nyu:{root}"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--depth", "learned:8", "--bins", "linear:7"], 2, "need 8 bins"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--template", "no slot"], 2, "has no {{depth}}"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--scale", "aty2023"], 2, "did you mean 'auty2023'"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--depth", "depth-7"], 1, "nothing to learn"),
    (["train", "--data", "nyu:{root}", "--clip", "RN5O"], 2, "did you mean 'RN50"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--crop", "600", "700", "--workers", "0"], 1, "smaller than the"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--crop", "600", "700", "--workers", "1"], 1, "smaller than the"),
    (["train", "--resume", "{none}"], 2, "nothing to resume"),
    (["train", "--config", "{none}"], 2, "no configuration"),
    (["evaluate", "{none}", "--data", "nyu:{root}"], 1, "no token file"),
    (["evaluate", "{tokens}", "--data", "nyu:{root}", "--protocol", "auty"], 2, "did you mean 'auty2023'"),
    (["predict", "{tokens}", "{root}/missing.jpg"], 1, "no image at"),
    (["predict", "{tokens}"], 2, "no images given"),
    (["predict", "{tokens}", "{photo}", "--out", "{file}"], 1, "{file}"),
    (["predict", "{tokens}", "{photo}", "--out", "{file}/x"], 1, "{file}/x"),
    (["predict", "{tokens}", "{strip}"], 1, "smaller than one 32x32 patch"),
    (["predict", "{tokens}", "{photo}", "--precision", "float8"], 2, "did you mean 'float"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--out", "{file}"], 2, "is a file"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--out", "{file}/x"], 1, "{file}/x"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--weights", "other.pt"], 2, "or the file alone"),
    (["train", "--data", "nyu:{root}", "--clip", "~nobody-here/x.pt"], 2, "no such home folder"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--epochs", "x"], 2, "--epochs"),
    (["train", "--data", "nyu:{root}", "--clip", "{clip}", "--epoch", "3"], 2, "--epoch"),
    (["evaluate", "{tokens}", "--data", "nyu:{root}", "--csv", "{none}/x.csv"], 2, "no folder"),
    (["evaluate", "{tokens}", "--data", "nyu:{root}", "--batch-size", "0"], 2, "batch size 0"),
    (["evaluate", "{tokens}", "--data", "nyu:{root}", "--train-list", "{none}"], 1, "--no-controls"),
    (["train", "--data", "nyu:{root}", "--list-file", "{list}"], 1, "4 of 4 files are not in"),
])  # fmt: skip
def test_mistakes_get_one_helpful_line(capsys, nyu_tree, tiny_file, tokens, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("a/b.jpg a/b.png 1\nc/d.jpg c/d.png 1\n")
    names = {"root": nyu_tree, "none": tmp_path / "none", "clip": tiny_file, "tokens": tokens, "list": tmp_path / "list.txt",
             "file": tmp_path / "file", "photo": tmp_path / "photo.png", "strip": tmp_path / "strip.png"}  # fmt: skip
    (tmp_path / "file").write_text("in the way")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "photo.png")
    Image.fromarray(np.zeros((20, 64, 3), np.uint8)).save(tmp_path / "strip.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, stdout, err = run(capsys, *(word.format(**names) for word in words))
    lines = [line for line in err.splitlines() if line.startswith("depthtokens:")]
    assert found == code and len(lines) == 1 and message.format(**names) in lines[0] and not stdout
    assert "Traceback" not in err
    assert not (tmp_path / "runs" / "tokens" / "tokens.safetensors").exists()


def test_unknown_flags_exit_with_two(capsys):
    code, _, err = run(capsys, "train", "--data", "nyu:x", "--epoch", 3)
    assert code == 2 and "epoch" in err and err.count("\n") == 1


def test_a_folder_s_scale_and_range_are_remembered(capsys, tiny_file, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("images", "depth"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "data" / split / "images" / "[a].png")
        Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(tmp_path / "data" / split / "depth" / "[a].png")
    data = ("--data", f"folder:{tmp_path / 'data'}")
    code, *_ = run(capsys, "train", *data, "--depth-scale", 1000, "--depth-range", 1, 80, "--clip", tiny_file, "--out", tmp_path / "run",
                   "--epochs", 1, "--workers", 0)  # fmt: skip
    code, stdout, _ = run(capsys, "evaluate", tmp_path / "run" / "tokens.safetensors", *data, "--workers", 0, "--json")
    rows = json.loads(stdout)["rows"]
    assert code == 0 and rows[0]["depth_range"] == [1, 80] and rows[1]["scores"]["abs_rel"] == pytest.approx(0, abs=1e-5)
    code, stdout, _ = run(
        capsys, "predict", tmp_path / "run" / "tokens.safetensors", tmp_path / "data" / "test" / "images", "--out", tmp_path / "[/x]"
    )
    assert code == 0 and "[a].png" in stdout


def test_debug_shows_the_traceback(capsys, tmp_path):
    code, _, err = run(capsys, "evaluate", tmp_path / "none", "--data", "nyu:x", "--debug")
    assert code == 1 and "Traceback" in err
