"""What training minimises, as one setting. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError, unknown

TERMS = {"silog": None, "silog+ce": "ce", "silog+ordinal": "ordinal"}
"""What stands beside SILog, by the name of an objective."""


@dataclass(frozen=True)
class Objective:
    """SILog, alone or with a term on the probabilities of the bins beside it; see `loss.bin_cross_entropy`.

    Attributes:
        term: "ce", "ordinal", or None for SILog alone.
        weight: what the term is multiplied with; no matter where there is none.
    """

    term: str | None = None
    weight: float = 0.5

    @classmethod
    def read(cls, text: str) -> Objective:
        """An objective from "silog", "silog+ce[:WEIGHT]" or "silog+ordinal[:WEIGHT]". Raises UsageError for anything else."""
        name, colon, written = text.partition(":")
        if name not in TERMS:
            raise unknown("objective", name, TERMS)
        if not colon:
            return cls(TERMS[name])
        if TERMS[name] is None:
            raise UsageError(f"objective '{text}': a weight is for what stands beside SILog, as in 'silog+ce:0.5'")
        try:
            weight = float(written)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise UsageError(f"objective '{text}': its weight needs a positive number, as in '{name}:0.5'")
        return cls(TERMS[name], weight)
