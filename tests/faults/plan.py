"""What is tried, how often, and the table of it."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from faults import crowd, damage, kills, scarce
from faults.readers import Reader, make_readers
from faults.world import VERBS, Verb, make_world

SLOW = {"study": 4, "export": 4, "reproduce": 2, "demo": 2, "predict": 1}
"""Verbs that take long: they are killed a n-th as often; where that is less than once they meet no full disk either, and tests of their
own stop them. None is crowded but the last."""
SLOW_FILES = {"CLIP weights": 5, "checkpoint": 5, "log.jsonl": 5, "scenes": 10, "ONNX file": 5, "open_clip folder": 3}
"""Files that take long to read: they are read a n-th as often."""


@dataclass(frozen=True)
class Counts:
    """How often each verb is disturbed and each reader is given a damaged file."""

    kills: int
    rooms: tuple[int, ...]
    writers: tuple[int, ...]
    seconds: float
    flips: int
    mutated: int
    generated: int


MANY = Counts(
    kills=100, rooms=(0, 4096, 20_000, 60_000, 200_000, 1_000_000), writers=(2, 8), seconds=30, flips=200, mutated=8500, generated=1500
)  # fmt: skip
FEW = Counts(kills=1, rooms=(20_000,), writers=(2,), seconds=2, flips=24, mutated=40, generated=20)

Trial = tuple[str, str, Callable[[], tuple[int, list[str]]]]
"""What kind of fault, on what, and what tries it: it gives the number of tries and each outcome that is not allowed."""


class Faults:
    """The small world, and everything that is tried in it.

    Args:
        folder: an empty one, for all that is written.
    """

    def __init__(self, folder: Path) -> None:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)  # a process that is forked has one
        self.folder = folder.resolve()
        self.folder.chmod(0o755)
        os.environ["DEPTHTOKENS_CACHE"] = str(self.folder / "cache")
        self.world = self.folder / "world"
        self.world.mkdir()
        make_world(self.world)
        self._expected: dict[str, tuple[dict[str, str], int]] = {}
        self._readers: list[Reader] | None = None

    @property
    def readers(self) -> list[Reader]:
        """All readers; their whole files are made when they are asked for."""
        if self._readers is None:
            (self.folder / "readers").mkdir()
            self._readers = make_readers(self.folder / "readers")
        return self._readers

    def expected(self, verb: Verb) -> tuple[dict[str, str], int]:
        """What a verb gives undisturbed, and its number of changes of the file system."""
        if verb.name not in self._expected:
            self._expected[verb.name] = kills.undisturbed(self.world, self.folder / "w", verb)
        return self._expected[verb.name]

    def commands(self, counts: Counts) -> Iterator[Trial]:
        """Commands that are disturbed, one after the other."""
        for verb in VERBS:
            if times := counts.kills // SLOW.get(verb.name, 1):
                yield "killed", verb.name, lambda verb=verb, times=times: self.kill(verb, times)
                yield "disk full", verb.name, lambda verb=verb: self.fill(verb, counts.rooms)
            yield "no right to write", verb.name, lambda verb=verb: self.forbid(verb)
            if SLOW.get(verb.name, 1) == 1:
                for count in counts.writers:
                    yield f"{count} at once", verb.name, lambda verb=verb, count=count: self.crowd(verb, count)
        yield "threads predict", "tokens change", lambda: self.threads(counts.seconds)

    def files(self, counts: Counts) -> Iterator[Trial]:
        """Damaged files of every kind, one after the other."""
        for kind, share in (("bit flipped", counts.flips), ("mutated", counts.mutated), ("values exchanged", counts.generated)):
            for reader in self.readers:
                if reader.sealed if kind == "bit flipped" else reader.json or kind == "mutated":
                    count = share if kind == "bit flipped" else -(-share // SLOW_FILES.get(reader.name, 1))
                    for first in range(0, count, damage.CHUNK):
                        last = min(count, first + damage.CHUNK)
                        yield kind, reader.name, lambda r=reader, k=kind, f=first, n=last: self.damage(r, k, f, n)

    @staticmethod
    def _one(wrong: str | None) -> tuple[int, list[str]]:
        return 1, [wrong] if wrong else []

    def kill(self, verb: Verb, count: int) -> tuple[int, list[str]]:
        """Kill a verb so often, and go on each time."""
        expected, changes = self.expected(verb)
        faults = []
        for number, wait in kills.moments(changes, count):
            wrong = kills.killed(self.world, self.folder / "w", verb, expected, number, wait)
            faults += [f"change {number} + {wait:g} s: {wrong}"] if wrong else []
        return count, faults

    def fill(self, verb: Verb, rooms: tuple[int, ...]) -> tuple[int, list[str]]:
        """Run a verb on disks with so many bytes left; nothing is tried where no small disk can be had."""
        expected, _ = self.expected(verb)
        try:
            found = [scarce.full(self.world, self.folder / "disk", verb, expected, room) for room in rooms]
        except PermissionError:
            return 0, []
        return len(rooms), [f"{room} bytes left: {wrong}" for room, wrong in zip(rooms, found, strict=True) if wrong]

    def forbid(self, verb: Verb) -> tuple[int, list[str]]:
        """Run a verb where it may not write, once its modules are loaded, which others than root may not read everywhere."""
        self.expected(verb)
        return self._one(scarce.forbidden(self.world, self.folder / "w", verb))

    def crowd(self, verb: Verb, count: int) -> tuple[int, list[str]]:
        """Run a verb so often at once."""
        return self._one(crowd.together(self.world, self.folder / "w", verb, self.expected(verb)[0], count))

    def threads(self, seconds: float) -> tuple[int, list[str]]:
        """Predict while tokens change."""
        made, wrong = crowd.changing(self.world, seconds, threads=4)
        return made, [f"{wrong} maps of tokens that never were"] if wrong else []

    def damage(self, reader: Reader, kind: str, first: int, last: int) -> tuple[int, list[str]]:
        """Read damaged files number `first` to `last`."""
        ways = {"bit flipped": damage.flips, "mutated": damage.mutated, "values exchanged": damage.generated}
        return damage.watched(reader, self.folder, lambda: ways[kind](reader, last - first, first))


def table(lines: list[dict]) -> str:
    """Markdown: tries and outcomes that are not allowed, per kind of fault and what it befell."""
    tries: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for line in lines:
        tries[line["kind"], line["what"]] += line["tries"]
        wrong[line["kind"], line["what"]] += len(line["faults"])
    rows = [f"| {kind} | {what} | {count:,} | {wrong[kind, what]:,} |" for (kind, what), count in tries.items()]
    kinds = dict.fromkeys(kind for kind, _ in tries)
    rows += [
        f"| **{kind}** | all | **{sum(n for (k, _), n in tries.items() if k == kind):,}** "
        f"| **{sum(n for (k, _), n in wrong.items() if k == kind):,}** |"
        for kind in kinds
    ]
    return "\n".join(["| fault | befalls | tries | not allowed |", "|---|---|--:|--:|", *rows])


def read_log(path: Path) -> list[dict]:
    """The trials that are done already; a line that was cut short counts as not done."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
