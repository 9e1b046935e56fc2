"""Where the depth bins lie: centres in metres from a formula and a count, or as given."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import UsageError, unknown

DEPTHCLIP_CENTRES = (1.00, 1.50, 2.00, 2.25, 2.50, 2.75, 3.00)
"""DepthCLIP's seven centres for NYUv2, metres."""


def bin_centres(spec: str | Sequence[float], count: int, depth_range: tuple[float, float]) -> tuple[float, ...]:
    """Centres in metres of `count` bins over `depth_range` = (lo, hi).

    spec: "linear[:N]" (centres of N equal cells), "log[:N]" (of N cells equal in log depth), "const80[:N]" (log over 0.001-80 m
    whatever the range), "depthclip", or the centres themselves (a sequence, or "1|1.5|2"). N may be left out: it is `count`.
    Raises UsageError for an unknown layout, a count that differs from the number of depth words, or centres outside the range.
    """
    lo, hi = depth_range
    if not (0 < lo < hi < math.inf):
        raise UsageError(f"depth range {lo}-{hi} m: needs 0 < lo < hi")
    if isinstance(spec, str) and "|" not in spec and spec != "depthclip":
        name, _, written = spec.partition(":")
        formulas = {"linear": (_linear, lo, hi), "log": (_log, lo, hi), "const80": (_log, 0.001, 80.0)}
        if name not in formulas:
            raise unknown("bins", name, [*formulas, "depthclip"])
        if written and not written.isdecimal():
            raise UsageError(f"bins '{spec}': write a count after the colon, as in '{name}:7'")
        _same(int(written or count), count, spec)
        formula, start, stop = formulas[name]
        return tuple(formula(start, stop, (i + 0.5) / count) for i in range(count))
    centres = DEPTHCLIP_CENTRES if spec == "depthclip" else _numbers(spec)
    _same(len(centres), count, spec)
    if not all(lo <= c <= hi for c in centres):
        raise UsageError(f"bin centres {min(centres):g}-{max(centres):g} m lie outside the depth range {lo:g}-{hi:g} m")
    return centres


def _linear(lo: float, hi: float, share: float) -> float:
    return lo + share * (hi - lo)


def _log(lo: float, hi: float, share: float) -> float:
    return math.exp(math.log(lo) + share * (math.log(hi) - math.log(lo)))


def _numbers(spec: str | Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(c) for c in (spec.split("|") if isinstance(spec, str) else spec))
    except ValueError:
        raise UsageError(f"bins '{spec}': centres are numbers in metres, as in '1|1.5|2'") from None


def _same(bins: int, words: int, spec: object) -> None:
    if bins != words:
        raise UsageError(f"{words} depth words or tokens need {words} bins, but bins '{spec}' makes {bins}")
