"""Human words for depth: the paper's hand-made scales, one word per bin, bin 0 first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from ..errors import UsageError, unknown


@dataclass(frozen=True)
class Token:
    """One entry of CLIP's BPE vocabulary, put into a prompt as it is (`inian` is no word that BPE would leave whole)."""

    text: str

    def __str__(self) -> str:
        return self.text


Word = str | Token
METRES = "metres"
"""The scale whose words say their bin's centre; they are had of `numbers`, once bins are known."""

SCALES: dict[str, tuple[Word, ...]] = {
    "depth-7": ("very close", "close", "slightly close", "neither close nor distant", "slightly distant", "distant", "very distant"),
    "size-7": ("very small", "small", "slightly small", "neither small nor large", "slightly large", "large", "very large"),
    "colour-7": ("very red", "red", "slightly red", "neither red nor green", "slightly green", "green", "very green"),
    "rand-txt-7": tuple(Token(text) for text in ("summer", "inian", "fellow", "greg", "bis", "ksh", "aidan")),
    "depthclip": ("giant", "extremely close", "close", "not in distance", "a little remote", "far", "unseen"),
}
"""Paper section 3.3 and DepthCLIP; rand-txt-7 are single vocabulary tokens. `random:7` and `learned:7` are the two scales of vectors."""


@dataclass(frozen=True)
class DepthWords:
    """What fills {depth}, one entry per bin: words, or vectors.

    Attributes:
        spec: as it was given; a list of words as a tuple.
        kind: "words", "learned" (vectors), or "random" (vectors drawn once and frozen).
        count: number of entries, and so of bins.
        words: the words of kind "words", bin 0 first; else empty, as they are of "metres:N" before bins are known.
        anchors: how many vectors are learned where the others lie between them ("path:K:N"), else None.
    """

    spec: str | tuple[str, ...]
    kind: str
    count: int
    words: tuple[Word, ...] = ()
    anchors: int | None = None


def depth_words(spec: str | Sequence[Word]) -> DepthWords:
    """Read what is to fill {depth}.

    Args:
        spec: "learned:N", "random:N", "path:K:N", "metres:N", the name of one of `SCALES`, or one word or phrase per bin (a list, or
            "near|far").

    Raises:
        UsageError: for an unknown name, a count below two, or a word that is empty or no text.
    """
    if not isinstance(spec, str | Iterable):
        raise UsageError(f"depth words are a name such as 'learned:7', or a list of words, not {spec!r}")
    if not isinstance(spec, str) or "|" in spec:
        given = spec.split("|") if isinstance(spec, str) else list(spec)
        if not all(isinstance(word, Word) for word in given):
            raise UsageError(f"depth words are text, one word or phrase per bin, not {' '.join(repr(given).split())[:80]}")
        words = tuple(word if isinstance(word, Token) else str(word).strip() for word in given)
        if len(words) < 2 or not all(map(str, words)):
            raise UsageError(f"depth words need at least two entries, none of them empty: {[str(word) for word in words]}")
        return DepthWords(tuple(map(str, words)), "words", len(words), words)
    spec = str(spec)
    if spec in SCALES:
        return DepthWords(spec, "words", len(SCALES[spec]), SCALES[spec])
    kind, _, count = spec.partition(":")
    if kind in ("learned", "random", METRES) and _number(count) >= 2:
        return DepthWords(spec, "words" if kind == METRES else kind, _number(count))
    if kind == "path":
        numbers = [_number(n) for n in count.split(":")]
        if len(numbers) != 2 or not 2 <= numbers[0] <= numbers[1]:
            raise UsageError(f"'{spec}': say how many learned anchors, at least two, and how many tokens, no fewer, as in 'path:7:256'")
        return DepthWords(spec, "learned", numbers[1], anchors=numbers[0])
    if kind in ("learned", "random", METRES):
        raise UsageError(f"'{spec}': say how many, at least two, as in '{kind}:7'")
    raise unknown("depth scale", spec, [*SCALES, "learned:7", "random:7", "path:7:256", "metres:7"])


def numbers(centres: Sequence[float]) -> tuple[str, ...]:
    """Words that say where bins lie: with two significant digits, or as many as tell neighbours apart.

    Args:
        centres: of the bins, metres, each above 0, increasing.

    Example:
        >>> numbers([0.7151, 2.1434, 12.5])
        ('0.72 metres', '2.1 metres', '12 metres')
    """
    for digits in range(2, 18):  # 17 tell any two floats apart
        found = [f"{Decimal(f'{centre:.{digits - 1}e}'):f} {METRES}" for centre in centres]
        if all(near != far for near, far in pairwise(found)):
            break
    return tuple(found)


def _number(text: str) -> int:
    """A count as it is written, 0 for what is none; one of many digits is cut, and stays beyond all bounds."""
    return int(text[:18]) if text.isdecimal() else 0
