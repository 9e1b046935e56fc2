"""What files and flags say, checked before anything is made of it: dataclasses from plain values, and plain values within bounds."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import DepthTokensError, UsageError, cut, printable, unknown

T = TypeVar("T")
DEEPEST = 16
"""Tables and lists within each other that a file of this package holds at most."""
LARGEST = 2**64
"""Bound of whole numbers, either way."""
LONGEST = 4096
"""Characters of the longest text that is kept for people to read."""


def read_dataclass(kind: type[T], values: Mapping[str, Any], source: str) -> T:
    """A dataclass from plain values, as TOML or JSON gives them, each checked against its annotation.

    Args:
        kind: the dataclass.
        values: field name -> value; lists stand for tuples, and whole numbers for float.
        source: what errors call where the values come from.

    Raises:
        UsageError: for a name that is no field, or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise unknown(f"setting in {source}", name, known)
        if not _fits(value, hints[name]):
            raise UsageError(f"{source}: {name} = {cut(repr(value), 200)} should be {_in_words(hints[name])}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except DepthTokensError:
        raise
    except TypeError as error:
        raise UsageError(f"{source}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type that an annotation asks for; true and false are no numbers, and nor is NaN."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if inner[-1] is Ellipsis:
            return isinstance(value, list | tuple) and all(_fits(item, inner[0]) for item in value)
        same = isinstance(value, list | tuple) and len(value) == len(inner)
        return same and all(_fits(item, one) for item, one in zip(value, inner, strict=True))
    if hint is float:
        return type(value) in (int, float) and value == value
    return type(value) is (hint or type(None))


def _in_words(hint: Any) -> str:
    """An annotation in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_in_words(option) for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        return "a list" if inner[-1] is Ellipsis else f"{'two' if len(inner) == 2 else len(inner)} numbers"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(hint, str(hint))


def check_plain(values: Any, source: str) -> None:
    """Raise UsageError unless values are plain ones as this package writes them, however they were nested.

    Args:
        values: as JSON gives them: tables, lists, texts, numbers, true, false, null.
        source: what the error calls them.

    Raises:
        UsageError: for tables and lists nested more than `DEEPEST` deep, numbers that are none or beyond any bound, and other types.
    """
    level, depth = [values], 0
    while level:
        depth += 1
        if depth > DEEPEST + 1:
            raise UsageError(f"{source}: nested too deeply")
        below: list[Any] = []
        for value in level:
            if isinstance(value, float):  # most of what a long header holds
                if not math.isfinite(value):
                    raise UsageError(f"{source}: {value} is no number")
            elif isinstance(value, Mapping):
                if not all(isinstance(key, str) for key in value):
                    raise UsageError(f"{source}: names are text")
                below += value.values()
            elif isinstance(value, list | tuple):
                below += value
            elif isinstance(value, int) and abs(value) > LARGEST:
                raise UsageError(f"{source}: a number beyond all bounds")
            elif not isinstance(value, str | int | None):
                raise UsageError(f"{source}: a {type(value).__name__} is no plain value")
        level = below


def legible(values: Any) -> Any:
    """Plain values with every text fit to be shown: nothing in it that a terminal obeys, and not endless."""
    if isinstance(values, str):
        return cut(printable(values), LONGEST)
    if isinstance(values, Mapping):
        return {legible(key): legible(value) for key, value in values.items()}
    return [legible(value) for value in values] if isinstance(values, list | tuple) else values
