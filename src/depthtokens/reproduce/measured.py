"""A finished row of a reproduction, in memory and as a file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, UsageError
from ..experiment.result import Result
from ..files import sealed, unsealed, write_text
from .rows import Row


@dataclass(frozen=True)
class Measured:
    """What was run, and what it gave."""

    row: Row
    result: Result

    def write(self, path: Path) -> None:
        """Write to a JSON file, whole or not at all."""
        write_text(path, json.dumps(sealed({"row": self.row.to_dict(), **self.result.to_dict()})))

    @staticmethod
    def read(path: Path, row: Row) -> Measured:
        """What `write` wrote of a row. Raises DataError for a file that is none."""
        try:
            values = unsealed(path.read_bytes(), must=False)
            if values.pop("row")["name"] != row.name:
                raise UsageError("it is another row's")
            return Measured(row, Result.from_dict(values))
        except UsageError as error:
            raise DataError(f"{path}: {error}: delete it, and the row is run again") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged: delete it, and the row is run again") from error


def slug(name: str) -> str:
    """A row's name as a file's."""
    return re.sub(r"[^\w.+-]+", "_", name)
