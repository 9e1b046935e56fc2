"""Loading CLIP: every file format, every way a file can be wrong, and that frozen means frozen."""

from __future__ import annotations

import json
import pickle
import socket

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from depthtokens import DepthTokens, UsageError, WeightsError, load_clip
from depthtokens.clip.load import fingerprint
from helpers import TINY_CONFIG


@pytest.fixture(scope="module")
def state(tiny_model):
    return {key: value.clone() for key, value in tiny_model.state_dict().items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_model, state):
    folder = tmp_path_factory.mktemp("files")
    torch.save(state, folder / "plain.pt")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, folder / "wrapped.pt")
    save_file(state, folder / "tiny.safetensors")
    # OpenAI's files are TorchScript archives of half-precision tensors with three integers beside them.
    scripted = torch.jit.script(_Archive(state))
    scripted.save(folder / "archive.pt")
    folder_format = folder / "folder"
    folder_format.mkdir()
    config = {"model_cfg": {**TINY_CONFIG, "quick_gelu": True}, "preprocess_cfg": {}}
    (folder_format / "open_clip_config.json").write_text(json.dumps(config))
    save_file(state, folder_format / "open_clip_model.safetensors")
    return folder


class _Archive(torch.nn.Module):
    """Holds tensors under dotted names, as a scripted CLIP does."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(leaf, value.clone())
        for name, value in (("input_resolution", 64), ("context_length", 77), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("name", ["plain.pt", "wrapped.pt", "tiny.safetensors", "archive.pt", "folder"])
def test_every_format_gives_the_same_clip(files, tiny_model, name):
    clip = load_clip(str(files / name))
    assert clip.fingerprint == fingerprint(tiny_model)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(clip.model.encode_image(images), tiny_model.encode_image(images), atol=1e-6)
        words = open_clip.get_tokenizer("RN50")(["a red door", "far"])
        assert torch.allclose(clip.model.encode_text(words), tiny_model.encode_text(words), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    # Tokens learned on it find it again, from wherever they are loaded.
    DepthTokens(clip).save(files / "tokens.safetensors")
    assert DepthTokens.load(files / "tokens.safetensors").clip.fingerprint == clip.fingerprint


def test_named_model_from_a_file(tmp_path):
    with pytest.warns(UserWarning, match="random weights"):
        random = load_clip("RN50-quickgelu", None)
    with pytest.warns(UserWarning, match="random weights"):
        assert load_clip("RN50-quickgelu", "random").fingerprint == random.fingerprint  # the same each time
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in random.model.state_dict().items()}, tmp_path / "w.pt"
    )
    named, inferred = load_clip("RN50-quickgelu", str(tmp_path / "w.pt")), load_clip(str(tmp_path / "w.pt"))
    assert named.fingerprint == inferred.fingerprint != random.fingerprint
    with pytest.warns(UserWarning, match="RN50-quickgelu"):
        load_clip("RN50", str(tmp_path / "w.pt"))
    with pytest.raises(WeightsError, match="holds no RN101.*has shape"):
        load_clip("RN101", str(tmp_path / "w.pt"))
    # A file that carries OpenAI's name must be OpenAI's file.
    (tmp_path / "w.pt").rename(tmp_path / "RN50.pt")
    with pytest.raises(WeightsError, match="SHA-256"):
        load_clip(str(tmp_path / "RN50.pt"))


def test_fingerprint_sees_one_changed_value(state, tiny_model):
    before = fingerprint(tiny_model)
    with torch.no_grad():
        tiny_model.visual.conv1.weight.view(-1)[0] += 1e-3
    changed = fingerprint(tiny_model)
    tiny_model.load_state_dict(state)
    assert changed != before == fingerprint(tiny_model)


class _Evil:
    def __reduce__(self):
        return (__import__("pathlib").Path.touch, (__import__("pathlib").Path("executed"),))


def test_code_in_a_pickle_is_not_executed(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    torch.save({**state, "evil": _Evil()}, "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(_Evil()))
    for name in ("evil.pt", "raw.pt"):
        with pytest.raises(WeightsError, match=r"not executed|truncated|damaged"):
            load_clip(str(tmp_path / name))
    with pytest.raises(WeightsError, match="not executed"):
        load_clip(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["plain.pt", "tiny.safetensors", "archive.pt"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_truncated_files(files, tmp_path, name, share):
    content = (files / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError) as caught:
        load_clip(str(tmp_path / name))
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_other_things_that_are_no_clip(files, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "linear.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({0: torch.zeros(3)}, tmp_path / "numbers.pt")
    for path, message in ((tmp_path / "linear.pt", "not a CLIP in OpenAI's layout"), (tmp_path / "list.pt", "no state dict"),
                          (tmp_path / "numbers.pt", "no state dict"),
                          (tmp_path, "no open_clip_config.json"), (tmp_path / "nothing.pt", "no CLIP file")):  # fmt: skip
        with pytest.raises(WeightsError, match=message):
            load_clip(str(path))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "open_clip_config.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot load the open_clip folder"):
        load_clip(str(broken))


def test_unknown_names(monkeypatch):
    with pytest.raises(UsageError, match="did you mean 'RN50'"):
        load_clip("RN-50")
    with pytest.raises(UsageError, match="did you mean 'openai'"):
        load_clip("RN50", "openia")
    with pytest.raises(WeightsError, match="no weights file at missing/file"):
        load_clip("RN50", "missing/file.pt")

    def refuse(*_args, **_kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", refuse)
    with pytest.raises(WeightsError, match="give a file with --weights"):
        load_clip("RN50", "openai")


def test_openai_tag_is_loaded_with_quick_gelu(monkeypatch):
    """open_clip leaves the activation of a tag to the caller; missing it would change every text feature."""
    seen = {}

    def record(name, **settings):
        seen.update(settings, name=name)
        raise OSError("stop here")

    monkeypatch.setattr(open_clip, "create_model", record)
    with pytest.raises(WeightsError):
        load_clip("RN50", "openai")
    assert seen["force_quick_gelu"] is True and seen["pretrained"] == "openai"
    with pytest.raises(WeightsError):
        load_clip("ViT-B-32", "laion2b_s34b_b79k")
    assert seen["force_quick_gelu"] is False


def test_frozen_stays_in_eval_mode(tiny_clip):
    tiny_clip.train()
    assert not any(module.training for module in tiny_clip.modules())
