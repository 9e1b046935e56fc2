"""Tokens by their name on the hub: what names are, what is fetched, and what goes wrong there, against a stand-in on loopback."""

import subprocess
import sys
import time

import pytest
import torch
from huggingface_hub import constants

from depthtokens import DepthTokens, DepthTokensError, UsageError, WeightsError
from depthtokens.clip.hubname import HubName
from depthtokens.depth.checkpoint import TOKENS, read_tokens, token_file
from depthtokens.depth.hub import fetch
from helpers import make_model
from hub import TOKEN


@pytest.fixture(scope="module")
def model(tiny_clip):
    return make_model(tiny_clip)


@pytest.fixture(scope="module")
def tokens(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "a.safetensors"
    model.save(path)
    return path.read_bytes()


def downloads(hub):
    return [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]


@pytest.mark.parametrize("text", ["ann/rooms", "hf:ann/rooms", "a1/b.c_d-e"])
def test_names(text):
    assert HubName.read(text) == HubName(text.removeprefix("hf:"))


def test_a_name_may_have_a_revision():
    name = HubName.read("hf:ann/rooms@refs/pr/1")
    assert name == HubName("ann/rooms", "refs/pr/1") == HubName.read("ann/rooms", "refs/pr/1")
    assert HubName.read(str(name)) == name and str(name) == "hf:ann/rooms@refs/pr/1"
    assert HubName.read("ann/rooms@v1", "v1").revision == "v1"


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("rooms", None), ("ann/rooms/x", None), ("../rooms", None), ("ann/..", None), ("/ann/rooms", None), ("", None), ("ann/", None),
        ("ann/ro oms", None), ("ann/rooms@", None), ("ann/rooms@../../x", None), ("ann/rooms@/x", None), ("ann/rooms", "a/../b"),
        ("ann/rooms@v1", "v2"), ("hf:hf:ann/rooms", None), ("änn/rooms", None), ("ann/rooms\n", None), ("ann/rooms@v1\n", None),
    ],
)  # fmt: skip
def test_what_is_no_name(text, revision):
    with pytest.raises(UsageError):
        HubName.read(text, revision)


def test_a_name_that_the_hub_refuses(hub):
    with pytest.raises(UsageError, match="no name of the hub"):
        fetch(HubName.read("ann/a--b"), TOKENS)
    assert not hub.requests


def test_pushed_tokens_are_pulled_as_they_were(hub, model, photo_file):
    done = model.push_to_hub("ann/rooms", token=TOKEN)
    assert done.url.endswith(f"/ann/rooms/commit/{done.id}")
    assert sorted(hub.repositories["ann/rooms"].commits[done.id]) == [".gitattributes", "README.md", TOKENS]
    found = DepthTokens.from_pretrained("ann/rooms", clip=model.clip)
    assert found.settings == model.settings and found.provenance == model.provenance
    assert torch.equal(found.tokens["depth"], model.tokens["depth"])
    assert (found.predict(photo_file).metres == model.predict(photo_file).metres).all()


@pytest.fixture
def photo_file(tmp_path):
    from PIL import Image

    from helpers import photo

    path = tmp_path / "photo.png"
    Image.fromarray(photo(64, 96)).save(path)
    return path


def test_large_files_go_another_way(hub, model):
    hub.large = (".safetensors",)
    model.push_to_hub("ann/rooms", token=TOKEN)
    assert len(hub.blobs) == 1
    assert torch.equal(DepthTokens.from_pretrained("hf:ann/rooms", clip=model.clip).tokens["depth"], model.tokens["depth"])


def test_any_verb_takes_such_a_name(hub, tokens, tmp_path, monkeypatch):
    hub.add("ann/rooms", {TOKENS: tokens})
    assert token_file("hf:ann/rooms").read_bytes() == tokens
    assert read_tokens("hf:ann/rooms")[1].model.depth == "learned:5"
    with pytest.raises(WeightsError, match="is written 'hf:ann/rooms'"):
        read_tokens("ann/rooms")


def test_what_is_cached_is_fetched_once(hub, tokens):
    hub.add("ann/rooms", {TOKENS: tokens})
    first = fetch(HubName.read("ann/rooms"), TOKENS)
    assert fetch(HubName.read("ann/rooms"), TOKENS) == first
    assert len(downloads(hub)) == 1


def test_a_commit_in_the_cache_asks_nobody(hub, tokens):
    commit = hub.add("ann/rooms", {TOKENS: tokens})
    name = HubName("ann/rooms", commit)
    first = fetch(name, TOKENS)
    asked = len(hub.requests)
    assert fetch(name, TOKENS) == first and len(hub.requests) == asked


