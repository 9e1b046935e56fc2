"""Export to ONNX: the graph gives torch's metres, runs without torch, and files that are not ours are refused."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import towers
from depthtokens import DataError, DepthTokens, DepthTokensError, UsageError, WeightsError
from depthtokens.clip.image import ImageTower
from depthtokens.deploy import export
from depthtokens.deploy.onnxfile import graph_sha256
from depthtokens.deploy.runtime import GRAPH, OnnxDepth, resized
from depthtokens.depth.fused import FusedDepth
from depthtokens.files import sealed
from helpers import killed, photo, run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


FORMATS = ("png", "npy", "npz", "tiff", "colour", "side", "ply", "glb")


@pytest.fixture(scope="module")
def model(tiny_clip):
    return DepthTokens(tiny_clip, depth="random:7", scale=378, predict_side=96)


@pytest.fixture(scope="module")
def tokens(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    done = export.export_onnx(model, path)
    assert done.path == path and done.bytes == path.stat().st_size
    assert 0 < done.max_difference < 2e-3 and (480, 640) in done.sizes and (32, 32) in done.sizes
    return path


def agree(depth, expected):
    assert depth.metres.dtype == depth.uncertainty.dtype == depth.probs.dtype == np.float32
    assert np.ptp(expected.metres) > 1e-2
    for found, wanted in ((depth.metres, expected.metres), (depth.uncertainty, expected.uncertainty), (depth.probs, expected.probs)):
        assert found.shape == wanted.shape and np.abs(found - wanted).max() < 2e-3
    assert depth.depth_range == expected.depth_range and np.array_equal(depth.image, expected.image)


@pytest.mark.parametrize("size", [(33, 63), (64, 64), (95, 161), (40, 300), (96, 96), (211, 150)])
@pytest.mark.parametrize(("side", "flip"), [(None, False), (64, True)])
def test_any_size(model, graph, size, side, flip):
    agree(OnnxDepth(graph).predict(photo(*size), side, flip), model.predict(photo(*size), side=side, flip=flip))


def test_photos_taller_than_those_of_training(model, graph, tmp_path):
    rgb = photo(150, 211)
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    expected, opened = model.predict(rgb), OnnxDepth(graph, threads=1)
    assert expected.probs.shape[1:] == (3, 4) and expected.metres.shape == (150, 211)
    for image in (rgb, tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(rgb)):
        agree(opened.predict(image), expected)


def test_batches(model, graph):
    images = np.stack([photo(64, 96), photo(64, 96)[::-1]])
    depth, uncertainty, probs = OnnxDepth(graph).session.run(["depth", "uncertainty", "probs"], {"image": images})
    assert depth.shape == uncertainty.shape == (2, 1, 64, 96) and probs.shape == (2, 7, 2, 3)
    assert np.abs(depth[1, 0] - model.predict(images[1], side=64).metres).max() < 2e-3


def test_many_are_as_one_by_one(graph):
    opened = OnnxDepth(graph)
    photos = [photo(96, 128), photo(150, 211), photo(96, 128)[::-1], photo(128, 96)]
    for flip in (False, True):
        expected = [opened.predict(rgb, flip=flip) for rgb in photos]
        for batch_size in (1, 4):
            found = opened.predict(iter(photos), flip=flip, batch_size=batch_size)
            for one, other in zip(found, expected, strict=True):
                agree(one, other)
                assert batch_size > 1 or np.array_equal(one.metres, other.metres)
    png = io.BytesIO()
    Image.fromarray(photos[0]).save(png, format="PNG")
    ways = [png, png.getvalue(), photos[0] / 255, torch.from_numpy(photos[0]).permute(2, 0, 1)]
    for depth in opened.predict(ways):
        assert np.array_equal(depth.metres, opened.predict(photos[0]).metres)
    with pytest.raises(DataError, match=r"images\[1\]: image of 1x96 pixels would be shown at|images\[1\]: image of 1x9000"):
        opened.predict([photos[0], photo(1, 9000)])


@pytest.fixture
def asked(graph, monkeypatch):
    """The precisions in which towers come to the exporter, which gives the same model's graph for each, in float32."""
    precisions = []
    monkeypatch.setattr(export, "to_onnx", lambda module, *_: precisions.append(module.fused.precision) or onnx.load(graph))
    return precisions


