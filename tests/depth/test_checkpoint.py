"""Token files: whole or refused, whatever was done to their bytes or their header."""

from __future__ import annotations

import json
import time
import warnings

import pytest
import torch
from safetensors.torch import save_file

from depthtokens.clip import CLIPIdentity
from depthtokens.depth import checkpoint
from depthtokens.depth.checkpoint import KEY, read, read_tokens, restore, write, write_tokens
from depthtokens.depth.header import Header
from depthtokens.depth.settings import ModelSettings, Provenance
from depthtokens.errors import DepthTokensError, UsageError, WeightsError

CLIP = CLIPIdentity("RN50", "openai", "0" * 64)


def tokens(path, training=None, **settings):
    """A small token file."""
    model = ModelSettings(**{"depth": "learned:2", **settings})
    tensors = {name: torch.full([4 if n < 0 else n for n in shape], 0.5) for name, shape in model.shapes().items()}
    write_tokens(path, tensors, Header(model, CLIP, Provenance("pooled", training), {"torch": "2.0"}))
    return path


def unsealed(path, change, **tensors):
    """The same file as an earlier version, or somebody else, writes it: with another header and no checksum."""
    found, header = read(path)
    header = change(header) or header
    save_file(found | tensors, path, {KEY: header if isinstance(header, str) else json.dumps(header)})
    return path


