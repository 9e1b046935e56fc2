"""What the benchmarks share: timing side by side, peak memory, the machine in words, Markdown tables."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from depthtokens import load_clip
from depthtokens.clip.load import FrozenCLIP

Row = dict[str, Any]
"""One line of a table: column heading -> value, None where there is none."""
Work = Callable[[], object]
PACKAGES = ("torch", "open_clip_torch", "onnxruntime")


def random_clip(device: str = "cpu") -> FrozenCLIP:
    """RN50's geometry with random weights: as fast or slow as the real one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_clip("RN50", None).to(device)


def interleaved(works: Mapping[str, Work], repeats: int, device: str = "cpu", budget: float = 45) -> dict[str, list[float]]:
    """Seconds of each work, round by round, so that a slow minute of the machine falls on all alike.

    Every other round goes the other way round, since what ran before a work makes it slower or faster. Each runs once
    before, which does not count, then `repeats` times, or as often as `budget` seconds allow, but at least twice.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    spent = dict.fromkeys(works, 0.0)
    for turn in range(repeats + 1):
        for name, work in list(works.items())[:: 1 if turn % 2 else -1]:
            if turn > 2 and spent[name] >= budget:
                continue
            _synchronise(device)
            start = time.perf_counter()
            work()
            _synchronise(device)
            seconds = time.perf_counter() - start
            spent[name] += seconds
            if turn:
                times[name].append(seconds)
    return times


def ratio(times: Mapping[str, Sequence[float]], of: str, to: str) -> float:
    """How many times longer one work takes than another: median over the rounds in which both ran, which are the first ones."""
    return statistics.median(a / b for a, b in zip(times[of], times[to], strict=False))


def milliseconds(times: Sequence[float]) -> float:
    """Median of seconds, in milliseconds."""
    return 1000 * statistics.median(times)


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_gib() -> float:
    """Largest resident memory that this process has had, in GiB; mapped files that it read count."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's figure would begin with that of the process which started this one
        return next(int(line.split()[1]) for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def alone(script: str, *arguments: object) -> Any:
    """The JSON that a script prints as its last line in a process of its own, so that memory is its own too."""
    done = subprocess.run([sys.executable, script, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def machine(device: str = "cpu") -> str:
    """Where figures come from, in a line: processor, threads, versions."""
    name = f"{_cores()} cores ({_processor()}), {torch.get_num_threads()} threads"
    if device.startswith("cuda"):
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    return ", ".join([name, f"Python {platform.python_version()}", *_versions(), "float32"])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package.removesuffix('_torch')} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table, numbers right-aligned with three digits that count; columns are those of all rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    right = {name: all(isinstance(row.get(name), int | float | None) for row in rows) for name in columns}
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---:" if right[name] else "---" for name in columns) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
