"""Settings: from options to a header and back, and headers that are refused with one line before anything is built."""

from __future__ import annotations

import json
import math

import pytest
import torch

from depthtokens.clip import CLIPIdentity
from depthtokens.depth import settings as module
from depthtokens.depth.bins import bin_centres
from depthtokens.depth.checkpoint import read_tokens, write, write_tokens
from depthtokens.depth.header import Header
from depthtokens.depth.settings import ModelOptions, ModelSettings, Provenance, scale_value, spoken
from depthtokens.errors import UsageError, WeightsError
from depthtokens.schema import read_dataclass

CLIP = CLIPIdentity("RN50", "openai", "0" * 64)
SHAPES = {"tokens.depth": (7, 512)}
NAN, INF = float("nan"), float("inf")


def header(settings=None, **provenance):
    return Header(settings or ModelSettings(), CLIP, Provenance(**provenance), {"depthtokens": "0.1.0"})


def refusal(call, kind=UsageError):
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# From options to a header and back


@pytest.mark.parametrize("changes", [
    {}, {"template": "1o2d", "depth": "path:3:9"}, {"depth": "depth-7", "scale": "learned"}, {"depth": "near|far", "bins": "1|2.5"},
    {"depth": "random:20", "bins": "log", "depth_range": (0.5, 80.0), "predict_side": 352}, {"bins": "depthclip", "scale": "depthclip"},
    {"init": "depth-7", "batchnorm": "adapt", "normalisation": "clip", "dense": "value", "scale": 31.5, "seed": 7},
    {"depth": "metres:9", "bins": "log"},
])  # fmt: skip
def test_header_round_trip(changes):
    settings = ModelSettings(**changes)
    values = json.loads(json.dumps(settings.to_header()))
    assert values["centres"] == pytest.approx(settings.centres, rel=1e-6) and values["template"] == settings.parsed.text
    assert values["words"] == [str(word) for word in settings.words.words]
    again = ModelSettings.from_header(values)
    assert again.changed(template=settings.template) == settings and again.parsed == settings.parsed
    first = header(settings, protocol="pooled", training={"experiment": {"epochs": 3}})
    shapes = settings.shapes(512)
    back = Header.from_dict(json.loads(json.dumps(first.to_dict())), shapes)
    assert back.model == again and (back.clip, back.provenance, back.versions) == (CLIP, first.provenance, first.versions)
    assert back.provenance.experiment == {"epochs": 3}


def test_numbers_as_words_say_where_bins_lie():
    assert ModelSettings(depth="metres:4", depth_range=(0.5, 4.5)).words.words == ("1.0 metres", "2.0 metres", "3.0 metres", "4.0 metres")
    assert ModelSettings(depth="metres:2", bins="0.25|7").words.words == ("0.25 metres", "7.0 metres")
    assert not ModelOptions(depth="metres:4").learns and ModelSettings(init="depth-7").start == "depth-7"
    assert ModelSettings(depth="learned:2", bins="1|2.5", init="metres").start == ("1.0 metres", "2.5 metres")
    path = ModelSettings(depth="path:3:5", bins="1|2|3|4|5", init="metres")
    assert path.start == ("1.0 metres", "3.0 metres", "5.0 metres") and path.words.words == ()


def test_provenance_may_be_empty():
    values = header().to_dict()
    assert not {"protocol", "training"} & values.keys()
    back = Header.from_dict(values, SHAPES)
    assert back.provenance == Provenance() and back.provenance.experiment == {}
    assert Provenance(training={"row": "nyu/learned-7", "experiment": None}).experiment == {}


def test_headers_of_before_hold_lists():
    """Bins and words as lists, no normalisation, no initial words, no weights, no versions, and keys that are gone."""
    model = {"template": "This object appears to be {depth}", "depth": ["near", "far"], "bins": [1.0, 2], "depth_range": [1, 10],
             "init": ["close", "far"], "logit_scale": 707.1}  # fmt: skip
    back = Header.from_dict({"format": 1, "model": model, "clip": {"name": "RN50", "fingerprint": "0" * 64}}, {})
    assert back.model.bins == "1.0|2.0" and back.model.centres == (1.0, 2.0) and back.model.init == "close|far"
    assert back.model.words.words == ("near", "far") and back.model.normalisation == "imagenet"
    assert back.clip == CLIPIdentity("RN50", None, "0" * 64) and back.versions == {}


def test_options_on_data():
    options = ModelOptions(depth="learned:20", bins="log")
    settings = options.on((0.5, 8.0), 480)
    assert settings.depth_range == (0.5, 8.0) and settings.predict_side == 480 and settings.depth == "learned:20"
    assert settings.centres == bin_centres("log", 20, (0.5, 8.0)) and settings.logit_scale == pytest.approx(1000 / math.sqrt(20))
    assert settings.arguments().keys() == {*ModelOptions().__dict__, "depth_range", "predict_side"}
    learns = {"learned:7": True, "path:2:9": True, "random:7": False, "depth-7": False}
    assert {depth: ModelOptions(depth=depth).learns for depth in learns} == learns
    assert ModelOptions(depth="depth-7", scale="learned").learns and ModelOptions(depth="depth-7", template="1o1d").learns