def test_a_models_type_is_no_matter(model, asked, tmp_path):
    export.export_onnx(copy.deepcopy(model).half(), tmp_path / "half.onnx")
    assert asked == ["float32"] and OnnxDepth(tmp_path / "half.onnx").precision == "float32"


def test_half_by_the_verb(capsys, asked, tokens, tmp_path):
    code, stdout, _ = run(capsys, "export", tokens, "--onnx", tmp_path / "m.onnx", "--half", "--json")
    assert code == 0 and asked == ["float16"] and 0 < json.loads(stdout)["max_difference_m"] < 2e-3 and json.loads(stdout)["half"]
    opened = OnnxDepth(tmp_path / "m.onnx")
    assert opened.precision == "float16" and "float16 on the CPU" in repr(opened)


def test_what_float16_does_not_hold_is_not_written(model, asked, tmp_path, monkeypatch):
    large = copy.deepcopy(model)
    large.visual.layer4[-1].bn3.weight.data *= 1e6
    with pytest.raises(DepthTokensError, match="not written: .*float16.* pass 65504.*: export without --half"):
        export.export_onnx(large, tmp_path / "m.onnx", half=True)
    monkeypatch.setattr(export, "max_difference", lambda *_: 0.5)
    with pytest.raises(DepthTokensError, match=r"within 0.2 m .it differs by 0.5 m.: it may without --half"):
        export.export_onnx(model, tmp_path / "m.onnx", half=True)
    assert asked == ["float16"] and not list(tmp_path.iterdir())


def test_metadata(model, graph):
    opened = OnnxDepth(graph)
    assert opened.metadata["clip"]["fingerprint"] == model.clip.fingerprint and opened.metadata["size"] is None
    settings = opened.metadata["model"]
    assert settings["template"] == model.settings.template and settings["words"] == model.words
    assert settings["centres"] == model.centres.tolist() and settings["logit_scale"] == pytest.approx(378)
    assert 0 < opened.metadata["verified"]["max_difference_m"] < 2e-3
    assert (opened.predict_side, opened.stride) == (96, 32)


def test_resizing_is_torch_s():
    low = np.random.default_rng(0).random((3, 5), dtype=np.float32)
    for size in ((3, 5), (7, 40), (64, 96)):
        wanted = torch.nn.functional.interpolate(torch.from_numpy(low)[None, None], size=size, mode="bilinear", align_corners=True)
        assert np.abs(resized(low, size) - wanted[0, 0].numpy()).max() < 1e-6
    assert (resized(np.full((1, 1), 2.0, np.float32), (3, 4)) == 2).all()


@pytest.mark.slow
@pytest.mark.parametrize(("clip", "dense"), [("attnpool_clip", "attnpool"), ("vit_clip", "tokens")])
def test_position_embeddings_are_resized_in_the_graph(request, tmp_path, clip, dense):
    model = DepthTokens(request.getfixturevalue(clip), depth="depth-7", scale=378, dense=dense, template="1o1d", seed=1)
    export.export_onnx(model, tmp_path / "m.onnx")
    opened = OnnxDepth(tmp_path / "m.onnx")
    for size in ((64, 64), (33, 80), (130, 161)):
        agree(opened.predict(photo(*size)), model.predict(photo(*size)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), [("ViT-B-16", "float16"), ("ViT-B-16-SigLIP", "float32"), ("convnext_base", "float32")])
def test_towers_of_other_families(model, name, precision):
    """At their own size and others, in one graph; where float16 is all that differs, by little."""
    tower = ImageTower(towers.shrunk(name))
    settings = model.settings.changed(dense=tower.default)
    text = 100 * torch.nn.functional.normalize(torch.randn(7, tower.channels, generator=torch.Generator().manual_seed(0)), dim=-1)
    exact, tried = (export.Graph(FusedDepth(settings, tower, text, model.centres, kind)) for kind in ("float32", precision))
    proto = export.to_onnx(tried, None)
    sizes = [tower.image_size, (3 * exact.fused.stride + 5, 80), (exact.fused.stride, 64)]
    difference = export.max_difference(exact, proto.SerializeToString(), sizes)
    assert 0 < difference < (export.HALF_TOLERANCE * 10 if precision == "float16" else export.TOLERANCE)
    types = {tensor.data_type for tensor in proto.graph.initializer if tensor.name.startswith("fused.tower")}
    assert types == {onnx.TensorProto.FLOAT16 if precision == "float16" else onnx.TensorProto.FLOAT}


