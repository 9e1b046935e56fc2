"""The command line as a user meets it: verbs, JSON, exit codes, one-line errors."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from depthtokens import DepthTokens
from depthtokens.cli import VERBS
from depthtokens.depth.checkpoint import read
from depthtokens.depth.checkpoint import write as write_file
from depthtokens.depth.depthmap import colourise
from depthtokens.experiment import train as module
from depthtokens.experiment.config import RECIPES
from forked import COMMAND, python
from helpers import refused, run


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
    assert code == 0 and [row["name"] for row in rows] == ["tokens", "ridge", "constant", "mean map"]
    assert [row["trained_parameters"] for row in rows] == [5 * 64, 65, 1, 480 * 640]
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
    assert code == 0 and len(images) == 2 and len(list((tmp_path / "depth").glob("*_*"))) == 8
    metres = np.load(tmp_path / "depth" / "a_depth.npy")
    assert metres.shape == (96, 128) and images[0]["max"] == pytest.approx(metres.max())
    assert np.abs(np.asarray(Image.open(tmp_path / "depth" / "a_depth.png")) / 1000 - metres).max() < 1e-3


def test_settings_from_toml_recipe_and_flags(capsys, nyu_tree, tiny_file, tmp_path, monkeypatch):
    (tmp_path / "e.toml").write_text(
        f'data = "nyu:{nyu_tree}"\nclip = "{tiny_file}"\nepochs = 3\ncrop = [64, 96]\nworkers = 0\nbatch_size = 6\n'
    )
    code, stdout, _ = run(
        capsys, "train", "--config", tmp_path / "e.toml", "--recipe", "tuned", "--epochs", 1, "--out", tmp_path / "run", "--depth",
        "metres:5", "--bins", "linear", "--scale", "learned", "--json",
    )  # fmt: skip
    assert code == 0 and json.loads(stdout)["trained_parameters"] == 1
    written = (tmp_path / "run" / "experiment.toml").read_text()
    assert "epochs = 1\n" in written and "crop = [64, 96]\n" in written and f'objective = "{RECIPES["tuned"]["objective"]}"\n' in written
    assert DepthTokens.load(tmp_path / "run").words[0] == "1.0 metres"  # numbers as words, from a file
    with monkeypatch.context() as patched:
        patched.setattr(module, "train", lambda experiment, **_: pytest.fail(experiment.to_toml()))
        with pytest.raises(pytest.fail.Exception, match="lr = 0.5") as caught:
            run(capsys, "train", "--recipe", "tuned", "--data", "nyu:x", "--lr", 0.5)
    assert f'objective = "{RECIPES["tuned"]["objective"]}"\n' in str(caught.value)


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
    assert [line.split(":")[0] for line in err.splitlines() if "tmp" in line] == ["failed", "failed"]
    code, _, err = run(capsys, "predict", tokens, tmp_path / "nowhere" / "*.jpg")
    assert code == 1 and "no image at" in err
    (tmp_path / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    code, _, err = run(capsys, "predict", tokens, photos / "a.jpg", tmp_path / "a.jpg", "--out", tmp_path / "o3")
    places = {path.relative_to(tmp_path / "o3").parts[-2] for path in (tmp_path / "o3").rglob("a_depth.png")}
    assert code == 0 and places == {photos.name, tmp_path.name}, err


def test_predict_sums_up(capsys, tokens, photos, tmp_path):
    words = ("predict", tokens, photos, "--out", tmp_path / "[/out]", "--formats", "npy")
    code, stdout, _ = run(capsys, *words)
    assert code == 0 and re.fullmatch(
        r"2 of 2 images predicted in [\d.]+ s \([\d.e+]+ images/s\); depth [\d.]+ to [\d.]+ m, written to .*\n", stdout
    )
    code, stdout, _ = run(capsys, *words, "--resume", "--verbose")
    assert (
        code == 0 and "0 of 2 images predicted" in stdout and "2 were there before" in stdout and "a.jpg" in stdout and "[/out]" in stdout
    )
    code, stdout, _ = run(capsys, *words, "--resume", "--json")
    assert json.loads(stdout)["summary"]["kept"] == 2


def test_predict_names_every_failure(capsys, tokens, photos, tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_text("no image")
    code, stdout, err = run(capsys, "predict", tokens, tmp_path, photos / "b.png", "--out", tmp_path / "out", "--formats", "npy", "--json")
    found = json.loads(stdout)
    assert code == 1 and len(found["images"]) == 1 and len(found["failed"]) == 5
    assert all(f"{i}.jpg" in line for i, line in enumerate(found["failed"]))
    assert sum(line.startswith("failed: ") for line in err.splitlines()) == 5 and "5 of 6 images could not be read" in err


def test_predict_names_what_it_leaves_out(capsys, tokens, photos, tmp_path):
    (tmp_path / "IMG_1.JPG").write_bytes((photos / "a.jpg").read_bytes())
    (tmp_path / "._IMG_1.JPG").write_bytes(b"\0\5\x16\7")  # what a Mac leaves beside a file
    (tmp_path / "IMG_2.HEIC").write_bytes(b"\0\0\0\x24ftypheic")
    (tmp_path / "notes.txt").write_text("x")
    words = ("predict", tokens, tmp_path, "--out", tmp_path / "out", "--formats", "npy")
    code, _, err = run(capsys, *words)
    assert code == 0 and "1 files look like photos and are not read" in err and "IMG_2.HEIC" in err and "notes" not in err
    assert [path.name for path in (tmp_path / "out").glob("*_*")] == ["IMG_1_depth.npy"]
    code, stdout, _ = run(capsys, *words, "--overwrite", "--json")
    assert code == 0 and json.loads(stdout)["left_out"] == [str(tmp_path / "IMG_2.HEIC")]
    (tmp_path / "IMG_1.JPG").unlink()
    code, _, err = run(capsys, *words, "--overwrite")
    assert code == 1 and "no image to predict" in err and "IMG_2.HEIC" in err


def test_predict_takes_a_run_s_folder_and_home(capsys, tokens, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "tokens.safetensors").write_bytes(tokens.read_bytes())
    (tmp_path / "one.png").write_bytes((photos / "b.png").read_bytes())
    for name in ("~/one.png", "~/o*.png"):
        code, _, err = run(capsys, "predict", "~/runs/a", name, "--out", "~/depth", "--formats", "npy", "--overwrite")
        assert code == 0 and (tmp_path / "depth" / "one_depth.npy").is_file(), err
    assert not (tmp_path / "~").exists()


def test_predict_with_a_long_name(capsys, tokens, photos, tmp_path):
    names = ["ä" * 120 + ".png", "ä" * 119 + "b.png"]  # letters of two bytes each
    for name in names:
        (tmp_path / name).write_bytes((photos / "b.png").read_bytes())
    code, _, err = run(capsys, "predict", tokens, tmp_path, "--out", tmp_path / "out", "--formats", "npy", "png")
    found = [path.name for path in (tmp_path / "out").glob("*_*")]
    assert code == 0 and len(found) == 4 and all(name.startswith("ä" * 80) and len(name.encode()) <= 200 for name in found), err


def test_predict_at_another_scale(capsys, tokens, photos, tmp_path):
    """`--side` and `--flip` reach the model, and a batch's colours mean the same metres in every picture."""
    model = DepthTokens.load(tokens)
    words = ("predict", tokens, photos / "a.jpg", photos / "b.png", "--formats", "npy", "colour", "--out")
    assert run(capsys, *words, tmp_path / "plain")[0] == 0
    assert run(capsys, *words, tmp_path / "other", "--side", 64, "--flip", "--colour-range", 2, 6)[0] == 0
    for out, lo, hi, kwargs in (("plain", *model.depth_range, {}), ("other", 2, 6, {"side": 64, "flip": True})):
        for name in ("a.jpg", "b.png"):
            expected = model.predict(photos / name, **kwargs)
            assert np.array_equal(np.load(tmp_path / out / f"{name[0]}_depth.npy"), expected.metres)
            picture = np.asarray(Image.open(tmp_path / out / f"{name[0]}_colour.png"))
            assert np.array_equal(picture, colourise(expected.metres, lo, hi))


