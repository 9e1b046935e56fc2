"""The verb `train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tyro

from ..errors import UsageError
from ..experiment.config import RECIPES, Experiment, recipe
from ..files import user_path
from .console import ProgressBar, command, notify, parse, print_json


def main(arguments: Sequence[str]) -> None:
    """Learn tokens. `--config FILE`, `--recipe NAME` or `--resume FOLDER` give the settings; flags override them."""
    words, config = _take(list(arguments), "--config")
    words, folder = _take(words, "--resume")
    words, named = _take(words, "--recipe")
    as_json = "--json" in words
    force = "--force" in words
    words = [word for word in words if word not in ("--json", "--force")]
    if folder and (config or named):
        raise UsageError(
            f"{'--config' if config else '--recipe'} and --resume cannot be given together: a resumed run keeps its own settings"
        )
    chosen = {"recipe": named} if named else {}
    default = None
    if folder:
        file = user_path(folder) / "experiment.toml"
        if not file.is_file():
            raise UsageError(f"nothing to resume in {folder}: no experiment.toml there")
        default = replace(Experiment.from_toml(file), out=folder)
    elif config:
        default = Experiment.from_toml(config, **chosen)
    elif chosen:
        default = Experiment(data=tyro.MISSING, **recipe(chosen))
    if {"-h", "--help"} & set(words):
        print(
            "Besides the settings below: --config FILE.toml (settings from a file), --resume FOLDER (go on with a run), --json,\n"
            f"--recipe {'|'.join(RECIPES)} (what takes the place of settings that are not given), --force (train even where depths look\n"
            "out of proportion).\n"
        )
    experiment = parse(Experiment, "train", words, default)

    from ..experiment.train import train

    with ProgressBar() as progress:
        result = train(experiment, resume=folder is not None, progress=progress, notify=notify, force=force)
    if result.skipped:
        notify(f"note: {result.skipped} images had no valid depth and taught nothing")
    if as_json:
        print_json({
            "tokens": str(result.tokens), "epoch_losses": result.epoch_losses, "images_without_depth": result.skipped,
            "interrupted": result.interrupted, "trained_parameters": sum(p.numel() for p in result.model.trainable().values()),
        })  # fmt: skip
    elif result.interrupted:
        print(f"stopped after step {result.steps} and saved; go on with: {command('train', '--resume', experiment.out)}")
    else:
        losses = ", ".join(f"{loss:.3f}" for loss in result.epoch_losses[-5:])
        print(f"tokens: {result.tokens}  (mean loss of the last epochs: {losses})")
        print(f"next:   {evaluation(result.tokens, experiment)}")
    if result.stopped_by is not None:
        sys.exit(128 + result.stopped_by)


def evaluation(tokens: Path, experiment: Experiment) -> str:
    """The command that scores the tokens of a run on the test split of its data; of a store, that of the data it was made from."""
    if not experiment.data.startswith("store:"):
        return command("evaluate", tokens, "--data", experiment.data)
    from ..features.store import FeatureStore

    store = FeatureStore(experiment.data.removeprefix("store:"))
    words = ["--data", store.data]
    if store.data.startswith("folder:"):  # whose own description may be silent
        lo, hi = store.depth_range
        scale = store.meta["data"]["depth_scale"]
        words += [*(["--depth-scale", f"{scale:g}"] if scale else []), "--depth-range", f"{lo:g}", f"{hi:g}"]
    return command("evaluate", tokens, *words)


def _take(words: list[str], flag: str) -> tuple[list[str], str | None]:
    """Remove `flag VALUE` or `flag=VALUE` from the words; return the rest and the value."""
    for i, word in enumerate(words):
        if word == flag:
            if i + 1 == len(words):
                raise UsageError(f"{flag} needs a value")
            return words[:i] + words[i + 2 :], words[i + 1]
        if word.startswith(f"{flag}="):
            return words[:i] + words[i + 1 :], word.partition("=")[2]
    return words, None
