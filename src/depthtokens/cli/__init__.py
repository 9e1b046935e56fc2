"""The command line: one module per verb, found by name and loaded only when asked for."""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TextIO

from ..errors import DepthTokensError, printable, unknown

VERBS = {
    "train": ("train", "learn depth tokens on a data set"),
    "evaluate": ("evaluate", "score tokens or anybody's depth maps by a protocol, beside controls"),
    "reproduce": ("reproduce", "the paper's tables and the effects behind them, beside the published figures"),
    "predict": ("predict", "depth of photos and films: 16-bit PNG, .npy, pictures, point clouds, films"),
    "study": ("study", "what tokens mean: nearest words, their shape, what each is worth, and the best human words instead"),
    "export": ("export", "tokens and image tower as one ONNX file, which `predict` runs without torch"),
    "push": ("push", "share tokens on the hub, with a model card"),
    "pull": ("pull", "fetch tokens from the hub, which every verb also takes as hf:USER/NAME"),
    "app": ("app", "a page in the browser: depth of photos, words beside learned tokens, what tokens are like"),
    "demo": ("demo", "the whole method on rendered scenes with the CLIP that comes with the package"),
    "features": ("features", "compute a data set's patch features once, for every run to read"),
    "features check": ("features_check", "whether stored patch features are whole, and the data still the same"),
    "models": ("models", "the CLIP models there are: weights, towers, and how patch features are read"),
    "data scenes": ("data_scenes", "render scenes with exact depth into a folder"),
    "data check": ("data_check", "what is in a data set, and what is wrong with it"),
    "completion": ("completion", "what completes verbs and flags by Tab in bash, zsh or fish"),
}
"""Verb -> (module of this package, what it does). A module has `main(arguments) -> None`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and exit: 0 = ok, 1 = failed, 2 = bad usage, 130 = stopped by Ctrl-C, 143 = by SIGTERM.

    A user's mistake gets one line, or a traceback with --debug.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        with warnings.catch_warnings():
            if arguments is None:  # a program that calls this function shows warnings, and takes signals, as it likes
                warnings.showwarning = _show
                signal.signal(signal.SIGTERM, _terminate)
            _run([word for word in words if word != "--debug"])
    except DepthTokensError as error:
        if debug:
            traceback.print_exc()
        print(f"depthtokens: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output is gone: nobody to tell
        sys.exit(1)
    except OSError as error:
        if debug:
            traceback.print_exc()
        print(printable(f"depthtokens: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        by = stop.args[0] if stop.args else signal.SIGINT
        print(f"depthtokens: {'terminated' if by == signal.SIGTERM else 'interrupted'}", file=sys.stderr)
        sys.exit(128 + by)


def _terminate(number: int, _frame: object) -> None:
    """What SIGTERM calls, which schedulers send: as Ctrl-C, so that nothing is left half done; a second one ends at once."""
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """A warning in one line, without the line of code that gave it."""
    print(f"warning: {printable(str(message))}", file=sys.stderr)


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return
    if words[0] == "--version":
        from .._version import __version__

        print(f"depthtokens {__version__}")
        return
    two = " ".join(words[:2])
    verb = two if two in VERBS or words[0] == "data" else words[0]
    if verb in ("data", "data -h", "data --help"):
        print(_help("data "))
        return
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    module = importlib.import_module(f".{VERBS[verb][0]}", __name__)
    module.main(words[len(verb.split()) :])


def _help(prefix: str = "") -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{text}" for verb, (_, text) in VERBS.items() if verb.startswith(prefix)]
    return "\n".join([
        "usage: depthtokens VERB [options]",
        "",
        "Teach a frozen CLIP new words for depth.",
        "",
        "verbs:",
        *lines,
        "",
        "`depthtokens VERB --help` lists a verb's options; all verbs know --debug (full traceback on errors).",
    ])  # fmt: skip
