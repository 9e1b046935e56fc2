"""What verbs that score a token file are told about it and about its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .console import load_model, note

if TYPE_CHECKING:
    from ..depth.model import DepthTokens
    from ..experiment.scored import ScoredData


@dataclass(frozen=True)
class Scoring:
    """How tokens and data are read."""

    list_file: str | None = None
    """The split's list file, where it is not found under ROOT."""
    train_list: str | None = None
    """The training split's list file."""
    cache: bool = True
    """Keep the images' patch features in the cache folder, for the next time."""
    protocol: str | None = None
    """auty2023, pooled or depthclip; the tokens' own if not given."""
    clip: str | None = None
    """The CLIP that the tokens were learned on, where it is not found by itself."""
    weights: str | None = None
    """Weights of that CLIP, where they are not its openai ones."""
    force: bool = False
    """Use the tokens with another CLIP than theirs."""
    depth_scale: float | None = None
    """Units per metre in the depth files of a folder (1000 = millimetres)."""
    depth_range: tuple[float, float] | None = None
    """Metres; for a folder."""
    batch_size: int = 4
    workers: int = 2
    device: str = "auto"
    precision: str = "float32"
    """Of the image tower: float32, bfloat16 or float16."""

    def model(self, tokens: str | Path) -> DepthTokens:
        """The model of a token file, on its device."""
        from ..clip.device import find_device

        device = find_device(self.device)
        return load_model(Path(tokens), self.clip, self.weights, self.force).to(device)

    def on(self, model: DepthTokens, data: str) -> ScoredData:
        """The data named, for this model."""
        from ..depth.protocol import find_protocol
        from ..experiment.scored import ScoredData

        return ScoredData(
            model, data, find_protocol(self.protocol or model.provenance.get("protocol", "auty2023")), self.depth_scale,
            self.depth_range, self.cache, note, self.batch_size, self.workers, self.precision,
        )  # fmt: skip
