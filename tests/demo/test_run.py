"""The demonstration, small: its table, its report, what happens when it is interrupted or may not write."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from depthtokens import DepthTokens, DepthTokensError
from depthtokens.cli import main
from depthtokens.demo import run as module
from depthtokens.demo.page import write_report
from depthtokens.demo.run import ROWS, DemoSettings, run_demo

SMALL = DemoSettings(train=24, test=8, size=(96, 128), epochs=6)
NAMES = ["constant", "mean map", *(row.name for row in ROWS)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def table(demo):
    return {result.name: (result.trained_parameters, result.scores.quoted) for result in demo.results}


@pytest.mark.parametrize("domain", ["indoor", "road"])
def test_two_runs_give_the_same_table_and_a_report(cache, tmp_path, domain):
    settings = replace(SMALL, domain=domain)
    first, again = (run_demo(settings, tmp_path / name, cache=cache) for name in "ab")
    assert list(table(first)) == NAMES and table(first) == table(again)
    width = first.clip.text.width
    trained = {name: count for name, (count, _) in table(first).items()}
    learned = {"learned-7": 7, "4o4d + depth-7": 8, "4o4d + learned-7": 15, "learned-20 log": 20}
    assert trained == {"constant": 1, "mean map": 96 * 128} | {row.name: learned.get(row.name, 0) * width for row in ROWS}
    write_report(first, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr") >= len(NAMES) + 7 and page.count("data:image/png;base64,") == 6 * 6 + 2
    assert not re.search(r"(src|href)=.(?!data:)", page)  # self-contained
    assert DepthTokens.load(first.tokens).settings["predict_side"] == 96


def test_an_interrupted_run_goes_on(cache, tmp_path, monkeypatch):
    whole = run_demo(SMALL, tmp_path / "whole", cache=cache)
    learned, fit = [], module.fit

    def counting(learners, *args, **kwargs):
        if len(learned) == 2:
            raise KeyboardInterrupt
        learned.append(learners[0].model.settings["template"])
        return fit(learners, *args, **kwargs)

    monkeypatch.setattr(module, "fit", counting)
    with pytest.raises(KeyboardInterrupt):
        run_demo(SMALL, tmp_path / "part", cache=cache)
    learned.clear()
    part = run_demo(SMALL, tmp_path / "part", cache=cache)
    assert len(learned) == 2 and table(part) == table(whole)  # two of four were there
    # Tokens of other settings, or damaged ones, are learned again.
    (tmp_path / "part" / "tokens" / "learned-7.safetensors").write_bytes(b"damaged")
    learned.clear()
    assert table(run_demo(SMALL, tmp_path / "part", cache=cache)) == table(whole) and len(learned) == 1


def test_command_prints_json_and_nothing_else(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "DemoSettings", lambda **changes: replace(SMALL, **changes))
    main(["demo", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == NAMES and all(row["scores"].keys() >= {"abs_rel", "rmse", "d1"} for row in rows)
    assert (tmp_path / "depthtokens-demo" / "report.html").is_file()
    main(["demo"])
    printed = capsys.readouterr().out
    assert "learned-7" in printed and "report.html" in printed and printed.count("  depthtokens ") == 3


def test_nowhere_to_write(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DepthTokensError, match="cannot write to"):
        run_demo(SMALL, tmp_path / "file" / "demo")
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--out", str(tmp_path / "file")])
    assert stop.value.code == 1 and capsys.readouterr().err.count("\n") == 1