def test_fixed_size(model, tmp_path):
    export.export_onnx(model, tmp_path / "m.onnx", size=(64, 96))
    opened = OnnxDepth(tmp_path / "m.onnx")
    assert "at 64x96 only" in repr(opened)
    agree(opened.predict(photo(64, 96), side=64), model.predict(photo(64, 96), side=64))
    agree(opened.predict(photo(640, 950), side=64), model.predict(photo(640, 950), side=64))
    with pytest.raises(DataError, match="shown at 96x160, but this graph takes 64x96 only.*--side"):
        opened.predict(photo(64, 96))
    with pytest.raises(DataError, match="this image: shown at 96x64"):
        opened.predict(photo(96, 64), side=64)
    with pytest.raises(UsageError, match="smaller than one 32x32 patch"):
        export.export_onnx(model, tmp_path / "n.onnx", size=(64, 31))


def test_command_line_without_torch(capsys, graph, tokens, tmp_path):
    Image.fromarray(photo(80, 120)).save(tmp_path / "a.png")
    code = "import sys; from depthtokens.cli import main; main(sys.argv[1:]); print([m for m in sys.modules if m.split('.')[0] == 'torch'])"
    words = ["predict", graph, tmp_path / "a.png", "--formats", "npy", "png", "side", "--out"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words), str(tmp_path / "onnx")], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr
    words[1] = tokens
    assert run(capsys, *words, tmp_path / "torch", "--engine", "torch")[0] == 0
    found, expected = (np.load(tmp_path / engine / "a_depth.npy") for engine in ("onnx", "torch"))
    assert found.shape == (80, 120) and np.abs(found - expected).max() < 2e-3
    assert (tmp_path / "onnx" / "a_side.png").is_file()


def test_the_verb_does_with_a_graph_what_it_does_with_tokens(capsys, graph, tokens, tmp_path):
    """Folders in folders, batches, photos that cannot be read, every format, and going on."""
    pytest.importorskip("trimesh")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name, size in (("a", (80, 120)), ("b", (80, 120)), ("sub/a", (100, 90))):
        Image.fromarray(photo(*size)).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"none")
    words = [
        tmp_path / "in",
        "--batch-size",
        3,
        "--fov",
        60,
        "--formats",
        "png",
        "npy",
        "npz",
        "tiff",
        "colour",
        "side",
        "ply",
        "glb",
        "--out",
    ]
    for file in (graph, tokens):
        code, stdout, err = run(capsys, "predict", file, *words, tmp_path / file.suffix[1:])
        assert code == 1 and "3 of 4 images predicted" in stdout and "1 of 4 images could not be read" in err and "bad.png" in err
    made, expected = ({path.relative_to(out): path for path in out.rglob("*.*")} for out in (tmp_path / "onnx", tmp_path / "safetensors"))
    assert made.keys() == expected.keys() and len(made) == 3 * 8 + 1
    for name in made:
        if name.suffix == ".npy":
            assert np.abs(np.load(made[name]) - np.load(expected[name])).max() < 2e-3
    code, stdout, err = run(capsys, "predict", graph, *words, tmp_path / "onnx", "--resume", "--json")
    assert code == 1 and json.loads(stdout)["summary"]["kept"] == 3


def test_every_way_gives_the_files_depth(graph, tmp_path):
    rgb, opened = photo(70, 100), OnnxDepth(graph)
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    content, tensor = (tmp_path / "photo.png").read_bytes(), torch.from_numpy(rgb).permute(2, 0, 1)
    rgba = np.dstack([rgb, np.full_like(rgb[..., :1], 255)])
    path = tmp_path / "photo.png"
    ways = [path, str(path), content, io.BytesIO(content), Image.fromarray(rgb), rgb, rgb / np.float32(255),
            rgba, tensor, tensor / 255]  # fmt: skip
    expected = opened.predict(ways[0]).metres
    for found in (*map(opened.predict, ways), *opened.predict(ways), *opened.predict(iter(ways)), *opened.predict(tensor[None])):
        assert np.array_equal(found.metres, expected)


