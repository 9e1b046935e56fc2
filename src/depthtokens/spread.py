"""Independent pieces of work on the nodes of a Ray cluster, whose results come as they are done. Only this module knows Ray.

A recipe goes to every worker, which makes of it what does one piece after the other: it loads what all pieces need, once. What a worker
sees must be what the process that spreads the work sees: the same code, the same shared folder, and whatever else the recipe compares.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from ._version import __version__
from .errors import DataError, DepthTokensError, UsageError, first_line
from .partial import temporary

P = TypeVar("P")
R = TypeVar("R")
Recipe = Callable[[], Callable[[P], R]]
"""Makes, on any node, what does a piece; to be pickled. Raises DepthTokensError where the node has not what it needs, see `check_same`."""
Run = Callable[[Sequence[P]], Iterator[tuple[P, R]]]
"""Does pieces, the first ones first, and gives each with its result, in whatever order they are done."""

ATTEMPTS = 3
"""How often a piece is begun whose workers die, and how many workers in a row may die before they have begun."""
_LOOK = 2.0
"""Seconds after which nodes are counted again."""


@dataclass(frozen=True)
class Cluster:
    """Where pieces of work are spread over.

    Attributes:
        address: HOST:PORT of a Ray cluster's head; "auto" for the one that runs on this machine, or else one for this run alone; "local"
            for one for this run alone.
        cpus: cores that a worker takes.
        gpus: GPUs that a worker takes; None for one where a node has any, else none.
    """

    address: str
    cpus: float = 1.0
    gpus: float | None = None

    def __post_init__(self) -> None:
        if not self.cpus > 0 or not (self.gpus is None or self.gpus >= 0):
            raise UsageError("a worker needs more than 0 cores, and no less than 0 GPUs")


@contextmanager
def on_cluster(cluster: Cluster, recipe: Recipe[P, R], shared: Path) -> Iterator[Run[P, R]]:
    """Does pieces on a cluster's nodes, as long as this context lasts; at its end no worker is left, nor a cluster that it started.

    The pieces of a worker or node that dies are done again by others.

    Args:
        cluster: where.
        recipe: of the workers.
        shared: an existing folder that results go to, which every node must see.

    Yields:
        What does pieces. It raises whatever DepthTokensError a piece raises; one also for a node that sees other files or has other code,
        which it names, and for pieces whose workers die again and again.

    Raises:
        UsageError: where Ray is not installed, or no node has the cores and GPUs that a worker takes.
        DepthTokensError: where there is no such cluster.
    """
    started = _join(cluster.address)
    try:
        with temporary(shared.absolute() / "nodes") as (seen, _):
            job = _Job(_code(), str(Path.cwd()), str(seen), pickle.dumps(recipe))
            crew: _Crew[P, R] = _Crew(cluster, job)
            try:
                yield crew.run
            finally:
                crew.dismiss()
    finally:
        if started:
            import ray

            ray.shutdown()


def check_same(expected: Mapping[str, object], found: Mapping[str, object]) -> None:
    """Raise DataError, for a recipe, which names what a node sees otherwise than the process that spreads the work.

    Args:
        expected: name -> what that process sees.
        found: the same of this node.
    """
    if other := [name for name, value in expected.items() if found.get(name) != value]:
        raise DataError(f"it sees other {' and '.join(other)} than this machine: all nodes need the same files")


@dataclass(frozen=True)
class _Job:
    """What a worker is told first.

    Attributes:
        code: `_code` of the process that spreads the work.
        folder: where that process runs: relative paths mean the same in all.
        seen: a file in the shared folder.
        recipe: pickled: other code may not be able to read it.
    """

    code: str
    folder: str
    seen: str
    recipe: bytes


@cache
def _code() -> str:
    """This package's version, and what tells its code from others of that version."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return f"depthtokens {__version__} ({digest.hexdigest()[:8]})"


