"""CLIPs that token files state: what is loaded for them, what is remembered, and what is never followed."""

from __future__ import annotations

import json

import pytest
import torch

from depthtokens import DepthTokens, load_clip
from depthtokens.clip import CLIPIdentity, load, remembered, stated
from depthtokens.clip.remembered import CLIPS, MOST, recall, remember
from depthtokens.clip.stated import is_public, load_stated
from depthtokens.errors import UsageError, WeightsError

FINGERPRINT = "ab" * 32


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clip_file(tiny_file, tmp_path):
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "clip.pt"
    path.write_bytes(tiny_file.read_bytes())
    return path


# What is remembered


def test_what_was_loaded_from_a_file_is_found_again(clip_file, cache):
    clip = load_clip(clip_file)
    assert recall(clip.fingerprint) == [(str(clip_file), None)]
    assert clip.identity == CLIPIdentity("clip.pt", None, clip.fingerprint)
    assert load_stated(clip.identity).fingerprint == clip.fingerprint
    assert {path.name for path in cache.iterdir()} <= {CLIPS, ".lock"}


def test_named_models_with_files_and_random_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "_create", lambda name, force_quick_gelu=False: tiny())
    clip = load_clip("RN50", None)
    assert clip.identity == CLIPIdentity("RN50", None, clip.fingerprint) and recall(clip.fingerprint) == [("RN50", None)]
    state = tiny().state_dict()
    state["logit_scale"] += 1
    torch.save(state, tmp_path / "w.pt")
    clip = load_clip("RN50", tmp_path / "w.pt")
    assert clip.identity.weights == "w.pt" and recall(clip.fingerprint) == [("RN50", str(tmp_path / "w.pt"))]
    monkeypatch.setattr(load, "_fetched", lambda name, tag: tiny())
    load_clip("hf-hub:org/model")
    assert recall(load.fingerprint(tiny())) == [("hf-hub:org/model", None), ("RN50", None)]


def tiny():
    import open_clip

    from helpers import TINY_CONFIG

    torch.manual_seed(0)
    return open_clip.CLIP(**TINY_CONFIG, quick_gelu=True).eval()


def test_what_needs_no_memory_leaves_none(cache):
    load_clip("bundled")
    assert not cache.exists()


def test_memory_is_bounded_and_the_latest_stays():
    for number in range(MOST + 3):
        remember(f"/clips/{number}.pt", None, f"{number:064x}")
    assert not recall(f"{0:064x}") and not recall(f"{2:064x}")
    assert recall(f"{3:064x}") == [("/clips/3.pt", None)] and recall(f"{MOST + 2:064x}") == [(f"/clips/{MOST + 2}.pt", None)]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"a": 1, "sha256": "0"}', b" " * 2_000_000])
def test_damaged_memory_is_none(content, cache):
    remember("/a.pt", None, FINGERPRINT)
    (cache / CLIPS).write_bytes(content)
    assert not recall(FINGERPRINT)
    remember("/b.pt", "c", FINGERPRINT)
    assert recall(FINGERPRINT) == [("/b.pt", "c")]


def test_memory_of_another_shape(cache):
    cache.mkdir()
    for kept in (3, {"name": "a"}, [3], [{"name": 3}], [{"name": "a"}], [{"name": "a", "weights": 3}]):
        (cache / CLIPS).write_text(json.dumps(remembered.sealed({FINGERPRINT: kept})))
        assert recall(FINGERPRINT) == ([("a", None)] if kept == [{"name": "a"}] else [])


def test_what_cannot_be_kept_is_no_error(clip_file, cache, monkeypatch):
    cache.write_text("in the way")
    fingerprint = load_clip(clip_file).fingerprint
    assert not recall(fingerprint)
    monkeypatch.setenv("DEPTHTOKENS_CACHE", "~nobody-of-that-name/x")
    remember("/a.pt", None, FINGERPRINT)
    assert not recall(FINGERPRINT)


# What a token file may choose


@pytest.mark.parametrize("name", [
    "{file}", "hf-hub:org/model", "local-dir:{folder}", "clip.pt", "RN50 ", "{folder}", "../clip.pt", "", "openai/clip-vit-base-patch32",
])  # fmt: skip
def test_no_path_and_no_hub_name_is_followed(name, clip_file, tiny_clip, monkeypatch):
    monkeypatch.chdir(clip_file.parent)
    monkeypatch.setattr(stated, "load_clip", lambda *_: pytest.fail("a file's wish was followed"))
    identity = CLIPIdentity(name.format(file=clip_file, folder=clip_file.parent), None, tiny_clip.fingerprint)
    with pytest.raises(WeightsError, match=f"fingerprint {tiny_clip.fingerprint[:12]}: give it with --clip .clip= in Python.;.*bundled"):
        load_stated(identity)


