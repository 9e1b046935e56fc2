"""Packages that come with extras only."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import UsageError


def need(package: str, extra: str, what: str) -> Any:
    """A package of an extra.

    Args:
        package: as it is imported.
        extra: of this package, which has it.
        what: needs it, for the error.

    Raises:
        UsageError: where it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(f"{what} needs the package {package}: pip install 'depthtokens[{extra}]'") from error
