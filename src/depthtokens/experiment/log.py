"""What a training run leaves behind line by line: its log, and curves for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import write_text

LOG = "log.jsonl"
LONGEST = 4096
"""Bytes of the longest line."""


@dataclass(frozen=True)
class Record:
    """One line of log.jsonl: where a run stands.

    Attributes:
        epoch: counted from 1.
        step: counted from 1 to `steps`, over all epochs.
        steps: number of steps in the whole run.
        loss: of this step, NaN where its batch had no truth.
        lr: learning rate of this step.
        images_per_second: speed since the run began or was resumed.
        seconds_left: what remains at that speed.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float

    def in_words(self, epochs: int) -> str:
        """The record in a few words for a person, of a run of that many epochs."""
        left = f"{self.seconds_left / 60:.0f} min left" if self.seconds_left > 90 else f"{self.seconds_left:.0f} s left"
        return f"epoch {self.epoch}/{epochs}  loss {self.loss:.3f}  {self.images_per_second:.1f} images/s  {left}"

    def to_line(self) -> str:
        """The record as a line of JSON, with null for NaN."""
        return json.dumps({key: None if value != value else value for key, value in asdict(self).items()}) + "\n"


@dataclass(frozen=True)
class Validated:
    """A line of log.jsonl behind that of an epoch's last step: scores on the test split.

    Attributes:
        epoch: counted from 1.
        step: counted from 1, over all epochs.
        validation: metric name -> score.
    """

    epoch: int
    step: int
    validation: dict[str, float]

    def to_line(self) -> str:
        """The record as a line of JSON, with null for NaN."""
        scores = {name: None if score != score else score for name, score in self.validation.items()}
        return json.dumps({**asdict(self), "validation": scores}) + "\n"


def cut_log(path: Path, step: int) -> None:
    """Keep the log's lines up to the checkpoint's step; those behind it will be done again, and what is no line of a log goes."""
    if not path.is_file():
        return
    kept = []
    with path.open("rb") as log:
        while line := log.readline(LONGEST):
            if line.endswith(b"\n") and 0 < _step(line) <= step:
                kept.append(line.decode())
    write_text(path, "".join(kept))


def _step(line: bytes) -> int:
    """The step that a line of a log is of; 0 for any other line."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    found = values.get("step") if isinstance(values, dict) else None
    return found if type(found) is int else 0


@contextmanager
def board(out: Path, wanted: bool) -> Iterator[Any]:
    """A TensorBoard writer, or None where it is not wanted."""
    if not wanted:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("--tensorboard needs an extra: pip install 'depthtokens[tensorboard]'") from None
    with SummaryWriter(str(out)) as writer:
        yield writer