def test_a_pinned_revision_stays(hub, model, tiny_clip):
    old = model.push_to_hub("ann/rooms", token=TOKEN)
    other = make_model(tiny_clip, seed=7)
    other.push_to_hub("ann/rooms", token=TOKEN)
    other.push_to_hub("ann/rooms", revision="trial", token=TOKEN)
    assert hub.repositories["ann/rooms"].refs.keys() == {"main", "trial"}
    for revision, seed in ((None, 7), (old.id, 42), ("trial", 7)):
        assert DepthTokens.from_pretrained("ann/rooms", revision=revision, clip=tiny_clip).settings.seed == seed
    assert DepthTokens.load(f"hf:ann/rooms@{old.id}", tiny_clip).settings.seed == 42


def test_offline_the_cache_is_read(hub, tokens, monkeypatch):
    hub.add("ann/rooms", {TOKENS: tokens})
    name = HubName.read("ann/rooms")
    with pytest.raises(WeightsError, match="is not in the cache, and nothing may be fetched"):
        fetch(name, TOKENS, local_files_only=True)
    assert not hub.requests
    first = fetch(name, TOKENS)
    asked = len(hub.requests)
    assert fetch(name, TOKENS, local_files_only=True) == first and len(hub.requests) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(name, TOKENS) == first and len(hub.requests) == asked
    with pytest.raises(WeightsError, match="hf:ann/other is not in the cache"):
        fetch(HubName.read("ann/other"), TOKENS)


def test_nothing_is_pushed_offline(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DepthTokensError, match="nothing can be pushed offline"):
        model.push_to_hub("ann/rooms", token=TOKEN)


def test_a_hub_that_is_gone_leaves_the_cache(hub, tokens, monkeypatch):
    hub.add("ann/rooms", {TOKENS: tokens})
    first = fetch(HubName.read("ann/rooms"), TOKENS)
    gone = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", gone)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", gone + "/{repo_id}/resolve/{revision}/{filename}")
    assert fetch(HubName.read("ann/rooms"), TOKENS) == first
    with pytest.raises(WeightsError, match=r"cannot fetch hf:ann/other \(.*\): try again later"):
        fetch(HubName.read("ann/other"), TOKENS)
    with pytest.raises(DepthTokensError, match="cannot push hf:ann/other"):
        raise_push("ann/other")


def raise_push(name):
    from depthtokens.depth.hub import publish

    publish(HubName.read(name), {"README.md": b"x"}, "x", token=TOKEN)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ann/nothing", "no repository ann/nothing on the hub, or a private one"),
        ("ann/private", "no repository ann/private on the hub, or a private one"),
        ("ann/gated", "ann/gated is gated: ask for access"),
        ("ann/rooms@v9", "ann/rooms has no revision 'v9'"),
        ("ann/empty", f"hf:ann/empty holds no {TOKENS}"),
    ],
)
def test_what_is_not_there(hub, tokens, name, said):
    hub.add("ann/rooms", {TOKENS: tokens})
    hub.add("ann/private", {TOKENS: tokens}, private=True)
    hub.add("ann/gated", {TOKENS: tokens}, gated=True)
    hub.add("ann/empty", {"README.md": b"x"})
    with pytest.raises(WeightsError) as error:
        read_tokens(f"hf:{name}")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not downloads(hub)


def test_a_token_opens_what_is_private(hub, tokens):
    hub.add("ann/private", {TOKENS: tokens}, private=True)
    assert fetch(HubName.read("ann/private"), TOKENS, token=TOKEN).read_bytes() == tokens


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 500, 503])
def test_a_hub_that_fails(hub, status):
    hub.fail = status
    with pytest.raises(WeightsError) as error:
        fetch(HubName.read("ann/rooms"), TOKENS)
    assert "ann/rooms" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DepthTokensError, match="ann/rooms") as error:
        raise_push("ann/rooms")
    assert "\n" not in str(error.value)


def test_a_body_that_is_cut_leaves_nothing(hub, tokens):
    hub.add("ann/rooms", {TOKENS: tokens})
    hub.lost = 10
    with pytest.raises(WeightsError, match="cannot fetch hf:ann/rooms"):
        fetch(HubName.read("ann/rooms"), TOKENS)
    hub.lost = 0
    assert fetch(HubName.read("ann/rooms"), TOKENS).read_bytes() == tokens


def test_a_file_that_is_far_too_large_is_not_fetched(hub, tokens):
    hub.add("ann/rooms", {TOKENS: tokens})
    hub.headers = {"X-Linked-Size": str(2**40), "X-Linked-ETag": '"' + "0" * 64 + '"'}
    with pytest.raises(WeightsError, match="1,099,511,627,776 bytes"):
        fetch(HubName.read("ann/rooms"), TOKENS)
    assert not downloads(hub)