def test_shapes():
    assert ModelSettings().shapes(512) == {"tokens.depth": (7, 512)}
    assert ModelSettings(depth="path:3:9", template="1o2d", scale="learned").shapes() == {
        "tokens.context": (3, -1), "tokens.depth": (3, -1), "log_scale": (),
    }  # fmt: skip
    assert ModelSettings(depth="depth-7").shapes() == {}


def test_lists_as_text():
    assert spoken(["near", "far"]) == "near|far" and spoken((1, 2.5)) == "1.0|2.5" and spoken("linear") == "linear"
    assert spoken(3) == 3 and spoken(None) is None
    for value in (["learned:3"], [2.0], [], ["near|far", "x"]):  # as text, each would be something else
        said = refusal(lambda value=value: spoken(value))
        assert "needs two entries or more" in said or "stands between words, not in one" in said
    for value in ([None, 1], [["near"], ["far"]], [10**400, 1]):
        assert "a list of words or of numbers was expected" in refusal(lambda value=value: spoken(value))


@pytest.mark.parametrize(("scale", "value"), [("auty2023", 1000 / math.sqrt(7)), ("learned", 1000 / math.sqrt(7)), ("depthclip", 1000.0),
                                              (31.5, 31.5), ("31.5", 31.5)])  # fmt: skip
def test_logit_scales(scale, value):
    assert scale_value(scale, 7) == pytest.approx(value)


# What is refused


@pytest.mark.parametrize(("changes", "message"), [
    ({"seed": True}, "seed = True should be a whole number"), ({"seed": 1.0}, "seed = 1.0 should be a whole number"),
    ({"predict_side": True}, "predict_side = True should be a whole number"), ({"predict_side": "480"}, "should be a whole number"),
    ({"depth_range": [NAN, 10.0]}, "depth_range = [nan, 10.0] should be two numbers"),
    ({"depth_range": [0.1, NAN]}, "should be two numbers"), ({"depth_range": [True, 10]}, "should be two numbers"),
    ({"depth_range": [1.0]}, "should be two numbers"), ({"depth_range": [1, 2, 3]}, "should be two numbers"),
    ({"depth_range": "1|2"}, "should be two numbers"), ({"depth_range": None}, "should be two numbers"),
    ({"depth_range": [0.1, INF]}, "needs 0 < lo < hi"), ({"depth_range": [10, 1]}, "needs 0 < lo < hi"),
    ({"depth_range": [0, 1]}, "needs 0 < lo < hi"),
    ({"scale": True}, "scale = True should be text or a number"), ({"scale": NAN}, "should be text or a number"),
    ({"scale": [1.0]}, "should be text or a number"), ({"scale": None}, "should be text or a number"),
    ({"scale": "depthclap"}, "did you mean 'depthclip'"), ({"scale": -1.0}, "needs a positive number"), ({"scale": 0}, "positive number"),
    ({"scale": INF}, "needs a positive number"), ({"scale": "nan"}, "needs a positive number"),
    ({"template": 3}, "template = 3 should be text"), ({"template": "close by"}, "has no {depth}"),
    ({"depth": 7}, "depth = 7 should be text"), ({"depth": "learned:1"}, "at least two"), ({"depth": {}}, "should be text"),
    ({"bins": [1.0, 2.0]}, "7 depth words or tokens need 7 bins, but bins '1.0|2.0' makes 2"), ({"bins": {}}, "bins = {} should be text"),
    ({"bins": [1.0, NAN, 3, 4, 5, 6, 7]}, "not a number"), ({"bins": ["a"] * 7}, "centres are numbers"),
    ({"bins": "linar"}, "did you mean 'linear'"), ({"dense": 3}, "dense = 3 should be text"),
    ({"batchnorm": "adept"}, "did you mean 'adapt'"), ({"normalisation": "clp"}, "did you mean 'clip'"), ({"init": 1}, "should be text"),
])  # fmt: skip
def test_settings_of_wrong_type_or_bounds(changes, message):
    values = header().to_dict()
    values["model"] |= changes
    assert message in refusal(lambda: Header.from_dict(values, SHAPES))


