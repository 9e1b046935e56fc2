"""One experiment as data: the same names as flags, in TOML and in Python. Loads no torch.

Settings that several verbs share stand in small dataclasses, of which experiments and verbs are composed.
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clip import PRECISIONS
from ..depth.objective import Objective
from ..depth.settings import ModelOptions, ModelSettings
from ..errors import UsageError, unknown
from ..schema import read_dataclass

if TYPE_CHECKING:
    from ..data.dataset import DepthDataset

CONSTANT, MEAN_MAP, RIDGE = "constant", "mean map", "ridge"
"""What stands beside every row: two controls that never look at the image, and one that reads the same patch features as tokens."""
RECIPES: dict[str, dict[str, Any]] = {
    "auty2023": {},
    "tuned": {"bins": "log", "scale": 40.0, "lr": 1e-2},
}
"""What takes the place of an experiment's defaults, by name: auty2023 is the released recipe, tuned what measurements prefer. A lower logit
scale leaves the softmax a gradient wherever a run begins, so that the released loss needs no term beside it."""


@dataclass(frozen=True, kw_only=True)
class ClipFlags:
    """Which CLIP."""

    clip: str = "RN50"
    """An open_clip model name, or a CLIP file or folder, hf:FOLDER or hf:USER/NAME of transformers, or bundled."""
    weights: str | None = "openai"
    """A weights tag of that model, a file, or random."""


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """What a data set does not say of itself."""

    list_file: str | None = None
    """The split's list file, where it is not found under ROOT."""
    depth_scale: float | None = None
    """Units per metre in the depth files of a folder (1000 = millimetres)."""
    depth_range: tuple[float, float] | None = None
    """Metres; the data set's own if not given."""
    nyu_depth: str | None = None
    """Ground truth of NYUv2's labelled .mat: raw (the sensor's, as published figures have it; the default) or filled (in-painted)."""


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """How a run uses the machine; no figure depends on it but within rounding."""

    workers: int = 2
    """Processes that read images."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: str = "float32"
    """Of the frozen image tower: float32, bfloat16 or float16; everything learned stays in float32."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise UsageError("workers must not be negative")
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class Experiment(RunFlags, ModelOptions, DataFlags, ClipFlags):
    """Everything that a training run depends on; the defaults are the released recipe, with CLIP frozen as the paper says.

    Example:
        >>> experiment = Experiment(data="nyu:ROOT", depth="learned:20", bins="log")
        >>> experiment.clip, experiment.epochs, experiment.lr
        ('RN50', 25, 0.000357)
        >>> 'bins = "log"' in experiment.to_toml()
        True
    """

    data: str
    """Training data: nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER (patch features that `features` made)."""
    crop: tuple[int, int] | None = None
    """Height and width of the random training crop; the data set's own if not given."""
    views: int = 0
    """Views of each image: 0 = new random ones in every epoch (rotated, cropped, mirrored, recoloured, as released), 1 = the plain image,
    K = K random ones again and again. Where they are fixed and CLIP is frozen, patch features are computed once and kept (see cache)."""
    objective: str = "silog"
    """What is minimised: silog (as released), silog+ce (cross-entropy of the bin that a patch's depth lies in beside it) or silog+ordinal
    (nearby bins count as less wrong), with a weight if wanted: silog+ce:0.5."""
    epochs: int = 25
    batch_size: int = 16
    lr: float = 3.57e-4
    """Peak learning rate of AdamW under OneCycle."""
    weight_decay: float = 0.1
    clip_norm: float = 0.1
    """Largest gradient norm."""
    cache: bool = True
    """Keep patch features of fixed views in the cache folder and use what is there (results agree within half-precision rounding)."""
    protocol: str = "auty2023"
    """The protocol that `evaluate` uses for these tokens unless told otherwise."""
    validate: int = 0
    """Score the data's test split after every so many epochs and after the last, by the protocol, into the log; 0 = never. Scores are told
    only: the tokens of the last step stay the result, so that none are picked on test images."""
    save_minutes: float = 10.0
    """Save the run at least so often, besides after every epoch."""
    tensorboard: bool = False
    """Also write TensorBoard curves (pip install 'depthtokens[tensorboard]')."""
    out: str = "runs/tokens"
    """Folder for tokens, checkpoint, log and this configuration."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("lr", "clip_norm", "save_minutes"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
        if math.isinf(self.lr):
            raise UsageError("lr must be a finite number")
        for name in ("weight_decay", "views", "validate"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be between 0 and 2**32 - 1, not {self.seed}")
        Objective.read(self.objective)
        if self.crop and self.views == 1:
            raise UsageError("crop is the size of random training crops: it needs random views, not --views 1")
        if not self.weights:
            object.__setattr__(self, "weights", "random")

    def written(self) -> dict[str, Any]:
        """All fields as files keep them; an objective, too, only where it is not the released one."""
        return {name: value for name, value in super().written().items() if (name, value) != ("objective", "silog")}

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON, which has no infinities: those are written out, "inf"."""
        return {name: _toml(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in self.written().items()}

    def to_toml(self) -> str:
        """The experiment as TOML: `name = value` lines, fields that are None left out."""
        lines = []
        for name, value in asdict(self).items():
            if value is not None:
                lines.append(f"{name} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, path: str | Path, **settings: Any) -> Experiment:
        """Read a TOML file.

        Args:
            path: the file; `recipe = "tuned"` in it takes what it does not say from that recipe.
            settings: taken instead of the file's.

        Raises:
            UsageError: for a missing file, bad syntax, an unknown key, or a value of the wrong type or out of bounds.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"no configuration at {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise UsageError(f"{path} is not valid TOML: {error}") from error
        return cls.from_dict({**values, **settings}, str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "configuration") -> Experiment:
        """An experiment from plain values, as TOML or JSON gives them.

        Args:
            values: setting -> value; `recipe`, one of `RECIPES`, gives those that are left out.
            source: what errors call the place that the values come from.

        Raises:
            UsageError: for an unknown key or recipe, or a value of the wrong type or out of bounds.
        """
        if "data" not in values:
            raise UsageError(f"{source} does not say `data`")
        return read_dataclass(cls, recipe(values), source)

    @property
    def fixed_views(self) -> bool:
        """Whether every epoch shows the same views to the same trunk, so that patch features can be kept."""
        return self.views >= 1 and self.batchnorm == "frozen"

    def open_dataset(self) -> DepthDataset:
        """The training split that this experiment names, opened to show its views. Raises as `data.open_dataset`."""
        from ..data import open_dataset, states_units

        return open_dataset(
            self.data,
            "train",
            list_file=self.list_file,
            augment=self.views != 1,
            crop=self.crop,
            seed=self.seed,
            depth_scale=self.depth_scale,
            depth_range=self.depth_range if states_units(self.data) else None,
            nyu_depth=self.nyu_depth,
        )

    def model_settings(self, depth_range: tuple[float, float], predict_side: int | None = None) -> ModelSettings:
        """Settings of the model that this experiment trains.

        Args:
            depth_range: (lo, hi) metres, of the data; the experiment's own goes first.
            predict_side: shorter side of the training images, pixels.

        Raises:
            UsageError: for what is unknown, or does not fit together.
        """
        return self.on(self.depth_range or depth_range, predict_side)


def recipe(values: dict[str, Any]) -> dict[str, Any]:
    """Settings with `recipe` among them spelled out: what the recipe says, where they do not. Raises UsageError for an unknown recipe."""
    name = str(values.get("recipe", "auty2023"))
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return {**RECIPES[name], **{key: value for key, value in values.items() if key != "recipe"}}


def _toml(value: Any) -> str:
    """A plain value as TOML writes it: JSON, but for infinities and the character DEL."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
