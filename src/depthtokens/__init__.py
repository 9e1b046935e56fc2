"""depthtokens: teach a frozen CLIP new words for depth.

The public names are imported on first use, so that `import depthtokens` and `depthtokens --help` load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__
from .errors import DataError, DepthTokensError, TrainingError, UsageError, WeightsError

if TYPE_CHECKING:
    from .clip.image import dense_features as dense_features
    from .clip.load import FrozenCLIP as FrozenCLIP
    from .clip.load import load_clip as load_clip
    from .data.folder import Folder as Folder
    from .data.kitti import KITTI as KITTI
    from .data.nyu import NYUv2 as NYUv2
    from .depth.depthmap import DepthMap as DepthMap
    from .depth.loss import bin_cross_entropy as bin_cross_entropy
    from .depth.loss import silog as silog
    from .depth.model import DepthTokens as DepthTokens
    from .experiment.config import Experiment as Experiment
    from .experiment.evaluate import evaluate as evaluate
    from .experiment.learn import make_optimizer as make_optimizer
    from .experiment.train import train as train
    from .prompt.encoder import PromptEncoder as PromptEncoder
    from .scenes.dataset import Scenes as Scenes

_HOME = {
    "load_clip": "clip.load",
    "FrozenCLIP": "clip.load",
    "dense_features": "clip.image",
    "PromptEncoder": "prompt.encoder",
    "DepthTokens": "depth.model",
    "DepthMap": "depth.depthmap",
    "silog": "depth.loss",
    "bin_cross_entropy": "depth.loss",
    "NYUv2": "data.nyu",
    "KITTI": "data.kitti",
    "Folder": "data.folder",
    "Scenes": "scenes.dataset",
    "Experiment": "experiment.config",
    "make_optimizer": "experiment.learn",
    "train": "experiment.train",
    "evaluate": "experiment.evaluate",
}

__all__ = ["DataError", "DepthTokensError", "TrainingError", "UsageError", "WeightsError", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'depthtokens' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
