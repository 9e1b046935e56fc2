"""Loading CLIP: every file format, every way a file can be wrong, and that frozen means frozen."""

from __future__ import annotations

import json
import pickle
import socket
import warnings

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from depthtokens import DepthTokens, PromptEncoder, UsageError, WeightsError, load_clip
from depthtokens.clip import load, weights
from depthtokens.clip.load import FrozenCLIP, fingerprint
from depthtokens.clip.weights import fill
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


def test_random_weights_are_whole(monkeypatch):
    """open_clip leaves one tensor of CoCa's as it finds the memory."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(float("nan")))
    small = {"width": 64, "heads": 1, "layers": 1}
    config = {"embed_dim": 64, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}, "text_cfg": small}
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS, "small", {**config, "custom_text": True, "multimodal_cfg": {"context_length": 76, **small}}
    )
    with pytest.warns(UserWarning, match="random weights"):
        assert load_clip("small", None).fingerprint == load_clip("small", "random").fingerprint


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


SMALL_VISION = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 64}
SMALL_CONFIG = {**TINY_CONFIG, "vision_cfg": SMALL_VISION}


@pytest.fixture
def small(monkeypatch):
    """A small ViT as an open_clip model of the name "small", so that files can be read as it."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", SMALL_CONFIG)
    torch.manual_seed(3)
    return open_clip.CLIP(**SMALL_CONFIG).eval()


@pytest.mark.parametrize("wrap", [
    lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 7},
    lambda state: {"model_state_dict": state, "epoch": 7},
    lambda state: {"model": {key: value.reshape(1) if value.ndim == 0 else value for key, value in state.items()}},
    lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    lambda state: {"model": {"state_dict": state, "epoch": 1}, "step": torch.tensor(3)},
    lambda state: {"model": {"name": "RN50"}, "state_dict": state},
    lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    lambda state: {f"_orig_mod.module.model.{key}": value for key, value in state.items()},
    lambda state: {f"clip.{key.replace('visual.', 'visual._orig_mod.')}": value for key, value in state.items()},
    lambda state: {"state_dict": state, "optimizer": {"lr": np.float64(1e-3), "step": np.int64(3), "on": np.bool_(True)}},
])  # fmt: skip
def test_checkpoints_of_trainers(tmp_path, state, tiny_model, wrap):
    torch.save(wrap(state), tmp_path / "trained.pt")
    assert load_clip(tmp_path / "trained.pt").fingerprint == fingerprint(tiny_model)


def test_prefixes_in_safetensors(tmp_path, state, tiny_model):
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "trained.safetensors")
    assert load_clip(tmp_path / "trained.safetensors").fingerprint == fingerprint(tiny_model)


def test_numpy_numbers_let_nothing_else_in(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state, "lr": np.float64(1), "evil": _Evil()}, "evil.pt")
    torch.save({"state_dict": state, "array": np.zeros(3)}, "array.pt")
    for name in ("evil.pt", "array.pt"):
        with pytest.raises(WeightsError, match="not executed"):
            load_clip(name)
    assert not (tmp_path / "executed").exists()


def test_several_state_dicts_are_refused(tmp_path, state):
    torch.save({"model": state, "state_dict": {key: value + 1 for key, value in state.items()}}, tmp_path / "two.pt")
    with pytest.raises(WeightsError, match="holds 2 state dicts"):
        load_clip(tmp_path / "two.pt")
    torch.save({**state, "module.logit_scale": torch.tensor(1.0)}, tmp_path / "twice.pt")
    with pytest.raises(WeightsError, match="several tensors for 'logit_scale'"):
        load_clip(tmp_path / "twice.pt")


def test_what_no_feature_needs_does_no_harm(tmp_path, state, tiny_model, small):
    torch.save({**state, "logit_bias": torch.tensor(-10.0), "attn_mask": torch.zeros(77, 77)}, tmp_path / "sigmoid.pt")
    assert load_clip(tmp_path / "sigmoid.pt").fingerprint == fingerprint(tiny_model)
    torch.save({**small.state_dict(), "logit_bias": torch.tensor(-10.0), "logit_scale": torch.tensor([2.0])}, tmp_path / "small.pt")
    assert load_clip("small", tmp_path / "small.pt").model.logit_scale == 2
    biased = open_clip.CLIP(**SMALL_CONFIG, init_logit_bias=-10)
    fill(biased, small.state_dict(), tmp_path / "small.pt", "small")
    assert biased.logit_bias == -10


def test_tensors_that_do_not_belong_are_named(tmp_path, state, small):
    def saved(name, content):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    vit = small.state_dict()
    with pytest.warns(UserWarning, match="'loss.weight' is left out"):
        load_clip(saved("loss.pt", {**state, "loss.weight": torch.zeros(3)}))
    with pytest.warns(UserWarning, match=r"'head.0', 'head.1', 'head.2' and 1 more are left out"):
        load_clip("small", saved("heads.pt", {**vit, **{f"head.{i}": torch.zeros(3) for i in range(4)}}))
    adapter = {"visual.adapter.weight": torch.zeros(3)}
    for arguments, message in (
        ((saved("a.pt", {**state, **adapter}),), "visual.adapter.weight"),
        (("small", saved("b.pt", {**vit, **adapter})), "'visual.adapter.weight' is no part of it"),
        ((saved("c.pt", {key: value for key, value in state.items() if key != "visual.bn2.bias"}),), "visual.bn2.bias"),
        (("small", saved("d.pt", {key: vit[key] for key in vit if "ln_p" not in key})), "ln_pre.weight', .* and 1 more are missing"),
        ((saved("e.pt", {key: value for key, value in state.items() if key != "text_projection"}),), "'text_projection' is missing"),
        (("small", saved("f.pt", {**vit, "visual.proj": vit["visual.proj"].char()})), "'visual.proj' is int8: .* not quantised"),
        ((saved("g.pt", {**state, "visual.conv1.weight": state["visual.conv1.weight"] * torch.nan}),), "'visual.conv1.weight' holds NaN"),
        ((saved("h.pt", {**state, "token_embedding.weight": torch.zeros(30000, 64)}),), "a vocabulary of 30000, CLIP's has 49408"),
    ):  # fmt: skip
        with pytest.raises(WeightsError, match=message) as caught:
            load_clip(*arguments)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_keep_their_values(tmp_path, state, dtype):
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    save_file(stored, tmp_path / "other.safetensors")
    loaded = load_clip(tmp_path / "other.safetensors").model.state_dict()
    assert all(
        loaded[key].dtype in (torch.float32, torch.int64) and torch.equal(loaded[key], stored[key].to(loaded[key])) for key in stored
    )


