"""One experiment as data: the same names as flags, in TOML and in Python. Loads no torch."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, unknown

if TYPE_CHECKING:
    from ..clip.load import FrozenCLIP
    from ..data.dataset import DepthDataset
    from ..depth.model import DepthTokens


@dataclass
class Experiment:
    """Everything that a training run depends on; the defaults are the released recipe, with CLIP frozen as the paper says."""

    data: str
    """Training data: nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER (patch features that `features` made)."""
    clip: str = "RN50"
    """An open_clip model name, or a CLIP file or folder."""
    weights: str | None = "openai"
    """A weights tag of that model, a file, or random."""
    template: str = "baseline"
    """A template's name (baseline, 1o1d, 1o2d, 4o4d, depthclip), or text with {depth} and {ctx} slots."""
    depth: str = "learned:7"
    """What fills {depth}: learned:N, random:N, path:K:N (N between K learned anchors), a scale (depth-7, size-7, colour-7, rand-txt-7,
    depthclip) or words: 'near|far'."""
    init: str = "random"
    """What learned depth tokens start from: random, a scale, or words."""
    bins: str = "linear"
    """Bin centres: linear, log, const80 (one bin per depth word), depthclip, or metres: '1|2|4'."""
    depth_range: tuple[float, float] | None = None
    """Metres; the data set's own if not given."""
    dense: str = "layer4"
    """Patch features: layer4, attnpool, value (ResNets); tokens, value (ViTs)."""
    scale: str = "auty2023"
    """Factor on similarities: auty2023 (1000 / sqrt(N)), depthclip (1000), a number, or learned."""
    normalisation: str = "imagenet"
    """Whose mean and standard deviation pixels are normalised with: imagenet (as released) or clip."""
    batchnorm: str = "frozen"
    """frozen (as the paper says) or adapt (as the released run did)."""
    list_file: str | None = None
    """The training split's list file, where it is not found under ROOT."""
    depth_scale: float | None = None
    """Units per metre in the depth files of a folder (1000 = millimetres)."""
    crop: tuple[int, int] | None = None
    """Height and width of the random training crop; the data set's own if not given."""
    views: int = 0
    """Views of each image: 0 = new random ones in every epoch (rotated, cropped, mirrored, recoloured, as released), 1 = the plain image,
    K = K random ones again and again. Where they are fixed and CLIP is frozen, patch features are computed once and kept (see cache)."""
    epochs: int = 25
    batch_size: int = 16
    lr: float = 3.57e-4
    """Peak learning rate of AdamW under OneCycle."""
    weight_decay: float = 0.1
    clip_norm: float = 0.1
    """Largest gradient norm."""
    seed: int = 42
    cache: bool = True
    """Keep patch features of fixed views in the cache folder and use what is there (results agree within half-precision rounding)."""
    protocol: str = "auty2023"
    """The protocol that `evaluate` uses for these tokens unless told otherwise."""
    workers: int = 2
    """Processes that read and augment images."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: str = "float32"
    """Precision of the frozen image tower: float32, bfloat16 or float16; tokens and loss stay in float32."""
    tensorboard: bool = False
    """Also write TensorBoard curves (pip install 'depthtokens[tensorboard]')."""
    out: str = "runs/tokens"
    """Folder for tokens, checkpoint, log and this configuration."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("workers", "weight_decay", "views"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be between 0 and 2**32 - 1, not {self.seed}")
        if self.crop and self.views == 1:
            raise UsageError("crop is the size of random training crops: it needs random views, not --views 1")
        self.weights = self.weights or "random"

    def to_toml(self) -> str:
        """The experiment as TOML: `name = value` lines, fields that are None left out."""
        lines = []
        for name, value in asdict(self).items():
            if value is not None:
                text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's strings are TOML's but for DEL
                lines.append(f"{name} = {text}")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, path: str | Path) -> Experiment:
        """Read a TOML file. Raises UsageError for a missing file, bad syntax, an unknown key or a value of the wrong type."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"no configuration at {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise UsageError(f"{path} is not valid TOML: {error}") from error
        return cls.from_dict(values, str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "configuration") -> Experiment:
        """From plain values, as TOML or JSON gives them. Raises UsageError as `from_toml`."""
        known = {field.name: field for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise unknown(f"setting in {source}", name, known)
            allowed = _types(str(known[name].type))
            if type(value) not in allowed:
                raise UsageError(f"{source}: {name} = {value!r} should be {' or '.join(t.__name__ for t in allowed)}")
            if isinstance(value, list) and (len(value) != 2 or not all(type(number) in (int, float) for number in value)):
                raise UsageError(f"{source}: {name} = {value!r} should be two numbers")
        if "data" not in values:
            raise UsageError(f"{source} does not say `data`")
        settings: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**settings)

    def make_dataset(self) -> DepthDataset:
        """The training split that this experiment names, with its views. Raises as `data.open_dataset`."""
        from ..data import open_dataset

        return open_dataset(
            self.data,
            "train",
            list_file=self.list_file,
            augment=self.views != 1,
            crop=self.crop,
            seed=self.seed,
            depth_scale=self.depth_scale,
            depth_range=self.depth_range if self.data.startswith("folder:") else None,
        )

    def make_model(self, clip: FrozenCLIP, depth_range: tuple[float, float], predict_side: int | None = None) -> DepthTokens:
        """The model this experiment describes, on an already loaded CLIP."""
        from ..depth.model import DepthTokens

        return DepthTokens(
            clip,
            template=self.template,
            depth=self.depth,
            bins=self.bins,
            depth_range=self.depth_range or depth_range,
            dense=self.dense,
            scale=self.scale,
            batchnorm=self.batchnorm,
            seed=self.seed,
            init=self.init,
            predict_side=predict_side,
            normalisation=self.normalisation,
        )


def _types(annotation: str) -> tuple[type, ...]:
    """Types that TOML may give for a field annotated so."""
    if annotation.startswith("tuple"):
        return (list,)
    plain = {"int": (int,), "float": (float, int), "bool": (bool,)}
    return plain.get(annotation.split(" | ")[0], (str,))
