"""The two callbacks of work under way."""

from __future__ import annotations

from depthtokens.progress import prefixed, silent


def test_prefixed_passes_everything_on():
    calls = []
    progress = prefixed(lambda *arguments: calls.append(arguments), "nyu: ")
    progress("reading", 1, 7)
    progress("training", 2, 7, "loss 1.234")
    prefixed(progress, "row 3: ")("scoring", 3, 7, note="half")
    assert calls == [("nyu: reading", 1, 7, ""), ("nyu: training", 2, 7, "loss 1.234"), ("nyu: row 3: scoring", 3, 7, "half")]


def test_silent_takes_the_arguments_of_both(capsys):
    silent("reading", 1, 7, note="loss 1.234")
    silent("storing patch features")
    prefixed(silent, "nyu: ")("reading", 1, 7)
    assert capsys.readouterr() == ("", "")
