"""Flags that several verbs share, to be composed: what tokens and data are read, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import UsageError
from ..experiment.config import DataFlags, RunFlags
from ..spread import Cluster
from .console import notify

if TYPE_CHECKING:
    from ..depth.model import DepthTokens
    from ..depth.protocol import Protocol
    from ..experiment.named import NamedData
    from ..experiment.source import Reading
    from ..progress import Progress


@dataclass(frozen=True, kw_only=True)
class JsonFlag:
    """What is printed."""

    json: bool = False
    """Print JSON, for machines."""


@dataclass(frozen=True, kw_only=True)
class SpreadFlags:
    """Over which machines work is spread."""

    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Spread over a Ray cluster: HOST:PORT of its head, auto (the one that runs here, else a new one) or local (a new one)."""
    per_task_cpus: float = 1.0
    """Cores that each of its workers takes."""
    per_task_gpus: float | None = None
    """GPUs that each takes; by default one where a machine has any."""

    @property
    def cluster(self) -> Cluster | None:
        """What --ray names; None without it. Raises UsageError for workers that take nothing, or that there are none of."""
        if self.ray is None:
            if (self.per_task_cpus, self.per_task_gpus) != (1.0, None):
                raise UsageError("--per-task-cpus and --per-task-gpus are for the workers of a cluster: give --ray")
            return None
        return Cluster(self.ray, self.per_task_cpus, self.per_task_gpus)


@dataclass(frozen=True, kw_only=True)
class TokenFlags:
    """Which CLIP tokens are used with."""

    clip: str | None = None
    """The CLIP that the tokens were learned on, where it is not found by itself."""
    weights: str | None = None
    """Weights of that CLIP, where they are not its openai ones."""
    force: bool = False
    """Use the tokens with another CLIP than theirs."""

    def load(self, tokens: str | Path) -> DepthTokens:
        """The model of a token file, on the CLIP it states, or another: by --clip, or by --weights for an open_clip model that it names."""
        from ..clip.load import load_clip
        from ..depth.checkpoint import read_tokens, token_file
        from ..depth.model import DepthTokens

        path = token_file(tokens)  # once: a branch of the hub may move on
        if self.clip is None and self.weights is None:
            return DepthTokens.load(path, force=self.force)
        named = self.clip or model_name(read_tokens(path)[1].clip.name)
        return DepthTokens.load(path, load_clip(named, self.weights or "openai"), self.force)


def model_name(stated: str) -> str:
    """The open_clip model that a token file states, which --weights may be for. Raises UsageError for anything else."""
    import open_clip

    if stated not in open_clip.list_models():
        raise UsageError(f"these tokens state no open_clip model, but '{stated}': give --clip beside --weights")
    return stated


@dataclass(frozen=True, kw_only=True)
class ScoringFlags(RunFlags, DataFlags, TokenFlags):
    """How tokens are scored on data."""

    train_list: str | None = None
    """The training split's list file."""
    cache: bool = True
    """Keep the images' patch features in the cache folder, for the next time."""
    protocol: str | None = None
    """auty2023, pooled or depthclip; the tokens' own if not given."""
    batch_size: int = 4

    def model(self, tokens: str | Path) -> DepthTokens:
        """The model of a token file, on its device."""
        from ..clip.device import find_device

        device = find_device(self.device)
        return self.load(tokens).to(device)

    def protocol_for(self, model: DepthTokens | None) -> Protocol:
        """The protocol asked for, else the tokens' own."""
        from ..depth.protocol import find_protocol

        return find_protocol(self.protocol or (model.provenance.protocol if model else None) or "auty2023")

    def named(self, data: str, model: DepthTokens | None) -> NamedData:
        """The data of that name, for this model, or for none."""
        from ..experiment.named import NamedData

        trained = (model.provenance.training if model else None) or {}
        return NamedData(data, self.depth_scale, self.depth_range, self.nyu_depth, trained)

    def reading(self, progress: Progress) -> Reading:
        """How its features are had."""
        from ..experiment.source import Reading

        return Reading(
            cache=self.cache, batch_size=self.batch_size, workers=self.workers, precision=self.precision, list_file=self.list_file,
            progress=progress, notify=notify,
        )  # fmt: skip
