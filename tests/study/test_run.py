"""The study from end to end: its numbers against those of the parts, its page, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, PromptEncoder, Scenes, UsageError, evaluate, load_clip
from depthtokens.cli import main
from depthtokens.depth.metrics import METRICS
from depthtokens.experiment.evaluate import source_for
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from depthtokens.prompt.scales import SCALES
from depthtokens.report.html import shown
from depthtokens.study.neighbours import nearest_words, vocabulary_features
from depthtokens.study.patches import sample_patches
from depthtokens.study.run import in_words
from depthtokens.study.scores import chosen_ablations
from depthtokens.study.words import word_score

SEVEN = {name for name, words in SCALES.items() if len(words) == 7}


def model_of(clip, **changes):
    return DepthTokens(clip, **{"depth": "learned:7", "dense": "value", "scale": 40, "depth_range": (0.5, 10.0), **changes})


@pytest.fixture(scope="module")
def tokens(tiny_clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    model_of(tiny_clip).save(path)
    return path


@pytest.fixture(scope="module")
def few_scenes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("depthtokens.scenes.dataset.SCENES", {"train": 10, "test": 4})
        yield


@pytest.fixture(scope="module")
def studied(tokens, few_scenes, tmp_path_factory):
    """The folder of a study with images."""
    out = tmp_path_factory.mktemp("out") / "study"
    main(["study", str(tokens), "--data", "scenes", "--out", str(out), "--workers", "0", "--images", "2", "--patches", "200"])
    return out


def read_csv(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def refused(arguments, capsys):
    """The one line that a refused study prints, and its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["study", *map(str, arguments)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("depthtokens: ")]
    assert len(lines) == 1
    return stop.value.code, lines[0]


def test_scores_are_those_of_evaluate(studied, tiny_clip, few_scenes):
    rows = {row["name"]: row for row in json.loads((studied / "study.json").read_text())["scores"]}
    model, test = model_of(tiny_clip), Scenes("indoor", "test", 4)
    removed = [*range(3), *range(4, 7)]
    six = model_of(tiny_clip, depth="learned:6", bins=model.centres[removed].tolist())
    six.tokens["depth"].data = model.tokens["depth"].data[removed]
    for name, same in {"tokens": model, "depth-7": in_words(model, "depth-7"), "removed 3": six}.items():
        expected = evaluate(same, test, workers=0)
        found = {metric: interval["mean"] for metric, interval in rows[name]["mean_over_images"].items()}
        assert found == pytest.approx(expected.image_wise, rel=1e-3, abs=1e-4), name
        assert rows[name]["pooled_over_pixels"] == pytest.approx(expected.pixel_wise, rel=1e-3, abs=1e-4), name
    assert {name for name, row in rows.items() if row["kind"] == "words"} == SEVEN and {"constant", "mean map", "best words"} <= rows.keys()
    kinds = [row["kind"] for row in rows.values()]
    assert [kinds.count(kind) for kind in ("removed", "merged", "replaced", "pair")] == [7, 6, 7, 21]
    for row in rows.values():
        for metric, interval in row["mean_over_images"].items():
            assert interval["low"] <= interval["mean"] <= interval["high"]
            if row["name"] != "tokens":
                ours, theirs = interval["mean"], rows["tokens"]["mean_over_images"][metric]["mean"]
                assert row["less_tokens"][metric]["mean"] == pytest.approx(ours - theirs, abs=1e-9)
    assert rows["tokens"]["less_tokens"] is None and rows["depth-7"]["less_tokens"]["abs_rel"]["low"] != 0


def test_best_words_are_no_worse_than_any_scale(studied):
    found = json.loads((studied / "study.json").read_text())["search"]
    objective = found["objective"]
    assert objective.keys() == {"tokens", "best words", *SEVEN} and 49_408 < found["candidates"] < 49_500 and found["patches"] == 200
    assert all(objective["best words"] <= objective[name] + 1e-6 for name in SEVEN) and len(found["words"]) == 7
    assert objective["best words"] < min(found["start_scores"]) and len(found["start_scores"]) == 7  # nearest words, scales, random
    assert [objective[name] for name in SCALES if name in SEVEN] == pytest.approx(found["start_scores"][1:6], rel=1e-5)


def test_the_objective_is_that_of_the_patches(studied, tiny_clip, few_scenes):
    """Computed anew from images and words: of the tokens, a scale, the best words, and the best words without one."""
    found = json.loads((studied / "study.json").read_text())["search"]
    model = model_of(tiny_clip)
    patches, truth = sample_patches(source_for(model, Scenes("indoor", "train", 10), workers=0), 200, batch_size=1)
    encoder = tiny_clip.tokenizer.tokenizer.encoder
    said = [word if phrase else encoder[word] for word, phrase in zip(found["words"], found["phrases"], strict=True)]
    rows = [_spoken(model, word) for word in said]
    best = torch.cat(rows)

    def objective(text, centres=model.centres):
        return word_score(patches, truth, text.detach(), centres, 40.0)

    expected = {"tokens": model.text_features(), "depth-7": in_words(model, "depth-7").text_features(), "best words": best}
    for name, text in expected.items():
        assert found["objective"][name] == pytest.approx(objective(text), rel=2e-3), name
    for i, without in enumerate(found["without"]):
        rest = [k for k in range(7) if k != i]
        assert without == pytest.approx(objective(best[rest], model.centres[rest]), rel=2e-3)


