"""What stands for large things where commands of the pages are run: small CLIPs for OpenAI's, one epoch for many, few rows and scenes.

A page says which of them a block is run with: `<!-- stand-in: openai, epochs -->`. What users write, and what is done, stays the same.
"""

from __future__ import annotations

import sys
from pathlib import Path


def openai(clips):
    """Models with OpenAI's weights are small ones of their kind, from the files of a folder."""
    from depthtokens.clip import load

    real = load.load_clip

    def load_clip(name="RN50", weights="openai"):
        if name not in load.open_clip.list_models() or weights != "openai":
            return real(name, weights)
        return real(Path(clips, "vit.pt" if name.startswith("ViT") else "resnet.pt"))

    for module in [module for name, module in sys.modules.items() if name.startswith("depthtokens")]:
        if vars(module).get("load_clip") is real:
            module.load_clip = load_clip


def epochs(clips):
    """Runs take one epoch, reproductions one seed."""
    from depthtokens.experiment.config import Experiment
    from depthtokens.reproduce.settings import Reproduction

    _default(Experiment, epochs=1)
    _default(Reproduction, epochs=1, seeds="0")


def rows(clips):
    """Of the rows to be reproduced, the first four."""
    from depthtokens.reproduce import settings

    real = settings.rows_for
    settings.rows_for = lambda *arguments: real(*arguments)[:4]


def scenes(clips):
    """There are few rendered scenes."""
    from depthtokens.scenes import dataset

    dataset.SCENES.update(train=8, test=2)


def search(clips):
    """Words are searched on few patches, for a second."""
    from depthtokens.study.settings import StudySettings

    _default(StudySettings, search_seconds=1, patches=64, images=1, trained_vocabulary_only=True)


def small(clips):
    """The demonstration has few scenes and one epoch."""
    from depthtokens.demo.run import DemoSettings

    _default(DemoSettings, train=16, test=4, epochs=1)


STAND_INS = {"openai": openai, "epochs": epochs, "rows": rows, "scenes": scenes, "search": search, "small": small}


def stand_in(names, clips):
    """Put the stand-ins of these names into their places, in this process."""
    for name in names:
        STAND_INS[name](clips)


def _default(kind, **values):
    """Give fields of a dataclass other defaults."""
    init = kind.__init__
    for name, value in values.items():
        kind.__dataclass_fields__[name].default = value
        setattr(kind, name, value)
        if name in (init.__kwdefaults__ or {}):
            init.__kwdefaults__[name] = value
    if init.__defaults__:
        fields = [field for field in kind.__dataclass_fields__.values() if not field.kw_only]
        init.__defaults__ = tuple(field.default for field in fields[-len(init.__defaults__) :])
