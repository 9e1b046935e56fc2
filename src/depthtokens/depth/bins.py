"""Where the depth bins lie: centres in metres from a formula and a count, or as given."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

from ..errors import UsageError, unknown

DEPTHCLIP_CENTRES = (1.00, 1.50, 2.00, 2.25, 2.50, 2.75, 3.00)
"""DepthCLIP's seven centres for NYUv2, metres."""


def bin_centres(spec: str | Iterable[float], count: int, depth_range: tuple[float, float]) -> tuple[float, ...]:
    """Centres of depth bins.

    Args:
        spec: "linear[:N]" (centres of N equal cells), "log[:N]" (of N cells equal in log depth), "const80[:N]" (log over 0.001-80 m
            whatever the range), "depthclip", or the centres themselves in metres (a list, an array, or "1|1.5|2"), which increase, as
            words go from near to far. N may be left out: it is `count`.
        count: number of bins, that of the depth words or tokens.
        depth_range: (lo, hi) metres.

    Returns:
        `count` centres, metres.

    Raises:
        UsageError: for an unknown layout, a number of centres other than `count`, or centres that lie outside the range, do not increase,
            or are no numbers.

    Example:
        >>> bin_centres("linear", 4, (0.5, 4.5))
        (1.0, 2.0, 3.0, 4.0)
    """
    try:
        lo, hi = (float(end) for end in depth_range)
    except (TypeError, ValueError):
        raise UsageError(f"a depth range is two numbers (lo, hi) in metres, not {depth_range!r}") from None
    if not (0 < lo < hi < math.inf):
        raise UsageError(f"depth range {lo}-{hi} m: needs 0 < lo < hi")
    if count < 1:
        raise UsageError(f"{count} bins: needs at least one")
    if isinstance(spec, str) and "|" not in spec and spec != "depthclip":
        name, _, written = spec.partition(":")
        formulas = {"linear": (_linear, lo, hi), "log": (_log, lo, hi), "const80": (_log, 0.001, 80.0)}
        if name not in formulas:
            raise unknown("bins", name, [*formulas, "depthclip"])
        if written and not written.isdecimal():
            raise UsageError(f"bins '{spec}': write a count after the colon, as in '{name}:7'")
        _same(int(written[:18] or count), count, spec)
        formula, start, stop = formulas[name]
        return tuple(formula(start, stop, (i + 0.5) / count) for i in range(count))
    if isinstance(spec, str) and "|" in spec:
        _same(spec.count("|") + 1, count, spec)  # before millions are read
    centres = DEPTHCLIP_CENTRES if isinstance(spec, str) and spec == "depthclip" else _numbers(spec)
    _same(len(centres), count, spec)
    if any(map(math.isnan, centres)):
        raise UsageError(f"bins {_text(spec)}: a centre is not a number")
    if not all(lo <= c <= hi for c in centres):
        raise UsageError(f"bin centres {min(centres):g}-{max(centres):g} m lie outside the depth range {lo:g}-{hi:g} m")
    for near, far in itertools.pairwise(centres):
        if near >= far:
            raise UsageError(f"bin centres must increase, in the order of the depth words from near to far: {far:g} m follows {near:g} m")
    return centres


def _linear(lo: float, hi: float, share: float) -> float:
    """The depth at a share of the way from lo to hi."""
    return lo + share * (hi - lo)


def _log(lo: float, hi: float, share: float) -> float:
    """The same with the way measured in log depth."""
    return math.exp(math.log(lo) + share * (math.log(hi) - math.log(lo)))


def _numbers(spec: str | Iterable[float]) -> tuple[float, ...]:
    """Centres as they were written out."""
    try:
        return tuple(float(c) for c in (spec.split("|") if isinstance(spec, str) else spec))
    except (TypeError, ValueError):
        raise UsageError(f"bins {_text(spec)}: centres are numbers in metres, as in '1|1.5|2'") from None


def _same(bins: int, words: int, spec: Any) -> None:
    """Raise UsageError unless there are as many bins as words."""
    if bins != words:
        raise UsageError(f"{words} depth words or tokens need {words} bins, but bins {_text(spec)} makes {bins}")


def _text(spec: Any) -> str:
    """Bins as they were given, on one short line."""
    text = " ".join(str(spec).split())
    return f"'{text}'" if len(text) <= 60 else f"'{text[:57]}...'"