def _spoken(model, word):
    """Features [1, C] of a phrase, or of the vocabulary entry of an id, in the model's template."""
    if isinstance(word, int):
        return vocabulary_features(model.encoder, model.settings["template"], [word])[1]
    return F.normalize(model.encoder([model.settings["template"].replace("{depth}", word)]), dim=-1)


def test_csv_and_json_hold_the_same_numbers(studied):
    values = json.loads((studied / "study.json").read_text())
    scores = read_csv(studied / "scores.csv")
    assert [row["name"] for row in scores] == [row["name"] for row in values["scores"]]
    for line, row in zip(scores, values["scores"], strict=True):
        for metric in METRICS:
            assert [float(line[metric + end]) for end in ("", "_low", "_high")] == [
                row["mean_over_images"][metric][key] for key in ("mean", "low", "high")
            ]
            assert float(line[f"{metric}_pooled"]) == row["pooled_over_pixels"][metric]
            less = row["less_tokens"] and row["less_tokens"][metric]
            assert line[f"{metric}_less_tokens_low"] == (repr(less["low"]) if less else "")
    lines = iter(read_csv(studied / "neighbours.csv"))
    for table in values["neighbours"]:
        for i, row in enumerate(table["rows"]):
            for rank, neighbour in enumerate(row, 1):
                line = next(lines)
                assert (line["words"], line["space"], line["token"], line["rank"]) == (
                    table["words"],
                    table["space"],
                    f"depth_{i}",
                    str(rank),
                )
                assert (line["neighbour"], float(line["distance"])) == (neighbour["name"], neighbour["distance"])
    assert next(lines, None) is None


def test_the_page_is_whole_and_needs_nothing_else(studied):
    page = (studied / "report.html").read_text()
    assert not re.search(r"(src|href)=.(?!data:)", page) and "http" not in page
    # distances, path, single changes, pairs, two heat maps, words
    assert page.count("data:image/png;base64,") == 7
    for heading in ("Nearest neighbours", "How the tokens lie", "What each token is worth", "Which patches", "How far words can go"):
        assert f"<h2>{heading}" in page
    rows = json.loads((studied / "study.json").read_text())["scores"]
    for row in rows:
        assert f"{row['mean_over_images']['abs_rel']['mean']:.3f}" in page and row["name"].replace("</w>", "") in page.replace(
            "&#x27;", "'"
        )
    for tag in ("p", "table", "tr", "td", "details", "div"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert {path.name for path in studied.iterdir()} == {"report.html", "study.json", "scores.csv", "neighbours.csv"}


def test_json_on_standard_output_is_the_file(tokens, few_scenes, tmp_path, capsys):
    arguments = [
        "--data",
        "scenes",
        "--out",
        tmp_path / "s",
        "--workers",
        "0",
        "--images",
        "0",
        "--no-search",
        "--scales",
        "depth-7",
        "--json",
    ]
    main(["study", str(tokens), *map(str, arguments)])
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "s" / "study.json").read_text()) and "search" not in said
    assert "Which patches" not in (tmp_path / "s" / "report.html").read_text()


def test_without_images_at_a_position(tokens, tiny_clip, tmp_path, capsys):
    out = tmp_path / "study"
    main(["study", str(tokens), "--out", str(out), "--position", "7", "--scales", "depth-7", "near|b|c|d|e|f|far", "--neighbours", "3"])
    assert "give --data" in capsys.readouterr().out and not (out / "scores.csv").exists()
    values = json.loads((out / "study.json").read_text())
    assert "scores" not in values and {"tokens", "depth-7", "near|b|c|d|e|f|far"} == values["paths"].keys()
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
    code, line = refused(["depth-7", "--clip", tiny_file, "--data", "scenes", "--out", tmp_path / "t"], capsys)
    assert code == 2 and "need a token file" in line


def test_words_keep_the_learned_context(tiny_clip):
    model = model_of(tiny_clip, template="1o1d")
    with torch.no_grad():
        model.tokens["context"] *= 3  # not what a new model would draw
    first, second = model.tokens["context"]
    expected = PromptEncoder(tiny_clip)([[first, "object", second, "close"], [first, "object", second, "very close"]])
    found = in_words(model, "depth-7").text_features()
    assert torch.allclose(found[[1, 0]], F.normalize(expected, dim=-1), atol=1e-5)


