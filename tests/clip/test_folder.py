"""open_clip folders from others: read as data, or refused with a reason; nothing is fetched, run or claimed."""

from __future__ import annotations

import json
import os
import socket
import sys
import types

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from depthtokens import WeightsError, load_clip
from depthtokens.clip.load import fingerprint
from helpers import TINY_CONFIG

CONFIG = {**TINY_CONFIG, "quick_gelu": True}


@pytest.fixture
def folder(tmp_path, tiny_model, monkeypatch):
    """The tiny CLIP as an open_clip folder, in a process that cannot reach the network."""

    def refuse(*_args, **_kwargs):
        pytest.fail("the network was asked")

    for owner, name in ((socket, "create_connection"), (socket, "getaddrinfo"), (socket.socket, "connect")):
        monkeypatch.setattr(owner, name, refuse)
    save_file({key: value.clone() for key, value in tiny_model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    configure(tmp_path, CONFIG)
    return tmp_path


def configure(folder, config):
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


def changed(tower, **values):
    return {**CONFIG, tower: {**CONFIG[tower], **values}}


def test_a_folder_is_read_as_open_clip_reads_it(folder):
    assert load_clip(folder).fingerprint == fingerprint(open_clip.create_model(f"local-dir:{folder}"))


@pytest.mark.parametrize(("config", "message"), [
    (changed("text_cfg", hf_model_name="org/model"), "names a text model of the hub, which is not fetched .* hf-hub:ORG/MODEL"),
    ({**CONFIG, "multimodal_cfg": {"hf_model_name": "org/model"}}, "names a text model of the hub"),
    (changed("vision_cfg", timm_model_name="hf-hub:org/model"), "names an image tower that timm does not have"),
    (changed("vision_cfg", timm_model_name="local-dir:/tmp", timm_model_pretrained=True), "names an image tower that timm does not have"),
    (changed("vision_cfg", timm_model_name=["resnet18"]), "names an image tower that timm does not have"),
    (changed("text_cfg", layers=10**9), "more than 1000 layers"), (changed("vision_cfg", layers=[1, 1, 1, 10**9]), "more than 1000 layers"),
    (changed("vision_cfg", layers=-1), "more than 1000 layers"), (changed("text_cfg", layers="12"), "more than 1000 layers"),
    (changed("text_cfg", width=10**6, heads=1), "far more than its weights have|cannot load the open_clip folder"),
    (changed("text_cfg", vocab_size=10**9), "far more than its weights have"),
    (changed("text_cfg", context_length=10**5), "far more than its weights have"),
    (changed("vision_cfg", layers=12, image_size=10**5, patch_size=1), "far more than its weights have|cannot load"),
    ({**CONFIG, "embed_dim": 10**9}, "far more than its weights have|cannot load"),
    ({**CONFIG, "embed_dim": 10**30}, "cannot load the open_clip folder"),
    (changed("text_cfg", tokenizer_kwargs={"trust_remote_code": True}), "says more of its tokenizer than clean, language"),
    (changed("text_cfg", tokenizer_kwargs={"bpe_path": "/etc/passwd"}), "says more of its tokenizer"),
    (changed("text_cfg", nonsense=1), "cannot load the open_clip folder"),
    ({"vision_cfg": {}, "text_cfg": 5}, "describes no towers"), ([1], "cannot load the open_clip folder"),
])  # fmt: skip
def test_configurations_that_ask_for_more(folder, config, message):
    configure(folder, config)
    with pytest.raises(WeightsError, match=message) as caught:
        load_clip(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, '{"model_cfg": ' + "9" * 10**5 + "}", " " * 2**21], ids=range(5))
def test_configurations_that_are_none(folder, text):
    (folder / "open_clip_config.json").write_text(text)
    with pytest.raises(WeightsError, match="cannot load the open_clip folder") as caught:
        load_clip(folder)
    assert "\n" not in str(caught.value)


def test_weights_wanted_of_timm_are_the_folder_s(folder, monkeypatch):
    """`timm_model_pretrained` would fetch them."""
    import timm

    seen = {}

    def create_model(name, **settings):
        seen.update(settings)
        raise RuntimeError("stop here")

    monkeypatch.setattr(timm, "create_model", create_model)
    configure(folder, changed("vision_cfg", timm_model_name="resnet18", timm_model_pretrained=True, timm_pool="avg"))
    with pytest.raises(WeightsError, match="stop here"):
        load_clip(folder)
    assert seen["pretrained"] is False


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_weights_of_a_folder(folder, tiny_model, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(folder)
    weights = folder / "open_clip_model.safetensors"
    elsewhere = tmp_path_factory.mktemp("cache") / "blob"
    weights.rename(elsewhere)
    weights.symlink_to(elsewhere)  # as the hub's cache has them
    expected = load_clip(folder).fingerprint
    weights.unlink()
    with pytest.raises(WeightsError, match="no weights in it"):
        load_clip(folder)
    os.mkfifo(weights)  # never read: it would wait for ever
    with pytest.raises(WeightsError, match="no weights in it"):
        load_clip(folder)
    torch.save({**tiny_model.state_dict(), "evil": Evil()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(WeightsError, match="not executed"):
        load_clip(folder)
    torch.save(tiny_model.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "zz.pth").write_bytes(b"not the one that counts")
    assert load_clip(folder).fingerprint == expected and not (folder / "executed").exists()


def test_a_folder_s_tokenizer_is_its_files(folder, monkeypatch):
    """Neither the hub nor code beside the tokenizer is asked for, whatever the configuration says."""
    seen = {}

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(source, **settings):
            seen.update(settings, source=source)
            raise OSError("stop here")

    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(AutoTokenizer=AutoTokenizer))
    configure(folder, changed("text_cfg", hf_tokenizer_name="org/model", tokenizer_kwargs={"clean": "whitespace"}))
    clip = load_clip(folder)
    with pytest.raises(WeightsError, match="tokenizer of .* cannot be had"):
        _ = clip.tokenizer
    assert str(seen["source"]) == str(folder) and seen["trust_remote_code"] is False and seen["local_files_only"] is True


def test_files_whose_tensors_tell_of_a_giant(tmp_path, tiny_model):
    """A few megabytes can describe a model of terabytes."""
    state = {**tiny_model.state_dict(), "ln_final.weight": torch.zeros(10**6), "token_embedding.weight": torch.zeros(10**6, 1)}
    torch.save(state, tmp_path / "giant.pt")
    with pytest.raises(WeightsError, match="giant.pt"):
        load_clip(tmp_path / "giant.pt")
    torch.save({**tiny_model.state_dict(), "positional_embedding": torch.zeros(10**5, 64)}, tmp_path / "long.pt")
    with pytest.raises(WeightsError, match="far more than its weights have"):
        load_clip(tmp_path / "long.pt")
    torch.save({f"w{i}": torch.zeros(1) for i in range(10_001)}, tmp_path / "many.pt")
    with pytest.raises(WeightsError, match="10001 tensors"):
        load_clip(tmp_path / "many.pt")
