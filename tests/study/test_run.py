"""A study from end to end: against the parts, of words, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, PromptEncoder, UsageError, load_clip
from depthtokens.cli import main
from depthtokens.study.neighbours import nearest_words
from depthtokens.study.run import in_words
from helpers import refused


def test_without_images_at_a_position(tokens, tiny_clip, model_of, tmp_path, capsys):
    out = tmp_path / "study"
    scales = ["depth-7", "near|b|c|d|e|f|far", "metres:7"]
    main(["study", str(tokens), "--out", str(out), "--position", "7", "--scales", *scales, "--neighbours", "3"])
    assert "give --data" in capsys.readouterr().out and not (out / "scores.csv").exists()
    values = json.loads((out / "study.json").read_text())
    assert "scores" not in values and {"tokens", *scales} == values["paths"].keys()
    tables = {(table["words"], table["space"]): table["rows"] for table in values["neighbours"]}
    model = model_of(tiny_clip)
    for name, same in {"tokens": model, "depth-7": in_words(model, "depth-7")}.items():
        for space, position in (("embedding", 7), ("token", None)):
            expected = nearest_words(same, count=3, space=space, position=position)
            found = tables[name, space]
            assert [[n["name"] for n in row] for row in found] == [[n.name for n in row] for row in expected], (name, space)
    assert {n["name"] for n in tables["depth-7", "embedding"][0][:2]} == {"{depth_2}", "{depth_3}"}  # as in the published table
    distances = torch.tensor(values["distances"]["tokens"])
    features = model.text_features().detach()
    assert torch.allclose(distances, torch.cdist(features, features), atol=1e-4)
    assert values["norms"]["tokens"] == pytest.approx(model.tokens["depth"].norm(dim=1).tolist(), rel=1e-5)


def test_words_without_a_token_file(tiny_file, tmp_path, capsys):
    main(["study", "depth-7", "--clip", str(tiny_file), "--out", str(tmp_path / "s"), "--scales", "size-7", "--json"])
    said = json.loads(capsys.readouterr().out)
    rows = next(t["rows"] for t in said["neighbours"] if (t["words"], t["space"]) == ("tokens", "embedding"))
    assert (rows[1][0]["name"], rows[5][0]["name"]) == ("close</w>", "distant</w>") and rows[1][0]["distance"] < 1e-5
    assert "need a token file" in refused(capsys, "study", "depth-7", "--clip", tiny_file, "--data", "scenes", "--out", tmp_path / "t")


def test_words_keep_the_learned_context(tiny_clip, model_of):
    model = model_of(tiny_clip, template="1o1d")
    with torch.no_grad():
        model.tokens["context"] *= 3  # not what a new model would draw
    first, second = model.tokens["context"]
    expected = PromptEncoder(tiny_clip)([[first, "object", second, "close"], [first, "object", second, "very close"]])
    found = in_words(model, "depth-7").text_features()
    assert torch.allclose(found[[1, 0]], F.normalize(expected, dim=-1), atol=1e-5)


def test_refusals_are_one_line_and_leave_nothing(tokens, tiny_clip, model_of, tmp_path, capsys):
    gone = tmp_path / "gone.pt"
    torch.save({name: value + 1 if name == "logit_scale" else value for name, value in tiny_clip.model.state_dict().items()}, gone)
    model_of(load_clip(str(gone))).save(tmp_path / "orphan.safetensors")
    gone.unlink()
    out, shift, gain = tmp_path / "out", tmp_path / "shift.safetensors", tmp_path / "gain.safetensors"
    model_of(tiny_clip, condition="shift").save(shift)
    model_of(tiny_clip, condition="gain").save(gain)
    cases = [
        ([shift], 2, "no one set of tokens to study"),
        ([gain, "--data", "scenes"], 2, "leave out --data, or use `evaluate`"),
        ([tmp_path / "orphan.safetensors"], 1, "give it with --clip"),
        ([tmp_path / "nothing.safetensors"], 1, "no token file"),
        ([tokens, "--data", "nowhere:x"], 2, "unknown data set 'nowhere'"),
        ([tokens, "--position", "77"], 2, "positions 0 to 76"),
        ([tokens, "--scales", "learned:7"], 2, "no scale of words"),
        ([tokens, "--scales", "near|far"], 2, "has 2 words, these tokens have 7 bins"),
        ([tokens, "--template", "1o1d"], 2, "{ctx} slots"),
        ([tokens, "--neighbours", "0"], 2, "at least one neighbour"),
        ([tokens, "--phrase", "2"], 2, "go on from best words"),
        ([tokens, "--carry-to", "bundled"], 2, "goes on from best words"),
        ([tokens, "--search-seconds", "0"], 2, "takes more than no seconds"),
        ([tokens, "--trained-vocabulary-only"], 2, "for the bundled CLIP"),
    ]
    for arguments, code, said in cases:
        assert said in refused(capsys, "study", *arguments, "--out", out, code=code) and not out.exists(), arguments
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert "--overwrite" in refused(capsys, "study", tokens, "--out", out)
    assert "is a file" in refused(capsys, "study", tokens, "--out", out / "mine.txt")
    main(["study", str(tokens), "--out", str(out), "--overwrite", "--scales", "depth-7"])
    assert (out / "mine.txt").read_text() == "keep" and (out / "report.html").is_file()


def test_only_words_the_bundled_clip_has_read(model_of, tmp_path, capsys):
    clip = load_clip("bundled")
    model_of(clip).save(tmp_path / "tokens.safetensors")
    arguments = ["--out", tmp_path / "s", "--trained-vocabulary-only", "--scales", "depth-7", "--json"]
    main(["study", str(tmp_path / "tokens.safetensors"), *map(str, arguments)])
    said = json.loads(capsys.readouterr().out)
    assert 100 < said["vocabulary"] < 1000
    names = {n["name"] for table in said["neighbours"] for row in table["rows"] for n in row}
    assert (
        not [name for name in names if name.startswith("<")]
        and "nothing but rendered scenes" in (tmp_path / "s" / "report.html").read_text()
    )


def test_a_scale_must_fit():
    with pytest.raises(UsageError, match="has 7 words, these tokens have 3 bins"):
        in_words(DepthTokens(load_clip("bundled"), depth="learned:3"), "depth-7")
