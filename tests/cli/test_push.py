"""The verbs `push` and `pull`, and hub names in the place of token files."""

import json

import pytest
from PIL import Image

from depthtokens.depth.checkpoint import TOKENS
from helpers import make_model, photo, refused, run
from hub import TOKEN


@pytest.fixture
def tokens(tiny_clip, tmp_path):
    make_model(tiny_clip).save(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


@pytest.fixture
def logged_in(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_push_and_pull(capsys, hub, tokens, tmp_path, logged_in):
    code, out, err = run(capsys, "push", tokens, "ann/rooms", "--licence", "mit")
    commit = hub.repositories["ann/rooms"].refs["main"]
    assert code == 0 and not err
    assert out.splitlines()[0].endswith(f"/ann/rooms/commit/{commit}")
    assert out.splitlines()[1] == f"next: depthtokens predict hf:ann/rooms@{commit} PHOTO.jpg"
    code, out, err = run(capsys, "pull", "ann/rooms", "--out", tmp_path / "b.safetensors")
    assert code == 0 and not err and f"(pinned: hf:ann/rooms@{commit})" in out
    assert (tmp_path / "b.safetensors").read_bytes() == tokens.read_bytes()


def test_json(capsys, hub, tokens, tmp_path, logged_in):
    done = json.loads(run(capsys, "push", tokens, "hf:ann/rooms", "--revision", "trial", "--private", "--json")[1])
    assert done["name"] == "hf:ann/rooms@trial" and done["commit"] == hub.repositories["ann/rooms"].refs["trial"]
    assert hub.repositories["ann/rooms"].private
    found = json.loads(run(capsys, "pull", "ann/rooms@trial", "--json")[1])
    assert found["name"] == f"hf:ann/rooms@{done['commit']}" and found["depth"] == "learned:5" and found["clip"] == "tiny.pt"


def test_dry_run_pushes_nothing(capsys, hub, tokens, tmp_path):
    code, out, _ = run(capsys, "push", tokens, "ann/rooms", "--dry-run", tmp_path / "new")
    assert code == 0 and "nothing was pushed" in out and not hub.requests
    assert (tmp_path / "new" / TOKENS).read_bytes() == tokens.read_bytes()
    assert "# rooms" in (tmp_path / "new" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["pull", "rooms"], "'rooms' is no name of the hub", 2),
        (["pull", "ann/rooms"], "no repository ann/rooms on the hub", 1),
        (["pull", "ann/rooms@v1", "--revision", "v2"], "two revisions", 2),
        (["predict", "hf:ann/rooms", "photo.jpg"], "no repository ann/rooms on the hub", 1),
        (["export", "hf:ann/rooms", "--onnx", "a.onnx"], "no repository ann/rooms on the hub", 1),
        (["study", "hf:ann/rooms", "--out", "study"], "no repository ann/rooms on the hub", 1),
        (["evaluate", "hf:ann", "--data", "scenes"], "'hf:ann' is no name of the hub", 2),
        (["push", "missing.safetensors", "ann/rooms"], "no token file at missing.safetensors", 1),
    ],
)
def test_refusals_are_one_line(capsys, hub, tmp_path, monkeypatch, words, said, code):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(64, 96)).save("photo.jpg")
    assert said in refused(capsys, *words, code=code)


def test_who_is_not_logged_in_cannot_push(capsys, hub, tokens):
    assert "log in with `hf auth login`" in refused(capsys, "push", tokens, "ann/rooms", code=1)


def test_a_hub_name_stands_for_the_file(capsys, hub, tokens, tmp_path, tiny_file, monkeypatch):
    hub.add("ann/rooms", {TOKENS: tokens.read_bytes()})
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(64, 96)).save("photo.png")
    for out, name in (("theirs", "hf:ann/rooms"), ("ours", tokens)):
        code, _, err = run(capsys, "predict", name, "photo.png", "--clip", tiny_file, "--out", out, "--formats", "npy")
        assert code == 0, err
    (theirs,), (ours,) = ((tmp_path / out).glob("*.npy") for out in ("theirs", "ours"))
    assert theirs.read_bytes() == ours.read_bytes()
