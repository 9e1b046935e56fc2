"""What verbs share: usage errors as sentences, JSON that is JSON, commands that can be run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from depthtokens.cli import _show
from depthtokens.cli.console import command, print_json
from helpers import refused


@pytest.mark.parametrize("boxes", [True, False], ids=["UTF-8", "ASCII"])
@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize(("words", "message"), [
    (["reproduce", "--table", "all", "--data", "nyu:x", "--seeds", "0", "1"], "--seeds takes one value, not 2 (0 1): write --seeds 0,1"),
    (["train", "--data", "nyu:x", "--epochs", "3", "4"], "--epochs takes one value, not 2 (3 4)"),
    (["train", "--data", "nyu:x", "--epochs", "x"], "--epochs x: needs a whole number"),
    (["train", "--data", "nyu:x", "--lr", "big"], "--lr big: needs a number"),
    (["train", "--data", "nyu:x", "--crop", "3"], "--crop 3: needs two whole numbers"),
    (["train", "--data", "nyu:x", "--epoch", "3"], "unknown option --epoch: did you mean --epochs?"),
    (["train", "--data", "nyu:x", "--lrr", "3", "--foo", "5"], "unknown option --lrr: did you mean --lr?"),
    (["train"], "--data STR is missing: Training data"),
    (["train", "data", "nyu:x"], "--data STR is missing: Training data"),
    (["data", "check", "nyu:x", "y"], "'y' belongs to no option: which --flag is it for?"),
    (["predict", "a", "b", "--formats", "png", "pnx"], "unknown value for --formats: 'pnx': did you mean 'png'?"),
    (["predict", "a", "b", "--precision"], "--precision needs a value"),
    (["predict"], "FILE is missing: Token file"),
    (["export", "a"], "--onnx PATH is missing: The .onnx file to write."),
    (["export", "a", "--onnx", "b", "--size", "3", "x"], "--size 3 x: needs two whole numbers"),
])  # fmt: skip
def test_usage_errors_are_sentences(capsys, monkeypatch, boxes, columns, words, message):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda: boxes, raising=False)
    said = refused(capsys, *words)
    assert said.startswith(message) and not set(said) & set("│╭╮╰╯─"), said
    verb = "data check" if words[0] == "data" else words[0]
    assert said.endswith(f"(see depthtokens {verb} --help)") and said.count("--help") == 1


def test_json_holds_no_nan(capsys):
    print_json({"a": float("nan"), "b": [1.5, float("inf"), {"c": -float("inf")}], "d": (2, "x", None, True)})

    def strict(name):
        raise AssertionError(name)

    assert json.loads(capsys.readouterr().out, parse_constant=strict) == {
        "a": None,
        "b": [1.5, None, {"c": None}],
        "d": [2, "x", None, True],
    }


def test_commands_survive_a_shell():
    words = ["a b/tokens.safetensors", "it's", "--data", "nyu:$HOME/*"]
    assert shlex.split(command("data check", *words)) == ["depthtokens", "data", "check", *words]


def test_nothing_that_a_file_says_commands_a_terminal(capsys, tmp_path):
    """Names of files and what stands in them come back in errors, notes and warnings."""
    said = refused(capsys, "evaluate", tmp_path / "\x1b[2J.safetensors", "--data", "nyu:x", code=1)
    assert "\x1b" not in said and "\\x1b[2J" in said
    _show("a\x1b]0;b\x07", UserWarning, "file", 1)
    assert capsys.readouterr().err == "warning: a\\x1b]0;b\\x07\n"


TERMINATED = """
import signal, sys
import depthtokens.cli as cli
cli._run = lambda words: signal.raise_signal(signal.SIGTERM)
sys.argv = ["depthtokens", "study"]
cli.main()
"""


def test_sigterm_is_ctrl_c():
    done = subprocess.run([sys.executable, "-c", TERMINATED], capture_output=True, text=True)
    assert done.returncode == 143 and done.stderr == "depthtokens: terminated\n"
