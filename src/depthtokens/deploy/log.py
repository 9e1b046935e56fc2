"""The log in a folder of results: a line for each photo whose results are all there, with what they depend on. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DepthTokensError
from ..files import reason, sealed, unsealed

LOG = "predict.jsonl"


def add_to_log(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line. Raises DepthTokensError where it cannot be written."""
    try:
        with path.open("a+b") as log:
            if log.tell() and (log.seek(-1, 2), log.read())[1] != b"\n":  # the last line was cut by a kill
                log.write(b"\n")
            log.write(json.dumps(sealed(record)).encode() + b"\n")
    except OSError as error:
        raise DepthTokensError(f"cannot write {path}: {reason(error)}") from error


def read_log(path: Path) -> dict[str, dict[str, Any]]:
    """Name of a result -> what the log says of its photo. A line that is damaged says nothing: that photo is done again."""
    known: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return known
    for line in lines:
        try:
            record = unsealed(line)
            for name in record["files"]:
                known[name] = record
        except (ValueError, KeyError, TypeError):
            continue
    return {name: record for name, record in known.items() if "settings" in record}