def test_a_graph_shows_itself(graph, model):
    text, page = repr(OnnxDepth(graph)), OnnxDepth(graph)._repr_html_()
    assert text.startswith(f"OnnxDepth of tokens on {model.clip.identity}\n") and len(text.splitlines()) == 6
    assert model.settings.template in text and "<table>" in page and " only" not in text


def test_export_verb(capsys, tokens, tmp_path, monkeypatch, graph):
    monkeypatch.setattr(export, "to_onnx", lambda *_: onnx.load(graph))  # the same model's, which was exported once
    target = tmp_path / "m.onnx"
    code, stdout, _ = run(capsys, "export", tokens, "--onnx", target)
    assert code == 0 and f"predict {target}" in stdout and "MB, depth within" in stdout
    code, stdout, _ = run(capsys, "export", tokens, "--onnx", target, "--overwrite", "--json")
    assert code == 0 and json.loads(stdout)["bytes"] == target.stat().st_size and json.loads(stdout)["max_difference_m"] < 2e-3
    agree(OnnxDepth(target).predict(photo(64, 64)), OnnxDepth(graph).predict(photo(64, 64)))


@pytest.mark.slow
def test_an_export_that_was_killed_begins_anew(capsys, tokens, tmp_path, monkeypatch, graph):
    target = tmp_path / "m.onnx"
    killed("m.onnx", "export", tokens, "--onnx", target)
    assert not target.exists() and not list(tmp_path.glob("*probe*")) + list(tmp_path.glob(".*probe*"))
    monkeypatch.setattr(export, "to_onnx", lambda *_: onnx.load(graph))
    assert run(capsys, "export", tokens, "--onnx", target)[0] == 0
    agree(OnnxDepth(target).predict(photo(64, 64)), OnnxDepth(graph).predict(photo(64, 64)))


