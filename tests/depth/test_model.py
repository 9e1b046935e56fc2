"""The model: what is learned, what stays frozen, what is saved."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from depthtokens import DepthTokens, NYUv2, TrainingError, UsageError, WeightsError, evaluate, load_clip, make_optimizer, silog
from depthtokens.depth.checkpoint import read, write
from depthtokens.depth.settings import Provenance
from helpers import TINY_CONFIG, photo
from helpers import make_model as make


def step(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    target = 1 + 8 * torch.rand(2, 1, 64, 96, generator=generator)
    optimizer, _ = make_optimizer(model, 10, lr=1e-2)
    model.train()
    loss = silog(model(images).depth, target)
    loss.backward()
    optimizer.step()
    return loss.item()


def test_shapes_and_units(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:5", bins="log", depth_range=(0.5, 8.0))
    out = model(torch.randn(2, 3, 96, 160))
    assert out.depth.shape == (2, 1, 3, 5) and out.probs.shape == (2, 5, 3, 5)
    assert torch.allclose(out.probs.sum(dim=1), torch.ones(()), atol=1e-5)
    assert out.depth.min() >= model.centres.min() - 1e-4 and out.depth.max() <= model.centres.max() + 1e-4
    assert torch.allclose(model.text_features().norm(dim=1), torch.ones(5), atol=1e-5)


@pytest.mark.parametrize(("template", "depth", "scale", "names"), [
    ("baseline", "learned:7", "auty2023", {"tokens.depth": (7, 64)}),
    ("4o4d", "depth-7", "auty2023", {"tokens.context": (8, 64)}),
    ("1o2d", "learned:3", "depthclip", {"tokens.context": (3, 64), "tokens.depth": (3, 64)}),
    ("baseline", "size-7", "learned", {"log_scale": ()}),
    ("baseline", "random:7", "auty2023", {}),
    ("baseline", ["near", "far"], "10", {}),
])  # fmt: skip
def test_what_is_trained(tiny_clip, template, depth, scale, names):
    model = DepthTokens(tiny_clip, template, depth, scale=scale)
    assert {name: tuple(value.shape) for name, value in model.trainable().items()} == names
    assert {name for name, value in model.named_parameters() if value.requires_grad} == set(names)
    if names:
        before = {name: value.clone() for name, value in model.trainable().items()}
        step(model)
        assert all(not torch.equal(value, before[name]) for name, value in model.trainable().items())
    else:
        with pytest.raises(TrainingError, match="nothing to learn"):
            make_optimizer(model, 10)


def test_logit_scales(tiny_clip):
    def scale(value):
        return DepthTokens(tiny_clip, depth="learned:20", scale=value).log_scale.exp().item()

    assert scale("auty2023") == pytest.approx(100 / 0.1 / math.sqrt(20), rel=1e-5)
    assert scale("depthclip") == pytest.approx(1000, rel=1e-5)
    assert scale(31.5) == scale("31.5") == pytest.approx(31.5, rel=1e-5)


@pytest.mark.parametrize("batchnorm", ["frozen", "adapt"])
@pytest.mark.parametrize("dense", ["layer4", "attnpool", "value"])
def test_training_changes_nothing_in_clip(tiny_file, batchnorm, dense):
    clip = load_clip(str(tiny_file))
    before = {key: value.clone() for key, value in clip.model.state_dict().items()}
    model = DepthTokens(clip, template="1o1d", dense=dense, batchnorm=batchnorm)
    for i in range(3):
        step(model, seed=i)
    after = clip.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)  # bit for bit
    assert not any(module.training for module in clip.modules())
    drifted = not torch.equal(model.visual.bn1.running_mean, clip.visual.bn1.running_mean)
    assert drifted == (batchnorm == "adapt")
    if batchnorm == "adapt":
        assert all(torch.equal(a, b) for a, b in zip(model.visual.parameters(), clip.visual.parameters(), strict=True))
        assert not any(module.training for module in model.eval().modules())


def test_seeds(tiny_clip):
    first, again, other = (DepthTokens(tiny_clip, "1o1d", seed=seed) for seed in (1, 1, 2))
    for kind in ("context", "depth"):
        assert torch.equal(first.tokens[kind], again.tokens[kind]) and not torch.equal(first.tokens[kind], other.tokens[kind])
    assert not torch.equal(first.tokens["context"], first.tokens["depth"][:2])


@pytest.mark.parametrize(("settings", "message"), [
    ({"depth": "depht-7"}, "did you mean 'depth-7'"),
    ({"bins": "linear:8"}, "7 depth words or tokens need 7 bins"),
    ({"bins": [1.0] * 6 + [11.0]}, "outside the depth range"),
    ({"scale": "depthlcip"}, "did you mean 'depthclip'"),
    ({"scale": -1}, "positive number"),
    ({"batchnorm": "freeze"}, "did you mean 'frozen'"),
    ({"dense": "tokens"}, "not for a ModifiedResNet"),
    ({"template": "no slot here"}, "has no {depth}"),
    ({"init": "size-8"}, "did you mean 'size-7'"),
])  # fmt: skip
def test_bad_settings(tiny_clip, settings, message):
    with pytest.raises(UsageError) as caught:
        DepthTokens(tiny_clip, **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [
    {"depth": "learned:5", "bins": "log", "init": "random"},
    {"template": "4o4d", "depth": "depth-7"},
    {"depth": "learned:7", "init": "depth-7", "scale": "learned", "batchnorm": "adapt"},
    {"depth": ["near", "middle", "far"], "bins": [1.0, 2.0, 4.0], "scale": 50.0, "dense": "value"},
    {"depth": "rand-txt-7"},
    {"depth": "metres:5", "bins": "log", "scale": "learned"},
    {"depth": "path:2:5", "init": "metres"},
])  # fmt: skip
def test_save_and_load(tiny_clip, tmp_path, settings):
    model = DepthTokens(tiny_clip, **settings, depth_range=(0.1, 9.0), predict_side=64)
    if model.trainable():
        step(model)
    model.eval()
    model.provenance = Provenance("pooled", {"steps": 1})
    path = tmp_path / "tokens.safetensors"
    model.save(path)
    assert path.stat().st_size < 40_000  # tokens, never CLIP
    images = torch.randn(1, 3, 64, 96)
    for clip in (tiny_clip, None):  # None: the file names its CLIP
        again = DepthTokens.load(path, clip)
        assert torch.equal(again(images).depth, model(images).depth)
        assert again.settings == model.settings and again.provenance == model.provenance
        again.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["depthtokens"])
    assert header["clip"]["fingerprint"] == tiny_clip.fingerprint and header["model"]["depth_range"] == [0.1, 9.0]
    assert {"torch", "open_clip", "depthtokens"} <= header["versions"].keys()


def test_numbers_as_words_and_as_a_start(tiny_clip):
    said = ("1.0 metres", "2.5 metres", "4.0 metres")
    model = DepthTokens(tiny_clip, depth="metres:3", bins="1|2.5|4")
    assert model.words == list(said) and torch.equal(model.text_features(), DepthTokens(tiny_clip, depth=said).text_features())
    learned = DepthTokens(tiny_clip, depth="learned:3", bins="1|2.5|4", init="metres")
    assert torch.equal(learned.tokens["depth"], DepthTokens(tiny_clip, depth="learned:3", init=said).tokens["depth"])


@pytest.mark.parametrize("dense", ["tokens", "value"])
def test_vision_transformers(tmp_path, dense):
    vision = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**{**TINY_CONFIG, "vision_cfg": vision}).state_dict(), tmp_path / "vit.pt")
    model = DepthTokens(load_clip(str(tmp_path / "vit.pt")), dense=dense)
    step(model)
    model.save(tmp_path / "t.safetensors")
    rgb = np.random.default_rng(0).integers(0, 255, (70, 100, 3), dtype=np.uint8)
    depth = DepthTokens.load(tmp_path / "t.safetensors").predict(rgb)
    assert depth.probs.shape == (7, 4, 6) and np.array_equal(depth.metres, model.eval().predict(rgb).metres)


def test_half_precision_touches_the_image_tower_only(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:20", bins="log")
    rgb = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    exact, half = model.predict(rgb), model.predict(rgb, "bfloat16")
    assert not np.array_equal(exact.metres, half.metres) and half.metres == pytest.approx(exact.metres, rel=0.5)
    patches = model.image_features(torch.randn(1, 3, 64, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.depth_from(patches, model.text_features()).depth.dtype == torch.float32


def test_tokens_of_another_clip_are_refused(tiny_clip, tiny_model, tmp_path):
    model = DepthTokens(tiny_clip)
    model.save(tmp_path / "t.safetensors")
    state = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    state["logit_scale"] += 1
    save_file(state, tmp_path / "other.safetensors")
    other = load_clip(str(tmp_path / "other.safetensors"))
    with pytest.raises(WeightsError, match="learned on another CLIP.*--force"):
        DepthTokens.load(tmp_path / "t.safetensors", other)
    assert torch.equal(DepthTokens.load(tmp_path / "t.safetensors", other, force=True).tokens["depth"], model.tokens["depth"])


def test_bad_token_files(tiny_clip, tmp_path):
    DepthTokens(tiny_clip).save(tmp_path / "t.safetensors")
    content = (tmp_path / "t.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-100])
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    for name, message in (("cut", "damaged"), ("text", "damaged"), ("foreign", "not one of depthtokens"), ("none", "no token file")):
        with pytest.raises(WeightsError, match=message) as caught:
            DepthTokens.load(tmp_path / f"{name}.safetensors", tiny_clip)
        assert "\n" not in str(caught.value)


def test_predict(tiny_clip, tmp_path):
    model = DepthTokens(tiny_clip, depth="learned:5", predict_side=64)
    rgb = np.random.default_rng(0).integers(0, 255, (130, 201, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    depth = model.predict(tmp_path / "photo.png")
    assert depth.metres.shape == depth.uncertainty.shape == (130, 201) and depth.metres.dtype == np.float32
    assert depth.probs.shape == (5, 2, 3)  # 130 rows were brought to 64
    assert np.array_equal(depth.metres, model.predict(rgb).metres)
    assert np.array_equal(depth.metres, model.predict(Image.fromarray(rgb)).metres)
    assert (depth.uncertainty >= 0).all() and depth.uncertainty.max() < 10

    depth.save(tmp_path / "d.png")
    depth.save(tmp_path / "d.npy")
    with Image.open(tmp_path / "d.png") as png:
        assert png.mode.startswith("I") and png.text["depth_scale"] == "1000"
        assert np.abs(np.asarray(png) / 1000 - depth.metres).max() <= 0.0005 + 1e-6  # 16-bit millimetres round trip
    assert np.array_equal(np.load(tmp_path / "d.npy"), depth.metres)
    assert depth.colour().size == (201, 130) and depth.side_by_side().width > 600
    with pytest.raises(UsageError, match=r"saved as \.png, \.npy, \.npz or \.tiff"):
        depth.save(tmp_path / "d.exr")
    with pytest.raises(UsageError, match="uint8"):
        model.predict(rgb * 1.0)

    far = DepthTokens(tiny_clip, depth_range=(0.001, 80.0)).predict(rgb)
    far.save(tmp_path / "far.png")
    with Image.open(tmp_path / "far.png") as png:  # 80 m does not fit into 16-bit millimetres
        assert png.text["depth_scale"] == "256"
        assert np.abs(np.asarray(png) / 256 - far.metres).max() <= 1 / 512 + 1e-5


def test_phone_photos_are_turned_upright(tiny_clip, tmp_path):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))
    exif = photo.getexif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to show
    photo.save(tmp_path / "phone.jpg", exif=exif)
    assert DepthTokens(tiny_clip).predict(tmp_path / "phone.jpg").metres.shape == (96, 64)


def test_path_tokens_learn_their_anchors_alone(tiny_clip):
    model = make(tiny_clip, depth="path:3:9")
    vectors, anchors = model.vectors(), model.tokens["depth"]
    assert anchors.shape == (3, 64) and vectors.shape == (9, 64)
    assert torch.allclose(vectors[[0, 4, 8]], anchors, atol=1e-6) and torch.allclose(vectors[2], (anchors[0] + anchors[1]) / 2, atol=1e-6)
    silog(model.depth_from(torch.randn(1, 64, 2, 3), model.text_features()).depth, torch.rand(1, 1, 8, 9) + 1).backward()
    assert anchors.grad is not None and (anchors.grad.abs().amax(dim=1) > 0).all()
    for spec in ("path:7", "path:1:9", "path:9:7", "path:a:b", "path:7:x:256", "path:7:256:log"):
        with pytest.raises(UsageError, match="path:7:256"):
            make(tiny_clip, depth=spec)


def test_path_tokens_are_saved_as_anchors(tiny_clip, tmp_path):
    model = make(tiny_clip, depth="path:3:9", template="1o1d")
    model.save(tmp_path / "path.safetensors")
    again = DepthTokens.load(tmp_path / "path.safetensors", tiny_clip)
    assert torch.equal(again.tokens["depth"], model.tokens["depth"]) and torch.equal(again.text_features(), model.text_features())


def test_a_run_s_folder_stands_for_its_tokens(tiny_clip, tmp_path):
    model = DepthTokens(tiny_clip)
    model.save(tmp_path / "tokens.safetensors")
    assert torch.equal(DepthTokens.load(tmp_path, tiny_clip).tokens["depth"], model.tokens["depth"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="is a folder without tokens.safetensors"):
        DepthTokens.load(tmp_path / "empty", tiny_clip)


def test_token_files_that_hold_no_numbers(tiny_clip, tmp_path):
    DepthTokens(tiny_clip, scale="learned").save(tmp_path / "t.safetensors")
    tensors, header = read(tmp_path / "t.safetensors")
    for name in tensors:
        broken = {**tensors, name: torch.full_like(tensors[name], float("inf"))}
        write(tmp_path / "broken.safetensors", broken, header)
        with pytest.raises(WeightsError, match=f"broken.safetensors: '{name}' holds .* that are no numbers.*train again"):
            DepthTokens.load(tmp_path / "broken.safetensors", tiny_clip)


def test_type_and_place(tiny_clip):
    """Another type is one of the image tower alone: nothing is rounded, and other models on the same CLIP stay as they are."""
    model, other, rgb = make(tiny_clip), make(tiny_clip), photo(64, 96)
    assert model.dtype == torch.float32 and model.device == torch.device("cpu")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    exact = model.predict(rgb).metres
    images = torch.randn(1, 3, 64, 96)
    for change, precision in (
        (lambda: model.half(), "float16"),
        (lambda: model.to(torch.bfloat16), "bfloat16"),
        (lambda: model.bfloat16().to("cpu"), "bfloat16"),
        (lambda: model.to("cpu", torch.float16), "float16"),
        (lambda: model.to(images), "float32"),
        (lambda: model.half().float(), "float32"),
    ):
        assert change() is model and model.dtype == getattr(torch, precision)
        assert all(torch.equal(value, state[name]) and value.dtype == state[name].dtype for name, value in model.state_dict().items())
        assert np.array_equal(model.predict(rgb).metres, other.predict(rgb, precision).metres)
        assert np.array_equal(model.predict(rgb, "float32").metres, exact)
        assert torch.equal(model.image_features(images), other.image_features(images, precision))
        out = model(images)
        silog(out.depth, torch.ones(1, 1, 64, 96)).backward()
        assert out.depth.dtype == out.probs.dtype == model.tokens["depth"].grad.dtype == torch.float32
    assert np.array_equal(other.predict(rgb).metres, exact) and other.dtype == torch.float32
    with pytest.raises(UsageError, match="unknown precision 'float64'"):
        model.double()
    moved = copy.deepcopy(model.half()).to("meta")
    assert moved.device.type == "meta" and moved.dtype == torch.float16 and moved.centres.dtype == torch.float32


def test_evaluate_takes_the_models_type(tiny_clip, nyu_tree):
    model, data = make(tiny_clip), NYUv2(nyu_tree, split="test")
    half = evaluate(model.to(torch.bfloat16), data, workers=0).image_wise
    assert half == evaluate(model.float(), data, workers=0, precision="bfloat16").image_wise
    assert half != evaluate(model, data, workers=0).image_wise


@pytest.mark.parametrize(
    ("clip", "settings"),
    [
        ("tiny_clip", {"template": "4o4d", "dense": "layer4"}),
        ("tiny_clip", {"depth": "depth-7", "dense": "value", "normalisation": "clip"}),
        ("attnpool_clip", {"depth": "path:3:7", "dense": "attnpool", "scale": "learned"}),
        ("vit_clip", {"dense": "tokens"}),
    ],
)
def test_compiles_without_a_break(request, clip, settings):
    model, images = make(request.getfixturevalue(clip), **settings), torch.randn(1, 3, 64, 96)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")  # one graph, or an error
    for type_ in (torch.float32, torch.bfloat16):
        model.to(type_)
        found, expected = compiled(images).depth, model(images).depth
        assert torch.allclose(found, expected, atol=1e-5 if type_ == torch.float32 else 1e-2)
        for name, parameter in model.trainable().items():
            a, b = (torch.autograd.grad(depth.sum(), parameter, retain_graph=True)[0] for depth in (found, expected))
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max())), name


def test_the_folded_network_compiles_without_a_break(vit_clip):
    fused, images = make(vit_clip, dense="tokens").fused(), torch.randn(1, 3, 64, 96)
    torch.compiler.reset()
    with torch.no_grad():
        assert torch.allclose(torch.compile(fused, fullgraph=True, backend="eager")(images).depth, fused(images).depth, atol=1e-5)