def test_a_larger_vocabulary_keeps_the_words(tmp_path, state, tiny_clip, small):
    words = ["This object appears to be very close", "far"]
    torch.save({**state, "token_embedding.weight": torch.cat([state["token_embedding.weight"], torch.randn(3, 64)])}, tmp_path / "more.pt")
    assert torch.allclose(PromptEncoder(load_clip(tmp_path / "more.pt"))(words), PromptEncoder(tiny_clip)(words), atol=1e-6)
    vit = small.state_dict()
    torch.save({**vit, "token_embedding.weight": torch.cat([vit["token_embedding.weight"], torch.randn(3, 64)])}, tmp_path / "named.pt")
    more = load_clip("small", tmp_path / "named.pt")
    assert more.text.embedding.num_embeddings == 49411
    with torch.no_grad():
        assert torch.allclose(PromptEncoder(more)(words), small.encode_text(open_clip.get_tokenizer("RN50")(words)), atol=1e-5)


def test_a_lone_file_says_its_activation(tmp_path, files, monkeypatch, small):
    """Tensors do not tell GELU from QuickGELU, and the features of one are wrong with the other."""
    torch.save(small.state_dict(), tmp_path / "gelu.pt")
    with pytest.warns(UserWarning, match=r"gelu.pt .* QuickGELU .* GELU, name the architecture: --clip"):
        alone = load_clip(tmp_path / "gelu.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = load_clip("small", tmp_path / "gelu.pt")
        monkeypatch.setattr(weights, "_published", lambda: {"published": weights.file_sha256(files / "archive.pt")})
        load_clip(files / "archive.pt")  # OpenAI's, under whatever name
    words = ["a red door", "far"]
    with torch.no_grad():
        right = small.encode_text(open_clip.get_tokenizer("RN50")(words))
        assert torch.allclose(PromptEncoder(named)(words), right, atol=1e-5)
        assert not torch.allclose(PromptEncoder(alone)(words), right, atol=1e-3)
    assert named.fingerprint != alone.fingerprint == fingerprint(named.model)  # or caches and token files would mix them


@pytest.mark.parametrize(("name", "meant"), [
    ("ViT-B/32", "ViT-B-32"), ("ViT-L/14@336px", "ViT-L-14-336"), ("openai/clip-vit-base-patch32", "ViT-B-32"),
    ("openai/clip-vit-large-patch14-336", "ViT-L-14-336"), ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "ViT-H-14"), ("RN 50", "RN50"),
    ("rn50X4", "RN50x4"), ("vit_b_32", "ViT-B-32"), ("Bundled", "bundled"),
])  # fmt: skip
def test_names_as_others_write_them(name, meant):
    with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
        load_clip(name)


def test_names_and_files_that_are_none():
    with pytest.raises(WeightsError, match=r"written 'hf-hub:some/model'"):
        load_clip("some/model")
    for name in ("./ViT-B-32", "ViT-B-32.pt", "~/ViT-B-32"):
        with pytest.raises(WeightsError, match="no CLIP file or folder"):
            load_clip(name)
    for arguments in ((None,), (5,), (b"RN50",), ("RN50", 5)):
        with pytest.raises(UsageError, match="named by text or a path"):
            load_clip(*arguments)


def test_paths_and_numpy_text_are_names(files, tiny_model):
    for name in (files / "plain.pt", np.str_(files / "plain.pt")):
        clip = load_clip(name)
        assert clip.fingerprint == fingerprint(tiny_model) and type(clip.name) is str and clip.name == str(files / "plain.pt")


def test_the_caller_s_model_stays_as_it_is():
    model = open_clip.CLIP(**SMALL_CONFIG).double().train()
    clip = FrozenCLIP(model, "mine", None)
    assert all(parameter.requires_grad and parameter.dtype == torch.float64 for parameter in model.parameters())
    assert all(module.training for module in model.modules()) and clip.model is not model
    with torch.no_grad():
        model.visual.conv1.weight.zero_()
    assert clip.visual.conv1.weight.abs().max() > 0 and clip.image.visual is clip.visual and clip.text.model is clip.model
    assert FrozenCLIP(model, "mine", None, copied=False).model is model and not any(p.requires_grad for p in model.parameters())
    with pytest.raises(UsageError, match="wants an open_clip model, not a Linear"):
        FrozenCLIP(torch.nn.Linear(1, 1), "line", None)


def test_loading_holds_no_second_copy(files, monkeypatch):
    monkeypatch.setattr(load, "copy", None)
    load_clip(files / "folder")
    load_clip(files / "plain.pt")


def test_frozen_stays_in_eval_mode(tiny_clip):
    tiny_clip.train()
    assert not any(module.training for module in tiny_clip.modules())