@pytest.mark.parametrize("weights", [None, "{file}", "clip.pt", "random", "./openai"])
def test_no_weights_file_is_followed(weights, clip_file, monkeypatch):
    monkeypatch.chdir(clip_file.parent)
    monkeypatch.setattr(stated, "load_clip", lambda *_: pytest.fail("a file's wish was followed"))
    with pytest.raises(WeightsError, match="needs the CLIP 'RN50' with fingerprint abababababab: give it with --clip"):
        load_stated(CLIPIdentity("RN50", weights and weights.format(file=clip_file), FINGERPRINT))


def test_a_file_called_as_a_tag_does_not_stand_for_it(clip_file, monkeypatch):
    monkeypatch.chdir(clip_file.parent)
    clip_file.rename("openai")
    monkeypatch.setattr(load, "read_weights", lambda *_: pytest.fail("the file was read"))
    monkeypatch.setattr(load, "_fetched", lambda name, tag: tiny())
    assert is_public("RN50", "openai") and load_stated(CLIPIdentity("RN50", "openai", FINGERPRINT)).name == "RN50"
    with pytest.raises(pytest.fail.Exception, match="the file was read"):
        load_clip("RN50", "./openai")


def test_the_bundled_clip_needs_nothing():
    assert load_stated(CLIPIdentity("bundled", None, FINGERPRINT)).name == "bundled"


def test_a_copy_that_is_gone_does_not_hide_the_others(clip_file):
    copy = clip_file.with_name("copy.pt")
    copy.write_bytes(clip_file.read_bytes())
    clip = load_clip(clip_file)
    assert recall(load_clip(copy).fingerprint) == [(str(copy), None), (str(clip_file), None)]
    copy.unlink()
    assert load_stated(clip.identity).name == str(clip_file)


def test_what_was_remembered_and_is_gone_or_changed(clip_file):
    clip = load_clip(clip_file)
    state = torch.load(clip_file, weights_only=True)
    state["logit_scale"] += 1
    torch.save(state, clip_file)
    with pytest.raises(WeightsError, match=f"{clip_file}, where it was loaded from, has changed since"):
        load_stated(clip.identity)
    clip_file.unlink()
    with pytest.raises(WeightsError, match=f"last loaded from {clip_file}: no CLIP file or folder"):
        load_stated(clip.identity)


def test_a_tag_that_cannot_be_had_gives_way_to_what_is_remembered(clip_file, monkeypatch):
    clip = load_clip(clip_file)
    identity = CLIPIdentity("RN50", "openai", clip.fingerprint)

    def offline(name, tag):
        raise WeightsError("cannot fetch")

    monkeypatch.setattr(load, "_fetched", offline)
    assert load_stated(identity).name == str(clip_file)
    clip_file.unlink()
    with pytest.raises(WeightsError, match="give it with --clip"):
        load_stated(identity)


# Token files


def test_tokens_find_their_clip_on_this_machine_only(clip_file, cache, tmp_path):
    model = DepthTokens(load_clip(clip_file), depth="learned:2", dense="value")
    model.save(tmp_path / "t.safetensors")
    assert str(tmp_path).encode() not in (tmp_path / "t.safetensors").read_bytes()
    assert torch.equal(DepthTokens.load(tmp_path / "t.safetensors").tokens["depth"], model.tokens["depth"])
    (cache / CLIPS).unlink()  # as on another machine
    with pytest.raises(WeightsError, match=f"t.safetensors needs the CLIP 'clip.pt' with fingerprint {model.clip.fingerprint[:12]}: give"):
        DepthTokens.load(tmp_path / "t.safetensors")
    assert DepthTokens.load(tmp_path / "t.safetensors", load_clip(clip_file)).settings == model.settings


def test_weights_alone_are_for_a_model_by_name(clip_file, tmp_path):
    from depthtokens.cli.flags import TokenFlags

    DepthTokens(load_clip(clip_file), depth="learned:2", dense="value").save(tmp_path / "t.safetensors")
    with pytest.raises(UsageError, match="state no open_clip model, but 'clip.pt': give --clip beside --weights"):
        TokenFlags(weights=str(clip_file)).load(tmp_path / "t.safetensors")
    assert TokenFlags(clip=str(clip_file)).load(tmp_path / "t.safetensors").clip.name == str(clip_file)
