"""Reading a data set in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
import uuid
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from torch.utils.data import DataLoader, Dataset

from ..errors import DepthTokensError, UsageError

_GRACE = 10
"""Seconds after which a worker that was told to end ends by itself."""
_SPARE = 4
"""Open files that a worker leaves free when it sends a batch by shared memory, which takes one for each tensor."""
T = TypeVar("T", covariant=True)
U = TypeVar("U")
_KILLED = "a process that reads images ended too early, killed perhaps for want of memory: give fewer --workers (0 = none but this one)"


class Source(Protocol[T]):
    """Anything with items by index."""

    def __getitem__(self, index: int, /) -> T:
        """One item."""
        ...


def batches(source: Source[T], indices: Sequence[int], batch_size: int, workers: int, block: int | None = None) -> Iterator[list[T]]:
    """Read items in lists, in worker processes.

    An error of this package reaches the caller as it was raised, not wrapped in a worker's traceback. Workers leave Ctrl-C and SIGTERM to
    the caller, and end within seconds of it.
    Where workers cannot start, everything is read in this process; where shared memory is too small for a batch (64 MB in a container), it
    comes by a temporary file.

    Args:
        source: what the items are read from.
        indices: which items, in this order.
        batch_size: how many items a list has, but the last one.
        workers: how many processes read; 0 for this one.
        block: no list reaches over a multiple of so many items; None for lists that are as long as can be.

    Raises:
        UsageError: where the batch size is below 1 or the number of workers negative.
        DepthTokensError: where a worker ends before its work is done, as one that the system kills for want of memory.
    """
    if batch_size < 1 or workers < 0:
        raise UsageError(f"batch size {batch_size} and {workers} workers: needs at least 1 and 0")
    guarded = _Guarded(source, indices)
    lists = _lists(len(indices), batch_size, block or max(1, len(indices)))
    ready = _from_workers(guarded, lists, workers) if workers else _from_here(guarded, lists)
    with closing(ready):  # whatever happens, no worker stays
        for items in ready:
            for item in items:
                if isinstance(item, DepthTokensError):
                    raise item
            yield [item for item in items if not isinstance(item, DepthTokensError)]


def _lists(count: int, batch_size: int, block: int) -> list[list[int]]:
    """Which of `count` items come together."""
    return [
        list(range(first, min(first + batch_size, start + block, count)))
        for start in range(0, count, block)
        for first in range(start, min(start + block, count), batch_size)
    ]


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
        except MemoryError:
            return DepthTokensError("not enough memory to read images: fewer --workers, or a smaller --batch-size, need less")


def _from_here(guarded: _Guarded[U], lists: list[list[int]]) -> Generator[list[U | DepthTokensError], None, None]:
    """The batches, read by this process."""
    for places in lists:
        yield [guarded[i] for i in places]


def _from_workers(guarded: _Guarded[U], lists: list[list[int]], workers: int) -> Generator[list[U | DepthTokensError], None, None]:
    """The batches, read by workers."""
    with _spool() as spool:
        loader = DataLoader(guarded, batch_sampler=lists, num_workers=workers, collate_fn=_Send(spool), worker_init_fn=_leave_signals)
        try:
            parcels, crew = _started(loader)
        except (OSError, RuntimeError, AssertionError):  # no more processes, no memory for one, a daemon that may have none
            yield from _from_here(guarded, lists)
            return
        try:
            for places in lists:
                parcel = None
                try:
                    parcel = next(parcels)
                except RuntimeError as error:
                    if "DataLoader worker" not in str(error):
                        raise
                # Raised here, not as that error's consequence: it holds on to the loader and so to the other workers. A worker whose
                # batches have all come counts as well: the next one would be killed again.
                if parcel is None or any(worker.exitcode for worker in crew):
                    raise DepthTokensError(_KILLED)
                items = parcel.unpacked()
                if places is lists[-1]:
                    parcels = iter(())  # ends the workers now: the caller may keep the last batch, and this generator, for long
                yield [guarded[i] for i in places] if items is None else items
        finally:
            parcels = iter(())


@contextmanager
def _spool() -> Iterator[Path]:
    """Where a folder of temporary files may be made: mostly none is needed, and then none is left where this process is killed."""
    spool = Path(tempfile.gettempdir()) / f"depthtokens-{uuid.uuid4().hex}"
    try:
        yield spool
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def _started(loader: DataLoader) -> tuple[Iterator[_Parcel], list[BaseProcess]]:
    """The iterator of a loader, and its workers, which are running.

    torch has the death of a worker raise an error wherever this process happens to be, which may be anybody's code: its handler is taken
    off, and the error comes from the iterator, within five seconds of waiting for that worker.
    """
    others = set(multiprocessing.active_children())
    handled = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if handled else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about more workers than cores
        parcels: Iterator[_Parcel] = iter(loader)
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return parcels, [worker for worker in multiprocessing.active_children() if worker not in others]


class _Parcel(NamedTuple):
    """A batch on its way: pickled with its tensors in shared memory, or else in a file, or not at all."""

    shared: bytes | None
    file: Path | None = None

    def unpacked(self) -> list | None:
        """The items, None where they did not arrive."""
        try:
            if self.shared is not None:
                return list(ForkingPickler.loads(self.shared))
            if self.file is not None:
                items = list(pickle.loads(self.file.read_bytes()))
                self.file.unlink()
                return items
        except (OSError, RuntimeError, EOFError):  # too many open files; or the worker is dead, which the next batch tells
            pass
        return None


class _Send(Generic[T]):
    """Packs a batch in a worker."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool

    def __call__(self, items: list[T]) -> _Parcel:
        try:
            with _spare_files():
                return _Parcel(bytes(ForkingPickler.dumps(items)))
        except (OSError, RuntimeError):  # no room in shared memory, or too many open files
            pass
        path = self.spool / uuid.uuid4().hex
        try:
            self.spool.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(pickle.dumps(items))
        except OSError:
            path.unlink(missing_ok=True)
            return _Parcel(None)
        return _Parcel(None, path)


@contextmanager
def _spare_files() -> Iterator[None]:
    """So many open files less in here, which are free after it: Python's thread that hands out shared memory opens one to answer."""
    with ExitStack() as stack:
        for _ in range(_SPARE):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


def _leave_signals(_worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which may go to all processes of a job, to the process that started this one: it wants its last batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