def test_a_graph_that_differs_is_not_written(tiny_clip, graph, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "to_onnx", lambda *_: onnx.load(graph))  # another model's
    with pytest.raises(DepthTokensError, match=r"not written: .* within 0.002 m \(it differs by .* m\): it may with a fixed --size"):
        export.export_onnx(DepthTokens(tiny_clip, depth="random:7", scale=100), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_nan_is_a_difference(model, graph):
    proto = onnx.load(graph)
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = np.full(weight.dims, np.nan, np.float32).tobytes()
    found = export.max_difference(export.Graph(model.folded()), proto.SerializeToString(), [(64, 64)])
    assert not found <= export.TOLERANCE


@pytest.mark.parametrize(("words", "code", "message"), [
    (["export", "{tokens}", "--onnx", "/proc/m.onnx"], 1, "cannot write /proc/m.onnx"),
    (["export", "{tokens}", "--onnx", "{file}/m.onnx"], 1, "cannot write {file}/m.onnx"),
    (["export", "{tokens}", "--onnx", "{none}/m.onnx"], 1, "cannot write {none}/m.onnx"),
    (["export", "{tokens}", "--onnx", "{graph}"], 2, "--overwrite"),
    (["export", "{tokens}", "--onnx", "{none}.pt"], 2, "ends in .onnx"),
    (["export", "{none}", "--onnx", "{none}.onnx"], 1, "no token file"),
    (["export", "{folder}", "--onnx", "{none}.onnx"], 1, "is a folder without tokens.safetensors"),
    (["export", "{tokens}"], 2, "--onnx"),
    (["predict", "{none}.onnx", "{photo}"], 1, "no ONNX file"),
    (["predict", "{cut}", "{photo}"], 1, "damaged or not an ONNX file"),
    (["predict", "{text}", "{photo}"], 1, "damaged or not an ONNX file"),
    (["predict", "{empty}", "{photo}"], 1, "damaged or not an ONNX file"),
    (["predict", "{foreign}", "{photo}"], 1, "not one that `depthtokens export` wrote"),
    (["predict", "{newer}", "{photo}"], 1, "format 99, expected 1"),
    (["predict", "{header}", "{photo}"], 1, "does not hold"),
    (["predict", "{graph}", "{strip}"], 1, "shown at 96x192000: crop it"),
    (["predict", "{graph}", "{text}"], 1, "it is not an image"),
    (["predict", "{graph}", "{photo}", "--engine", "torch"], 2, "give torch the token file"),
    (["predict", "{tokens}", "{photo}", "--engine", "onnx"], 2, "depthtokens export {tokens} --onnx tokens.onnx"),
    (["predict", "{graph}", "{photo}", "--clip", "RN50", "--force"], 2, "--clip, --force: not for --engine onnx"),
    (["predict", "{graph}", "{photo}", "--precision", "bfloat16"], 2, "--precision: not for"),
])  # fmt: skip
def test_mistakes_get_one_helpful_line(capsys, tokens, graph, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "to_onnx", lambda *_: pytest.fail("what is wrong must be found out before the work"))
    names = {name: tmp_path / f"{name}.onnx" for name in ("cut", "text", "empty", "foreign", "newer", "header")}
    content, proto = graph.read_bytes(), onnx.load(graph)
    names["cut"].write_bytes(content[: len(content) // 2])
    names["text"].write_text("hello")
    names["empty"].write_bytes(b"")
    for name, header in (("foreign", None), ("newer", '{"format": 99, "model": {}}'), ("header", '{"format": 1, "model": {}}')):
        del proto.metadata_props[:]
        if header:
            proto.metadata_props.add(key="depthtokens", value=header)
        onnx.save(proto, names[name])
    names |= {"tokens": tokens, "graph": graph, "none": tmp_path / "none", "file": tmp_path / "file"}
    names |= {"photo": tmp_path / "photo.png", "strip": tmp_path / "strip.png"}
    names["file"].write_text("in the way")
    names["folder"] = tmp_path
    Image.fromarray(photo(64, 64)).save(names["photo"])
    Image.fromarray(photo(1, 2000)).save(names["strip"])
    found, stdout, err = run(capsys, *(word.format(**names) for word in words))
    lines = [line for line in err.splitlines() if line.startswith("depthtokens:")]
    assert found == code and len(lines) == 1 and message.format(**names) in lines[0] and not stdout
    assert "Traceback" not in err


def test_a_graph_that_gives_no_numbers(graph, tmp_path):
    proto = onnx.load(graph)
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = np.full(weight.dims, np.nan, np.float32).tobytes()
    onnx.save(proto, tmp_path / "nan.onnx")
    with pytest.raises(WeightsError, match="its graph is not as it was written"):
        OnnxDepth(tmp_path / "nan.onnx")
    values = json.loads(proto.metadata_props[0].value) | {GRAPH: graph_sha256(proto.SerializeToString())}
    values.pop("sha256")
    proto.metadata_props[0].value = json.dumps(sealed(values))
    onnx.save(proto, tmp_path / "nan.onnx")
    with pytest.raises(DataError, match="this image: the graph gives no numbers"):
        OnnxDepth(tmp_path / "nan.onnx").predict(photo(96, 96))


def test_an_engine_that_fails_says_so_in_one_line(graph, monkeypatch):
    opened = OnnxDepth(graph)

    class Session:
        def run(self, *_):
            raise RuntimeError("Failed to\nallocate memory")

    monkeypatch.setattr(opened, "session", Session())
    with pytest.raises(DataError, match="this image: onnxruntime cannot run the graph on it .Failed to allocate memory.*--side"):
        opened.predict(photo(96, 96))


def test_towers_beyond_what_a_file_holds(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST", 1000)
    monkeypatch.setattr(export, "to_onnx", lambda *_: pytest.fail("found out too late"))
    with pytest.raises(UsageError, match="image tower takes .* GiB.*2 GiB.*predict it with torch"):
        export.export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_packages(model, graph, tmp_path, monkeypatch):
    for package, work in (
        ("onnxruntime", lambda: OnnxDepth(graph)),
        ("onnxscript", lambda: export.export_onnx(model, tmp_path / "m.onnx")),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UsageError, match=rf"{package}: pip install 'depthtokens\[onnx\]'"):
            work()


def test_what_does_not_export_says_so(tmp_path):
    class Moody(torch.nn.Module):
        def forward(self, image):
            return image.float() if image.float().mean() > 3 else -image.float()

    with pytest.raises(UsageError, match="does not export to ONNX .*it may with a fixed --size H W") as caught:
        export.to_onnx(Moody(), None, ("depth",))
    assert "\n" not in str(caught.value)


def test_what_the_exporter_fixed_in_silence_is_found_out(model, graph, tmp_path, monkeypatch):
    proto = onnx.load(graph)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    monkeypatch.setattr(export, "to_onnx", lambda *_: proto)
    with pytest.raises(DepthTokensError, match="not written: onnxruntime cannot run the graph .*invalid dimensions"):
        export.export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_errors_of_the_file_are_one_line(tmp_path):
    (tmp_path / "m.onnx").write_text("hello")
    with pytest.raises(WeightsError) as caught:
        OnnxDepth(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_no_place_of_this_machine_is_in_a_graph(graph, tiny_file):
    """The exporter notes at every node which line of which file it comes from."""
    content = graph.read_bytes()
    assert not [
        part
        for part in (str(tiny_file.parent), str(export.Path(export.__file__).parents[2]), "site-packages", ".py")
        if part.encode() in content
    ]
    assert OnnxDepth(graph).metadata["clip"]["name"] == "tiny.pt"


def described(graph, path, change):
    """The same graph with other metadata."""
    proto = onnx.load(graph)
    values = json.loads(proto.metadata_props[0].value)
    changed = change(values) or values
    proto.metadata_props[0].value = changed if isinstance(changed, str) else json.dumps(changed)
    onnx.save(proto, path)
    return path


def test_any_flipped_bit_of_the_metadata_is_refused(graph, tmp_path):
    text = onnx.load(graph).metadata_props[0].value.encode()
    for at in range(0, 8 * len(text), 97):
        flipped = bytearray(text)
        flipped[at // 8] ^= 1 << at % 8
        if at % 8 == 7:
            continue  # no text
        path = described(graph, tmp_path / "d.onnx", lambda _, flipped=flipped: flipped.decode())
        try:
            assert OnnxDepth(path).metadata == OnnxDepth(graph).metadata  # 1E-7 for 1e-7
        except WeightsError as error:
            assert "does not hold" in str(error) or "format" in str(error)


def unseal(values):
    del values["graph_sha256"], values["sha256"]


def test_graphs_of_before_are_read_with_a_note(graph, model, tmp_path):
    with pytest.warns(UserWarning, match="no checksums"):
        opened = OnnxDepth(described(graph, tmp_path / "b.onnx", unseal))
    assert np.array_equal(opened.centres, model.centres.numpy()) and opened.stride == 32 and opened.size is None


@pytest.mark.parametrize("change", [
    {"stride": True}, {"stride": 0}, {"stride": 10**9}, {"stride": "32"}, {"size": [64]}, {"size": [64, -1]}, {"size": 3}, {"size": "64"},
    {"clip": None}, {"clip": {"name": 3, "fingerprint": "0" * 64}}, {"model": None}, {"model": {}}, {"verified": float("nan")},
    {"versions": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]},
])  # fmt: skip
def test_metadata_is_data(graph, tmp_path, change):
    def made_up(values):
        unseal(values)
        values.update(change)

    with pytest.raises(WeightsError, match="does not hold"):
        OnnxDepth(described(graph, tmp_path / "m.onnx", made_up))


def test_a_gain_is_in_the_graph_and_a_shift_is_not_exported(tiny_clip, tmp_path):
    model = DepthTokens(tiny_clip, depth="random:7", scale=378, predict_side=64, condition="gain")
    model.condition.weight.data += torch.randn(64, generator=torch.Generator().manual_seed(0))
    export.export_onnx(model, tmp_path / "m.onnx", (64, 96))
    opened = OnnxDepth(tmp_path / "m.onnx")
    assert opened.settings.condition == "gain"
    for (height, width), flip in (((64, 96), False), ((128, 192), True)):
        agree(opened.predict(photo(height, width), flip=flip), model.predict(photo(height, width), flip=flip))
    images = np.stack([photo(64, 96), photo(64, 96)[::-1]])
    *_, gain = opened.session.run(None, {"image": images})
    assert gain.shape == (2, 1, 1, 1) and np.abs(gain - 1).max() > 0.01 and gain[0] != gain[1]
    with pytest.raises(UsageError, match="every image has prompts of its own with condition shift"):
        export.export_onnx(DepthTokens(tiny_clip, condition="shift"), tmp_path / "s.onnx")
