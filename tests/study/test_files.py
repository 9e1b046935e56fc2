"""A study's files: the same numbers in JSON, CSV and on standard output."""

from __future__ import annotations

import csv
import json

import pytest

from depthtokens.cli import main
from depthtokens.depth.metrics import METRICS
from depthtokens.files import locked
from depthtokens.study.files import told
from helpers import killed, refused, run


def read_csv(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


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


def test_no_place_of_this_machine_is_in_a_study(studied, tokens):
    written = [path for path in studied.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(written) == 4 and not any(str(tokens.parent.parent).encode() in path.read_bytes() for path in written)
    values = json.loads((studied / "study.json").read_text())
    assert values["tokens"] == tokens.name and values["clip"]["name"] == "tiny.pt"
    assert told("near/by|far") == "near/by|far" and told("depth-7") == "depth-7" and told("runs/a") == "a"


@pytest.mark.slow
def test_a_killed_study_begins_anew(tokens, tmp_path, capsys):
    out = tmp_path / "s"
    words = ("study", tokens, "--out", out, "--scales", "depth-7", "--neighbours", 3)
    killed("report.html", *words)
    assert (out / "study.json").is_file() and not (out / "report.html").exists()
    assert run(capsys, *words)[0] == 0
    whole = (out / "report.html").read_text()
    assert "holds a study: choose another --out, or give --overwrite" in refused(capsys, *words)
    killed("study.json", *words, "--overwrite")
    assert not (out / "report.html").exists()  # no page of one study beside the numbers of another
    assert run(capsys, *words)[0] == 0 and len((out / "report.html").read_text()) == len(whole)
    (out / "report.html").unlink()
    (out / "mine.txt").touch()
    assert "is not empty" in refused(capsys, *words)


def test_one_study_at_a_time(tokens, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("depthtokens.files.PATIENCE", 0.1)
    with locked(tmp_path):
        said = refused(capsys, "study", tokens, "--out", tmp_path, "--scales", "depth-7", code=1)
    assert "another process is writing" in said and [path.name for path in tmp_path.iterdir()] == [".lock"]