def test_no_number_is_a_figure(capsys, tokens, photos, tmp_path):
    tensors, header = read(tokens)
    tensors["tokens.depth"][1, 3] = float("nan")
    write_file(tmp_path / "nan.safetensors", tensors, header)
    for verb in (("predict", photos / "a.jpg", "--out", tmp_path / "out"), ("export", "--onnx", tmp_path / "m.onnx")):
        said = refused(capsys, verb[0], tmp_path / "nan.safetensors", *verb[1:], code=1)
        assert "'tokens.depth' holds 1 values that are no numbers" in said and "lower --lr" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "m.onnx").exists()


def test_the_scale_of_pngs_is_said(capsys, tiny_clip, photos, tmp_path):
    DepthTokens(tiny_clip, depth_range=(0.001, 300.0)).save(tmp_path / "far.safetensors")
    code, stdout, _ = run(capsys, "predict", tmp_path / "far.safetensors", photos / "a.jpg", "--out", tmp_path / "out")
    assert code == 0 and "divided by 128" in stdout
    assert Image.open(tmp_path / "out" / "a_depth.png").text["depth_scale"] == "128"


def test_what_train_prints_next_can_be_run(capsys, nyu_tree, tiny_file, tmp_path):
    root, out = tmp_path / "my data", tmp_path / "a run"
    root.symlink_to(nyu_tree)
    code, stdout, err = run(capsys, "train", "--data", f"nyu:{root}", "--clip", tiny_file, "--out", out, "--epochs", 1, "--batch-size", 6,
                            "--crop", 64, 96, "--workers", 0)  # fmt: skip
    line = next(line for line in stdout.splitlines() if line.startswith("next:"))
    words = shlex.split(line.removeprefix("next:"))
    assert code == 0 and words[0] == "depthtokens", err
    assert run(capsys, *words[1:], "--workers", 0)[0] == 0


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
    (["train", "--resume", "{none}", "--recipe", "tuned"], 2, "keeps its own settings"),
    (["train", "--recipe", "tunde", "--data", "nyu:{root}"], 2, "did you mean 'tuned'"),
    (["train", "--config", "{none}"], 2, "no configuration"),
    (["evaluate", "{none}", "--data", "nyu:{root}"], 1, "no token file"),
    (["evaluate", "{tokens}", "--data", "nyu:{root}", "--protocol", "auty"], 2, "did you mean 'auty2023'"),
    (["predict", "{tokens}", "{root}/missing.jpg"], 1, "no image at"),
    (["predict", "{tokens}"], 2, "no images given"),
    (["predict", "{tokens}", "{photo}", "--out", "{file}"], 1, "{file}"),
    (["predict", "{tokens}", "{photo}", "--out", "{file}/x"], 1, "{file}/x"),
    (["predict", "{tokens}", "{strip}"], 1, "shown at 96x192000: crop it"),
    (["predict", "{tokens}", "{photo}", "--side", "20"], 2, "side 20: needs a whole number of pixels, at least 32"),
    (["predict", "{tokens}", "{photo}", "--colour-range", "3", "1"], 2, "the smaller first"),
    (["predict", "{tokens}", "{photo}", "--colour-map", "magna"], 2, "did you mean 'magma'"),
    (["predict", "{none}", "{photo}"], 1, "no token file"),
    (["predict", "{root}", "{photo}"], 1, "is a folder without tokens.safetensors"),
    (["predict", "~nobody-here/x", "{photo}"], 2, "no such home folder"),
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
    Image.fromarray(np.zeros((1, 2000, 3), np.uint8)).save(tmp_path / "strip.png")
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
        capsys,
        "predict",
        tmp_path / "run" / "tokens.safetensors",
        tmp_path / "data" / "test" / "images",
        "--out",
        tmp_path / "[/x]",
        "--verbose",
    )
    assert code == 0 and "[a].png" in stdout and "[/x]" in stdout


def test_debug_shows_the_traceback(capsys, tmp_path):
    code, _, err = run(capsys, "evaluate", tmp_path / "none", "--data", "nyu:x", "--debug")
    assert code == 1 and "Traceback" in err


def test_warnings_are_one_line(tiny_file, tiny_clip, tmp_path):
    DepthTokens(tiny_clip, depth="learned:5").save(tmp_path / "tokens.safetensors")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    code, _, err = python(COMMAND, "predict", tmp_path, tmp_path / "a.png", "--out", tmp_path / "out", "--clip", tiny_file)
    assert code == 0, err
    assert [line for line in err.splitlines() if line.startswith("warning: tiny.pt does not say its activation")]
    assert "UserWarning" not in err and "warnings.warn" not in err