@pytest.mark.parametrize(("count", "pairs", "single"), [(2, 0, 0), (5, 10, 5), (14, 1, 14), (40, 1, 32)])
def test_ablations_stay_few(tiny_clip, count, pairs, single):
    model = model_of(tiny_clip, depth=f"learned:{count}")
    found, left_out = chosen_ablations(model, model.text_features().detach(), [f"w{i}" for i in range(count)])
    kinds = [variant.kind for variant in found]
    assert kinds.count("pair") == pairs and kinds.count("removed") == single and (left_out is None) == (count <= 12)
    assert len({variant.name for variant in found}) == len(found) and f"replaced {count - 1} by w{count - 1}" in {v.name for v in found}


def test_stores_in_the_place_of_data(tiny_clip, tokens, tmp_path, capsys):
    """Features alone are enough; the train split's must be of other images."""
    for split, count in (("train", 6), ("test", 3)):
        scenes = Scenes("indoor", split, count, size=(64, 96), seed=5)
        write(plan(tiny_clip, scenes, Views(mirrored=split == "test"), ["value"]), tmp_path / split, workers=0)
    stores = ["--data", f"store:{tmp_path / 'test'}", "--train-data"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("depthtokens.scenes.dataset.SCENES", {"train": 4, "test": 2})
        code, line = refused([tokens, *stores, f"store:{tmp_path / 'test'}", "--out", tmp_path / "s"], capsys)
        assert code == 2 and "searched on the images that test them" in line and not (tmp_path / "s").exists()
        main(["study", str(tokens), *stores, f"store:{tmp_path / 'train'}", "--out", str(tmp_path / "s"), "--workers", "0"])
    values = json.loads((tmp_path / "s" / "study.json").read_text())
    assert values["data"]["images"] == 3 and "6 images" in values["data"]["searched_on"]
    assert any("no heat maps" in note for note in values["notes"])  # the scenes of that name are others


def test_refusals_are_one_line_and_leave_nothing(tokens, tiny_clip, tmp_path, capsys):
    gone = tmp_path / "gone.pt"
    torch.save(tiny_clip.model.state_dict(), gone)
    model_of(load_clip(str(gone))).save(tmp_path / "orphan.safetensors")
    gone.unlink()
    out = tmp_path / "out"
    cases = [
        ([tmp_path / "orphan.safetensors"], 1, "give it with --clip"),
        ([tmp_path / "nothing.safetensors"], 1, "no token file"),
        ([tokens, "--data", "nowhere:x"], 2, "unknown data set 'nowhere'"),
        ([tokens, "--position", "77"], 2, "positions 0 to 76"),
        ([tokens, "--scales", "learned:7"], 2, "no scale of words"),
        ([tokens, "--scales", "near|far"], 2, "has 2 words, these tokens have 7 bins"),
        ([tokens, "--template", "1o1d"], 2, "{ctx} slots"),
        ([tokens, "--neighbours", "0"], 2, "at least one neighbour"),
        ([tokens, "--trained-vocabulary-only"], 2, "for the bundled CLIP"),
    ]
    for arguments, code, said in cases:
        found, line = refused([*arguments, "--out", out], capsys)
        assert found == code and said in line and not out.exists(), arguments
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    code, line = refused([tokens, "--out", out], capsys)
    assert code == 2 and "--overwrite" in line
    code, line = refused([tokens, "--out", out / "mine.txt"], capsys)
    assert code == 2 and "is a file" in line
    main(["study", str(tokens), "--out", str(out), "--overwrite", "--scales", "depth-7"])
    assert (out / "mine.txt").read_text() == "keep" and (out / "report.html").is_file()


def test_only_words_the_bundled_clip_has_read(tmp_path, capsys):
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


def test_fragments_are_told_from_words():
    assert [shown(name) for name in ("far</w>", "far", "{depth_2}", "<end_of_text>", "{")] == [
        "far",
        "far-",
        "{depth_2}",
        "<end_of_text>",
        "{-",
    ]
    assert shown("far", fragments=False) == "far" and [shown("âĸ¶ï¸ı</w>"), shown("é</w>"), shown("âĸ")] == ["▶️", "é", "âĸ-"]
    clip = load_clip("bundled")
    model = DepthTokens(clip, depth="learned:2")
    encoder = clip.tokenizer.tokenizer.encoder
    with torch.no_grad():
        model.tokens["depth"].copy_(clip.text.embedding.weight[[encoder["far"], encoder["far</w>"]]])
    page = report._neighbours(SimpleNamespace(models={"learned-7": model}))
    first = [re.sub("<.*", "", row.split('text-align:left">')[1]).strip() for row in page.split("<tr>")[2:]]
    assert first == ["far-", "far"]


def test_a_scale_must_fit():
    with pytest.raises(UsageError, match="has 7 words, these tokens have 3 bins"):
        in_words(DepthTokens(load_clip("bundled"), depth="learned:3"), "depth-7")
