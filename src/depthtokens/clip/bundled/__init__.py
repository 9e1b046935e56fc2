"""The small CLIP that comes with the package: an open_clip folder, see MODEL_CARD.md; `load_clip("bundled")` loads it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from ...errors import DataError, WeightsError
from ...files import file_sha256

FOLDER = Path(__file__).parent
WEIGHTS, CHECKSUM, TRAINED = "open_clip_model.safetensors", "sha256.txt", "trained_tokens.json"


def checked_folder(folder: Path = FOLDER) -> Path:
    """The folder of the bundled CLIP, after its weights were compared with the SHA-256 that lies beside them.

    Args:
        folder: where to look.

    Raises:
        WeightsError: where the weights are missing, or have another SHA-256.
    """
    try:
        expected = (folder / CHECKSUM).read_text(encoding="utf-8").split()[0]
        found = file_sha256(folder / WEIGHTS)
    except (DataError, OSError, IndexError) as error:
        raise WeightsError(f"the CLIP that comes with the package is not complete in {folder}: install depthtokens again") from error
    if found != expected:
        raise WeightsError(f"{folder / WEIGHTS} is not the file that comes with the package (SHA-256): install depthtokens again")
    return folder


@cache
def trained_tokens() -> dict[int, str]:
    """The vocabulary entries that occurred in training, id -> token; all other rows of the token embedding are as they were drawn."""
    table = json.loads((FOLDER / TRAINED).read_text(encoding="utf-8"))
    return {int(index): token for index, token in table.items()}