def test_a_size_that_is_not_true_is_refused(hub, tokens):
    hub.add("ann/rooms", {TOKENS: tokens})
    hub.headers = {"X-Linked-Size": str(len(tokens) + 1), "X-Linked-ETag": '"' + "0" * 64 + '"'}
    with pytest.raises(WeightsError, match="cannot fetch hf:ann/rooms"):
        fetch(HubName.read("ann/rooms"), TOKENS)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"<html>not found</html>", bytes(1000)])
def test_a_repository_of_something_else(hub, content):
    hub.add("ann/rooms", {TOKENS: content})
    with pytest.raises(WeightsError, match="is damaged or not a token file"):
        DepthTokens.from_pretrained("ann/rooms")


@pytest.mark.parametrize("header", ["ETag", "X-Repo-Commit"])
@pytest.mark.parametrize("value", [None, "", "../../../evil", "a/evil", "C:\\evil", "x" * 5000])
def test_what_does_not_come_from_a_hub(hub, tokens, header, value, tmp_path):
    hub.add("ann/rooms", {TOKENS: tokens})
    hub.headers = {header: value}
    with pytest.raises(WeightsError, match="ann/rooms"):
        fetch(HubName.read("ann/rooms"), TOKENS)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_file_cannot_choose_its_clip(hub, model):
    """The tiny CLIP is remembered from a file; the token file's own word for it is no path that is followed."""
    from depthtokens.clip import remembered

    model.push_to_hub("ann/rooms", token=TOKEN)
    (remembered.cache_folder() / remembered.CLIPS).unlink(missing_ok=True)
    with pytest.raises(WeightsError, match="needs the CLIP 'tiny.pt'"):
        DepthTokens.from_pretrained("ann/rooms")


def test_private_is_not_pushed_to_what_is_public(hub, model, tokens):
    before = hub.add("ann/rooms", {TOKENS: tokens})
    with pytest.raises(UsageError, match="is there and public, so nothing was pushed"):
        model.push_to_hub("ann/rooms", private=True, token=TOKEN)
    assert list(hub.repositories["ann/rooms"].commits) == [before]
    model.push_to_hub("ann/own", private=True, token=TOKEN)
    assert hub.repositories["ann/own"].private
    model.push_to_hub("ann/own", private=True, token=TOKEN)


@pytest.mark.parametrize(("name", "token"), [("ann/rooms", "hf_wrong"), ("ann/rooms", None), ("eve/rooms", TOKEN)])
def test_who_may_not_push(hub, model, name, token):
    with pytest.raises(DepthTokensError, match=f"the hub does not allow this for {name}: log in"):
        model.push_to_hub(name, token=token)
    assert not hub.repositories


def test_tokens_that_are_no_numbers_stay_here(hub, tiny_clip):
    broken = make_model(tiny_clip)
    broken.tokens["depth"].data[0, 0] = float("nan")
    with pytest.raises(WeightsError, match="no numbers"):
        broken.push_to_hub("ann/rooms", token=TOKEN)
    assert not hub.requests


def test_from_pretrained_takes_paths(hub, model, tokens, tmp_path, monkeypatch):
    folder = tmp_path / "ann" / "rooms"
    folder.mkdir(parents=True)
    (folder / TOKENS).write_bytes(tokens)
    monkeypatch.chdir(tmp_path)
    for name in ("ann/rooms", folder, str(folder / TOKENS)):
        assert DepthTokens.from_pretrained(name, clip=model.clip).settings == model.settings
    assert not hub.requests
    with pytest.raises(UsageError, match="is a path, which has no revision"):
        DepthTokens.from_pretrained("ann/rooms", revision="v1")
    with pytest.raises(WeightsError, match="no repository ann/rooms"):
        DepthTokens.from_pretrained("hf:ann/rooms")
    with pytest.raises(UsageError, match="no name of the hub"):
        DepthTokens.from_pretrained("runs/a/tokens.safetensors")


@pytest.mark.slow
def test_the_hub_of_the_environment_is_used(hub, tokens, tmp_path, monkeypatch):
    """As a user sets it; nothing of the hub's library but the result is printed."""
    hub.add("ann/rooms", {TOKENS: tokens})
    for name, value in {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}.items():
        monkeypatch.setenv(name, value)
    words = ["pull", "ann/rooms", "--out", str(tmp_path / "a.safetensors")]
    done = subprocess.run([sys.executable, "-m", "depthtokens", *words], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and len(done.stdout.splitlines()) == 2
    assert (tmp_path / "a.safetensors").read_bytes() == tokens


def test_other_programs_keep_their_bars(hub, tokens):
    from huggingface_hub.utils import are_progress_bars_disabled

    hub.add("ann/rooms", {TOKENS: tokens})
    before = are_progress_bars_disabled()
    fetch(HubName.read("ann/rooms"), TOKENS)
    assert are_progress_bars_disabled() == before


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """The hub's library waits between tries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
