"""Reading a data set in worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from torch.utils.data import DataLoader, Dataset

from ..errors import DepthTokensError, UsageError

T = TypeVar("T", covariant=True)


class Source(Protocol[T]):
    """Anything with items by index."""

    def __getitem__(self, index: int, /) -> T:
        """One item."""
        ...


def batches(source: Source[T], indices: Sequence[int], batch_size: int, workers: int) -> Iterator[list[T]]:
    """Read items in lists, in worker processes.

    An error of this package reaches the caller as it was raised, not wrapped in a worker's traceback. Workers leave Ctrl-C to the caller.

    Args:
        source: what the items are read from.
        indices: which items, in this order.
        batch_size: how many items a list has, but the last one.
        workers: how many processes read; 0 for this one.

    Raises:
        UsageError: where the batch size is below 1 or the number of workers negative.
    """
    if batch_size < 1 or workers < 0:
        raise UsageError(f"batch size {batch_size} and {workers} workers: needs at least 1 and 0")
    for items in DataLoader(_Guarded(source, indices), batch_size, num_workers=workers, collate_fn=list, worker_init_fn=_ignore_interrupt):
        for item in items:
            if isinstance(item, DepthTokensError):
                raise item
        yield items


class _Guarded(Dataset[T | DepthTokensError]):
    """Hands an error over as an item."""

    def __init__(self, source: Source[T], indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> T | DepthTokensError:
        try:
            return self.source[self.indices[i]]
        except DepthTokensError as error:
            return error


def _ignore_interrupt(_worker: int) -> None:
    """Leave Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
