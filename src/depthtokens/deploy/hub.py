"""Sharing: a token file pushed to the hub with its model card and scores, and one pulled from there into a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..clip.hubname import HubName
from ..depth.card import code, shared_files
from ..depth.checkpoint import TOKENS, read_tokens
from ..depth.header import Header
from ..depth.hub import MESSAGE, Commit, fetch, publish
from ..depth.metrics import METRICS
from ..errors import UsageError, cut, printable
from ..experiment.config import RIDGE
from ..files import atomic, atomic_folder, check_writable, user_path
from ..places import last_part
from ..report.table import Cell, Table

LARGEST = 2**24
"""Bytes of the largest file of scores that is read."""


@dataclass(frozen=True)
class Pulled:
    """What was pulled.

    Attributes:
        file: where it lies now.
        name: of the repository, with the commit as its revision.
        header: of the token file.
    """

    file: Path
    name: HubName
    header: Header


def contents(tokens: str | Path, name: HubName, licence: str | None = None, scores: Path | None = None) -> dict[str, bytes]:
    """What `push` pushes, by file name: the token file, written anew so that it names no place of this machine, and the card.

    Args:
        tokens: a token file, as `token_file` takes it.
        name: of the repository.
        licence: of the tokens, as the hub calls it ("mit"); None where none is stated, which the card says.
        scores: a file of what `evaluate --json` prints, for the card; None for none.

    Raises:
        UsageError: for a licence that is no name of one, or scores that are none.
        WeightsError: for what is no token file.
    """
    return shared_files(*read_tokens(tokens), name, licence, "" if scores is None else scores_text(scores))


def push(
    tokens: str | Path,
    name: HubName,
    *,
    licence: str | None = None,
    scores: Path | None = None,
    private: bool = False,
    message: str = MESSAGE,
    token: str | None = None,
) -> Commit:
    """Put a token file and its model card into a repository of the hub; the CLIP is only named there.

    Args:
        tokens: as `contents` takes it.
        name: of the repository, which is made where it is not there; its revision is a branch.
        licence: likewise.
        scores: likewise.
        private: whether the repository must be one that only its owner sees.
        message: of the commit.
        token: of the user; None for that of the one who is logged in.

    Raises:
        UsageError: as `contents`, for a name that the hub cannot have, or a repository that is public and should be private.
        WeightsError: as `contents`.
        DepthTokensError: where the hub refuses, or cannot be reached.
    """
    return publish(name, contents(tokens, name, licence, scores), message, private, token)


def write_contents(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what `contents` gives into a new folder. Raises DepthTokensError where that cannot be."""
    folder = user_path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} exists: name a new folder")
    with atomic_folder(folder) as new:
        for name, content in files.items():
            with atomic(new / name) as file:
                file.write(content)


def pull(
    name: HubName, out: Path | None = None, overwrite: bool = False, token: str | None = None, local_files_only: bool = False
) -> Pulled:
    """Fetch a token file from the hub, and check it as any other.

    Args:
        name: of the repository.
        out: the file to write; None leaves it in the hub's cache.
        overwrite: whether `out` may be replaced.
        token: for a private or gated repository; None for that of the user who is logged in.
        local_files_only: whether only the cache may be looked at; HF_HUB_OFFLINE does the same.

    Raises:
        UsageError: where `out` is there already, or for a name that the hub cannot have.
        WeightsError: where there is no such repository, revision or file, it cannot be reached, or holds no token file.
        DepthTokensError: where `out` cannot be written.
    """
    if out is not None:
        out = user_path(out)
        if out.is_dir() or (out.exists() and not overwrite):
            raise UsageError(f"{out} exists: choose another --out" + ("" if out.is_dir() else ", or give --overwrite"))
        check_writable(out)
    cached = fetch(name, TOKENS, token, local_files_only)
    header = read_tokens(cached)[1]
    if out is not None:
        with atomic(out) as file:
            file.write(cached.read_bytes())
    # The cache has a folder for each commit, by its id.
    return Pulled(out or cached, HubName(name.repo, cached.parent.name), header)


def scores_text(path: Path) -> str:
    """What `evaluate --json` printed, as Markdown: the tokens beside the controls.

    Raises:
        UsageError: for a file of anything else.
    """
    path = user_path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        found = json.loads(path.read_bytes())
        rows = found["rows"]
        first = rows[0]
        names = [name for name, metric in METRICS.items() if metric.quoted and name in first["scores"]]
        cells: list[list[Cell]] = [[_text(row["name"]), *(_number(row["scores"][name]) for name in names)] for row in rows]
        lo, hi = map(_number, first["depth_range"])
        protocol, images = _text(first["protocol"]["name"]), _number(first["images"])
        data = " ".join(code(last_part(_text(found[key]))) for key in ("data", "split") if key in found)
    except OSError as error:
        raise UsageError(f"cannot read scores from {path}: {error.strerror}") from error
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(f"{path} holds no scores: --scores takes a file of what `depthtokens evaluate TOKENS --json` prints") from error
    if not names:
        raise UsageError(f"{path} holds none of the scores that cards show: {', '.join(METRICS)}")
    table = Table(["", *(METRICS[name].heading for name in names)], cells).markdown()
    on = f"On {data}, " if data else "On "
    controls = " and ".join(code(row[0]) for row in cells[1:] if row[0] != RIDGE)
    beside = f"Beside the tokens: {controls}, which never look at the image." if controls else "Without controls, so they say little."
    if RIDGE in (row[0] for row in cells):
        beside += f" {code(RIDGE)} is linear regression of log depth on the patch features that tokens read."
    said = f"{on}{images:,.0f} images, truth from {lo:g} to {hi:g} m, protocol {code(protocol)}. {beside}"
    return f"{said}\n\n{table}"


def _text(value: Any) -> str:
    """A text of a file, fit to be shown. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError("no text")
    return cut(printable(" ".join(value.split())), 200).replace("<", "&lt;")


def _number(value: Any) -> float:
    """A number of a file. Raises TypeError for anything else."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError("no number")
    return float(value)