def test_any_flipped_bit_is_refused(tmp_path):
    path, damaged = tokens(tmp_path / "t.safetensors"), tmp_path / "d.safetensors"
    content, (tensors, header) = path.read_bytes(), read_tokens(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor is it taken for a file of an earlier version
        for at in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[at // 8] ^= 1 << at % 8
            damaged.write_bytes(flipped)
            try:
                found, said = read_tokens(damaged)
            except WeightsError:
                continue
            assert said == header and found.keys() == tensors.keys(), at
            assert all(torch.equal(found[name], value) for name, value in tensors.items()), at


def test_cut_files_are_refused(tmp_path):
    path = tokens(tmp_path / "t.safetensors")
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            read_tokens(path)


def test_tensors_of_another_file_are_refused(tmp_path):
    header = json.loads(json.dumps(read(tokens(tmp_path / "a.safetensors"))[1]))
    write(tmp_path / "b.safetensors", {"tokens.depth": torch.ones(2, 4)}, header)
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(content[: -2 * 4 * 4] + (tmp_path / "b.safetensors").read_bytes()[-2 * 4 * 4 :])
    with pytest.raises(WeightsError, match="damaged or not a token file .not as it was written"):
        read_tokens(tmp_path / "b.safetensors")


def test_sums_of_every_type(tmp_path):
    values = {"a": torch.tensor(3.0), "b": torch.ones(2, 0), "c": torch.ones(3, dtype=torch.bfloat16), "d": torch.tensor([True, False]),
              "e": torch.arange(6).reshape(2, 3).T}  # fmt: skip
    write(tmp_path / "s.safetensors", values, {"step": 1})
    found, header = read(tmp_path / "s.safetensors")
    assert header == {"step": 1} and all(torch.equal(found[name], value) for name, value in values.items())


def test_files_of_before_are_read_with_one_note(tmp_path):
    path = tokens(tmp_path / "t.safetensors", {"experiment": {"data": "folder:/home/me/x", "out": "/home/me/runs"}})
    before = read_tokens(path)
    unsealed(path, lambda header: header["training"]["experiment"].update(data="folder:/home/me/x"))
    with pytest.warns(UserWarning, match="no checksum") as caught:
        tensors, header = read_tokens(path)
        read_tokens(path)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert torch.equal(tensors["tokens.depth"], before[0]["tokens.depth"]) and header.model == before[1].model
    assert header.provenance.experiment["data"] == "folder:/home/me/x"  # a file of before is read as it is


def test_places_of_this_machine_stay_here(tmp_path):
    training = {"experiment": {"data": f"folder:{tmp_path}", "out": str(tmp_path / "run"), "clip": str(tmp_path / "c.pt")},
                "notes": [str(tmp_path), "\x1b[2J"], "epoch_losses": (1.0, 0.5)}  # fmt: skip
    path = tokens(tmp_path / "t.safetensors", training)
    assert str(tmp_path).encode() not in path.read_bytes() and b"\x1b" not in path.read_bytes()
    found = read_tokens(path)[1].provenance.training
    assert found["experiment"] == {"data": f"folder:{tmp_path.name}", "out": "run", "clip": "c.pt"}
    assert found["notes"] == [tmp_path.name, "\\x1b[2J"] and found["epoch_losses"] == [1.0, 0.5]
    for wrong in ({"loss": float("nan")}, {"when": object()}):
        with pytest.raises(UsageError, match="provenance"):
            tokens(tmp_path / "w.safetensors", wrong)
    assert not (tmp_path / "w.safetensors").exists()


def deep(count):
    return '{"a":' + "[" * count + "]" * count + "}"


@pytest.mark.parametrize("change", [
    lambda header: deep(50), lambda header: deep(5_000), lambda header: deep(1_000_000), lambda header: "[1]", lambda header: "nan",
    lambda header: json.dumps(header)[:-1] + ', "format": 1}',  # twice
    lambda header: header["model"].update(seed=10**400), lambda header: json.dumps(header).replace('"seed": 42', '"seed": ' + "9" * 5_000),
    lambda header: header["model"].update(depth_range=[10**400, 1]), lambda header: header["model"].update(scale=10**400),
    lambda header: header["model"].update(scale=float("nan")), lambda header: header["model"].update(predict_side=10**9),
    lambda header: header["model"].update(depth="learned:30000000"), lambda header: header["model"].update(depth="path:2:3000000"),
    lambda header: header["model"].update(depth="random:1000000000"), lambda header: header["model"].update(depth="learned:" + "9" * 5_000),
    lambda header: header["model"].update(depth="path:" + "9" * 5_000 + ":2"), lambda header: header["model"].update(depth="learned:3"),
    lambda header: header["model"].update(depth="path:60000:60000"), lambda header: header["model"].update(bins="log:" + "9" * 5_000),
    lambda header: header["model"].update(bins="linear:1000000000"), lambda header: header["model"].update(bins="1|" * 2_000_000 + "2"),
    lambda header: header["model"].update(bins=[1.0] * 200_000), lambda header: header["model"].update(depth="a|" * 2_000_000 + "b"),
    lambda header: header["model"].update(depth="a" * 4_000_000), lambda header: header["model"].update(batchnorm="x" * 8_000_000),
    lambda header: header["model"].update(template="{ctx}" * 1_000_000 + "{depth}"),
    lambda header: header["model"].update(template="{ctx*99}" * 400 + "{depth}"),
    lambda header: header["model"].update(template="a\x1b[2J {depth}"), lambda header: header["model"].update(depth="near|\x1b]0;far\x07"),
    lambda header: header["model"].update(words=["x" * 2**25]), lambda header: header.update(protocol=3),
    lambda header: header.update(training=[1]), lambda header: header.update(versions={"torch": 2}),
    lambda header: header["clip"].update(fingerprint="0"), lambda header: header["clip"].update(weights=3),
])  # fmt: skip
def test_a_header_is_data(tmp_path, change):
    path = unsealed(tokens(tmp_path / "t.safetensors"), change)
    started = time.monotonic()
    with pytest.raises(WeightsError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_tokens(path)
    said = str(caught.value)
    assert len(said) <= 4000 and "\n" not in said and said.isprintable() and time.monotonic() - started < 30


def test_what_a_file_tells_is_legible(tmp_path):
    hostile = {"name": "/home/\x1b[2J" + "x" * 10_000}
    path = unsealed(tokens(tmp_path / "t.safetensors"), lambda header: header.update(training=hostile, protocol="\x1b[31mpooled"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read_tokens(path)[1].provenance
    assert found.protocol == "\\x1b[31mpooled" and len(found.training["name"]) == 4096 and found.training["name"].isprintable()


def test_a_header_that_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGEST", 100)
    with pytest.raises(UsageError, match="too large for a token file"):
        tokens(tmp_path / "t.safetensors")
    for header in ({"a": float("nan")}, {"a": json.loads(deep(20))}):
        with pytest.raises(DepthTokensError):
            write(tmp_path / "t.safetensors", {}, header)
    assert not list(tmp_path.iterdir())


def test_restore_takes_what_is_expected_and_no_more(tmp_path):
    expected = {"tokens.depth": torch.zeros(2, 4)}
    for tensors, message in (({}, "found nothing"), ({"tokens.depth": torch.ones(3, 4)}, "found .3, 4."),
                             ({"tokens.depth": torch.ones(2, 4), "tokens.more": torch.ones(1)}, "'tokens.more' is no tensor")):  # fmt: skip
        with pytest.raises(WeightsError, match=message):
            restore(expected, tensors, tmp_path)
    assert not expected["tokens.depth"].any()
