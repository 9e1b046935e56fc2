"""What stands for large things where commands of the pages are run: a small CLIP for OpenAI's, one epoch for many, a small demonstration.

A page says which of them a block is run with: `<!-- stand-in: openai, epochs -->`. What users write, and what is done, stays the same.
"""

from __future__ import annotations

import sys


def openai(clip):
    """Every open_clip model with OpenAI's weights is the CLIP of a file."""
    from depthtokens.clip import load

    real = load.load_clip

    def load_clip(name="RN50", weights="openai"):
        named = name in load.open_clip.list_models() and weights == "openai"
        return real(clip) if named else real(name, weights)

    for module in [module for name, module in sys.modules.items() if name.startswith("depthtokens")]:
        if vars(module).get("load_clip") is real:
            module.load_clip = load_clip


def epochs(clip):
    """Runs take one epoch, reproductions one seed."""
    from depthtokens.experiment.config import Experiment
    from depthtokens.reproduce.settings import Reproduction

    _default(Experiment, epochs=1)
    _default(Reproduction, epochs=1, seeds="0")


def small(clip):
    """The demonstration has few scenes and one epoch."""
    from depthtokens.demo.run import DemoSettings

    _default(DemoSettings, train=16, test=4, epochs=1)


STAND_INS = {"openai": openai, "epochs": epochs, "small": small}


def stand_in(names, clip):
    """Put the stand-ins of these names into their places, in this process."""
    for name in names:
        STAND_INS[name](clip)


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