@pytest.mark.parametrize("values", [None, 3, [], "learned:7", {}, {"template": "baseline", "depth": "learned:7"}])
def test_settings_that_are_none(values):
    assert "no table with template, depth and bins" in refusal(lambda: ModelSettings.from_header(values))


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": 2}, "format 2, expected 1"), ({"format": None}, "expected 1"), ({"clip": None}, "does not name its CLIP"),
    ({"clip": {"name": "RN50"}}, "does not name its CLIP"),
    ({"clip": {"name": 1, "fingerprint": "0" * 64}}, "CLIP: name = 1 should be text"),
    ({"clip": {"name": "RN50", "fingerprint": "0"}}, "the fingerprint of its CLIP is none"), ({"versions": {"torch": 2}}, "versions"),
    ({"clip": {"name": "RN50", "fingerprint": "0" * 64, "colour": "red"}}, "unknown setting in CLIP 'colour'"),
    ({"protocol": 3}, "provenance"), ({"training": [1]}, "provenance"),
])  # fmt: skip
def test_other_parts_of_a_header(changes, message):
    assert message in refusal(lambda: Header.from_dict(header().to_dict() | changes, SHAPES))


@pytest.mark.parametrize(("changes", "shapes", "message"), [
    ({}, {}, "'tokens.depth' should be (7, any), found nothing"),
    ({}, {"tokens.depth": (6, 512)}, "should be (7, any), found (6, 512)"),
    ({}, {"tokens.depth": (7, 512, 1)}, "found (7, 512, 1)"), ({}, {"tokens.depth": ()}, "found ()"),
    ({"depth": "learned:3000"}, SHAPES, "'tokens.depth' should be (3000, any), found (7, 512)"),
    ({"depth": "path:9:300"}, SHAPES, "should be (9, any), found (7, 512)"),
    ({"template": "1o1d"}, SHAPES, "'tokens.context' should be (2, any), found nothing"),
    ({"scale": "learned"}, SHAPES, "'log_scale' should be (), found nothing"),
    ({"scale": "learned"}, {**SHAPES, "log_scale": (1,)}, "found (1,)"),
    ({"depth": "depth-7"}, SHAPES, "'tokens.depth' is no tensor of a model with these settings"),
    ({}, {**SHAPES, "batchnorm.bn1.running_mean": (64,)}, "'batchnorm.bn1.running_mean' is no tensor"),
    ({"batchnorm": "adapt"}, {**SHAPES, "batchnorm.bn1.weight": (64,)}, "'batchnorm.bn1.weight' is no tensor"),
    ({}, {**SHAPES, "tokens.depht": (7, 512)}, "'tokens.depht' is no tensor"),
])  # fmt: skip
def test_tensors_that_are_not_those_of_the_settings(changes, shapes, message):
    values = header().to_dict()
    values["model"] |= changes
    assert message in refusal(lambda: Header.from_dict(values, shapes))


def test_statistics_come_with_batchnorm_that_adapts():
    values = header(ModelSettings(batchnorm="adapt")).to_dict()
    shapes = {**SHAPES, "batchnorm.bn1.running_mean": (64,), "batchnorm.bn1.running_var": (64,)}
    assert Header.from_dict(values, shapes).model.batchnorm == "adapt"


def test_dataclasses_from_plain_values():
    assert read_dataclass(ModelOptions, {"seed": 3, "scale": 5}, "e.toml") == ModelOptions(seed=3, scale=5)
    assert "unknown setting in e.toml 'sede': did you mean 'seed'?" in refusal(lambda: read_dataclass(ModelOptions, {"sede": 3}, "e.toml"))
    assert refusal(lambda: read_dataclass(ModelOptions, {"bins": ["linear"]}, "e.toml")) == "e.toml: bins = ['linear'] should be text"
    assert refusal(lambda: read_dataclass(CLIPIdentity, {"name": "RN50"}, "CLIP")).startswith("CLIP: ")


def test_token_files_are_refused_with_their_name(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tokens(path, {"tokens.depth": torch.zeros(7, 512)}, header())
    tensors, found = read_tokens(path)
    assert found == Header.from_dict(header().to_dict(), SHAPES) and tensors["tokens.depth"].shape == (7, 512)
    write_tokens(path, {"tokens.depth": torch.zeros(6, 512)}, header())
    assert refusal(lambda: read_tokens(path), WeightsError) == f"{path}: 'tokens.depth' should be (7, any), found (6, 512)"
    write(path, {"tokens.depth": torch.zeros(7, 512)}, {"format": 1})
    assert str(path) in refusal(lambda: read_tokens(path), WeightsError)


@pytest.mark.parametrize("depth", ["learned:30000000", "metres:30000000"])
def test_a_wish_for_millions_of_bins_is_refused_at_once(depth, monkeypatch):
    header = json.loads(json.dumps(ModelSettings().to_header())) | {"depth": depth}
    monkeypatch.setattr(module, "bin_centres", lambda *_: pytest.fail("centres were made first"))
    with pytest.raises(UsageError, match="more than the 65536"):
        ModelSettings.from_header(header)


@pytest.mark.parametrize(
    "changes", [{"predict_side": 0}, {"predict_side": -480}, {"seed": -1}, {"bins": [None] * 7}, {"depth": [[1.0]] * 7}]
)
def test_values_out_of_bounds(changes):
    with pytest.raises(UsageError):
        ModelSettings.from_header({**json.loads(json.dumps(ModelSettings().to_header())), **changes})