class _Worker:
    """What runs on a node, in a process of its own. Errors of this package go home as values: Ray would wrap them in a traceback."""

    def begin(self, job: _Job) -> DepthTokensError | None:
        """Load what all pieces need."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that spreads the work ends this one
        from ray.util import get_node_ip_address

        node = f"node {get_node_ip_address()} ({platform.node()})"
        try:
            if _code() != job.code:
                raise DataError(f"it has {_code()}, this machine {job.code}: install the same")
            with suppress(OSError):
                os.chdir(job.folder)
            if not Path(job.seen).is_file():
                raise DataError(f"it does not see {Path(job.seen).parent} of this machine: give a folder that all nodes share")
            self.work = pickle.loads(job.recipe)()
        except DepthTokensError as error:
            return type(error)(f"{node} cannot take part: {error}")
        return None

    def do(self, piece: Any) -> tuple[DepthTokensError | None, Any]:
        """Do a piece."""
        try:
            return None, self.work(piece)
        except DepthTokensError as error:
            return type(error)(str(error)), None


class _Crew(Generic[P, R]):
    """Workers on a cluster: as many as it has room for and there are pieces."""

    def __init__(self, cluster: Cluster, job: _Job) -> None:
        import ray

        self.job = job
        self.ray: Any = ray
        self.hired: set[Any] = set()
        self.ready: list[Any] = []
        self.beginning: dict[Any, Any] = {}  # call under way -> worker
        self.lost = 0  # workers in a row that died before they had begun
        self.look = 0.0  # when nodes are to be counted again
        self.space = 0  # workers that they have room for
        gpus = cluster.gpus if cluster.gpus is not None else float(any(node.get("GPU", 0) >= 1 for node in self.nodes()))
        self.kind = self.ray.remote(num_cpus=cluster.cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Worker)
        self.needs = {"CPU": cluster.cpus, **({"GPU": gpus} if gpus else {})}
        if not self.room():
            wanted = f"{cluster.cpus:g} cores" + (f" and {gpus:g} GPUs" if gpus else "")
            raise UsageError(f"no node of the cluster has {wanted}, which a worker takes: give other --per-task-cpus or --per-task-gpus")

    def nodes(self) -> list[dict[str, float]]:
        """What each node that is alive has: resource -> how much of it."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def room(self) -> int:
        """How many workers the nodes that are alive have room for, were nobody else there."""
        return sum(min(int(node.get(name, 0) / need) for name, need in self.needs.items()) for node in self.nodes())

    def hire(self, most: int) -> None:
        """Have as many workers as there is room for, but no more than `most`; counts nodes now and then."""
        if time.monotonic() < self.look:
            return
        self.look = time.monotonic() + _LOOK
        os.utime(self.job.seen)  # still in use
        self.space = self.room()
        for _ in range(min(most, self.space) - len(self.hired)):
            worker = self.kind.remote()
            self.hired.add(worker)
            self.beginning[worker.begin.remote(self.job)] = worker

    def run(self, pieces: Sequence[P]) -> Iterator[tuple[P, R]]:
        """See `Run`."""
        waiting, begun = deque(range(len(pieces))), Counter[int]()
        busy: dict[Any, tuple[Any, int]] = {}  # call under way -> worker and piece
        while waiting or busy:
            self.hire(len(waiting) + len(busy))
            while self.ready and waiting:
                worker, place = self.ready.pop(), waiting.popleft()
                begun[place] += 1
                busy[worker.do.remote(pieces[place])] = worker, place
            if not busy and not self.space:
                raise DepthTokensError("the cluster has no node left: what is done is kept, so run the same command again")
            calls = [*busy, *self.beginning]
            self.ray.wait(calls, timeout=_LOOK)
            done, _ = self.ray.wait(calls, num_returns=len(calls), timeout=0)  # all: short pieces would hold up workers that have begun
            for call in done:
                if call in self.beginning:
                    self._begun(call)
                    continue
                worker, place = busy.pop(call)
                try:
                    error, result = self._got(call)
                except _Died as death:
                    self.bury(worker)
                    if begun[place] == ATTEMPTS:
                        said = f"{ATTEMPTS} workers died of one piece of work ({death}), for want of memory perhaps"
                        raise DepthTokensError(f"{said}: what is done is kept; give workers more with --per-task-cpus") from death
                    waiting.appendleft(place)
                    continue
                if error is not None:
                    raise error
                self.ready.append(worker)
                yield pieces[place], result

    def _begun(self, call: Any) -> None:
        """Note that a worker has begun, or that it died. Raises what it has to say against beginning."""
        worker = self.beginning.pop(call)
        try:
            refusal = self._got(call)
        except _Died as death:
            self.bury(worker)
            self.lost += 1
            if self.lost == ATTEMPTS:
                raise DepthTokensError(
                    f"{ATTEMPTS} workers died as they began ({death}): is depthtokens installed on all nodes?"
                ) from death
            return
        if refusal is not None:
            raise refusal
        self.lost = 0
        self.ready.append(worker)

    def _got(self, call: Any) -> Any:
        """What a call gave. Raises _Died where its worker is gone, and what no piece should raise as it is."""
        try:
            return self.ray.get(call)
        except self.ray.exceptions.RayTaskError:  # a fault of this package, with its traceback
            raise
        except self.ray.exceptions.RayError as error:
            raise _Died(first_line(error)) from error

    def bury(self, worker: Any) -> None:
        """Let go of a worker that is dead, or out of reach, for another to be hired at once."""
        self.end(worker)
        self.hired.discard(worker)
        self.look = 0.0

    def end(self, worker: Any) -> None:
        """End a worker, where it is still there."""
        with suppress(Exception):
            self.ray.kill(worker)

    def dismiss(self) -> None:
        """End all workers."""
        for worker in self.hired:
            self.end(worker)


class _Died(Exception):
    """A worker, or its node, is gone."""


def _join(address: str) -> bool:
    """Connect to a cluster, or start one; returns whether this process did either, and so has to end it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # what is done here is nobody else's business
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs Ray: pip install 'depthtokens[ray]'") from error
    if ray.is_initialized():
        return False
    with suppress(ImportError):
        from ray._private import worker

        worker._worker_logs_enabled = False  # pages of a node's state, whenever one is lost
    handled = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if handled else None
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        try:
            ray.init(address, **options)
        except ConnectionError:
            if address != "auto":
                raise
            ray.init("local", **options)
    except (OSError, RuntimeError, ValueError) as error:  # nobody there, no room for its sockets' names, another version, no address
        raise DepthTokensError(f"cannot join a Ray cluster at {address}: {first_line(error)}") from error
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray puts its own in the place of ours
    return True
