"""Sharing token files: what is pushed, the scores in its card, and what is pulled into a file."""

import json

import pytest

from depthtokens import UsageError, WeightsError
from depthtokens.clip.hubname import HubName
from depthtokens.deploy.hub import contents, pull, push, scores_text, write_contents
from depthtokens.depth.checkpoint import TOKENS, read_tokens
from helpers import make_model
from hub import TOKEN

NAME = HubName("ann/rooms")
PROTOCOL = {"name": "auty2023"}


def row(name, **scores):
    return {"name": name, "protocol": PROTOCOL, "depth_range": [0.5, 10], "images": 654, "scores": {"abs_rel": 0.3, "d1": 0.5, **scores}}


@pytest.fixture(scope="module")
def tokens(tiny_clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / TOKENS
    make_model(tiny_clip).save(path)
    return path


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.json"
    rows = [row("tokens"), row("mean | <b>map</b>", abs_rel=0.47)]
    path.write_text(json.dumps({"tokens": "a", "data": "nyu:/secret/NYU", "split": "test", "rows": rows}))
    return path


def test_there_and_back(hub, tokens, scores, tmp_path):
    done = push(tokens, NAME, scores=scores, licence="mit", message="first", token=TOKEN)
    assert hub.repositories["ann/rooms"].refs == {"main": done.id}
    found = pull(NAME, tmp_path / "b.safetensors")
    assert found.name == HubName("ann/rooms", done.id) and found.file == tmp_path / "b.safetensors"
    (ours, header), (theirs, their_header) = read_tokens(tokens), read_tokens(found.file)
    assert header == their_header == found.header
    assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)
    card = hub.repositories["ann/rooms"].commits[done.id]["README.md"].decode()
    assert "| tokens | 0.300 | 0.500 |" in card and "`mit`" in card


def test_it_can_be_pushed_again(hub, tokens):
    push(tokens, NAME, token=TOKEN)
    commits = hub.repositories["ann/rooms"].commits
    push(tokens, NAME, licence="mit", token=TOKEN)
    assert len(commits) == 3 and pull(NAME).name.revision == hub.repositories["ann/rooms"].refs["main"]


def test_scores_stand_beside_the_controls(scores):
    text = scores_text(scores)
    assert "On `nyu:NYU` `test`, 654 images, truth from 0.5 to 10 m, protocol `auty2023`." in text
    assert "`mean | &lt;b>map&lt;/b>`, which never look at the image" in text
    assert "secret" not in text and "<b>" not in text
    lines = text.splitlines()
    assert lines[2].startswith("|  | AbsRel ↓ | ") and len(lines) == 6
    assert all(line.count("|") == lines[2].count("|") for line in lines[2:])


def test_scores_without_controls_say_so(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps({"rows": [row("tokens")]}))
    assert "On 654 images" in scores_text(tmp_path / "scores.json") and "Without controls" in scores_text(tmp_path / "scores.json")


@pytest.mark.parametrize(
    "said",
    [
        None,
        b"",
        b"[",
        b"[]",
        b"{}",
        b'{"rows": []}',
        b'{"rows": [1]}',
        b'{"rows": [{"name": "a"}]}',
        b"[" * 100000,
        b"\xff\xfe",
        {"rows": [{**row("a"), "images": 10**400}]},
        {"rows": [row("a", abs_rel="x")]},
        {"rows": [row("a"), {"name": "b", "scores": {}}]},
        {"rows": [{**row("a"), "images": "many"}]},
        {"rows": [{**row("a"), "scores": {}}]},
        {"rows": [{**row("a"), "scores": {"other": 1}}]},
        {"rows": [{**row("a"), "depth_range": [1]}]},
        {"rows": [{**row("a"), "images": 1e400}]},
        {"rows": {"a": 1}},
        {"rows": [row(7)]},
        {"data": 7, "rows": [row("a")]},
    ],
)
def test_what_is_no_scores(tmp_path, said):
    path = tmp_path / "scores.json"
    if said is not None:
        path.write_bytes(said if isinstance(said, bytes) else json.dumps(said).encode())
    with pytest.raises(UsageError) as error:
        scores_text(path)
    assert "scores" in str(error.value)


def test_a_run_is_named_by_its_folder(tokens):
    assert contents(tokens.parent, NAME) == contents(tokens, NAME)


def test_what_would_be_pushed_is_written(tokens, tmp_path):
    write_contents(contents(tokens, NAME), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["README.md", TOKENS]
    assert read_tokens(tmp_path / "new")[1] == read_tokens(tokens)[1]
    with pytest.raises(UsageError, match="exists: name a new folder"):
        write_contents({}, tmp_path / "new")


def test_only_token_files_are_pushed(hub, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(WeightsError):
        push(tmp_path / "a.safetensors", NAME, token=TOKEN)
    assert not hub.requests


def test_only_token_files_are_pulled(hub, tmp_path):
    hub.add("ann/rooms", {TOKENS: b"x" * 100})
    with pytest.raises(WeightsError):
        pull(NAME, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_a_file_is_not_replaced_unasked(hub, tokens, tmp_path):
    hub.add("ann/rooms", {TOKENS: tokens.read_bytes()})
    out = tmp_path / "b.safetensors"
    out.write_bytes(b"mine")
    for wrong in (out, tmp_path):
        with pytest.raises(UsageError, match="exists: choose another --out"):
            pull(NAME, wrong)
    assert out.read_bytes() == b"mine" and not hub.requests
    pull(NAME, out, overwrite=True)
    assert out.read_bytes() == tokens.read_bytes()


def test_offline_it_is_pulled_from_the_cache(hub, tokens, tmp_path):
    commit = hub.add("ann/rooms", {TOKENS: tokens.read_bytes()})
    pull(NAME)
    asked = len(hub.requests)
    assert pull(NAME, tmp_path / "b", local_files_only=True).name.revision == commit and len(hub.requests) == asked
