"""What a study looks at. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StudySettings:
    """What to look at."""

    scales: tuple[str, ...] | None = None
    """Human scales to study beside the tokens, one word per bin: names, or near|far|...; every hand-made one that fits if not given."""
    template: str | None = None
    """The sentence for the table of neighbours; the tokens' own, with its learned context, if not given (the paper: baseline)."""
    position: int | None = None
    """Read sentences at this position for the table of neighbours (start = 0), not at end-of-text."""
    neighbours: int = 5
    """Of each token."""
    paper_table: bool = False
    """Print the tokens' 15 nearest in embedding space as the paper does, a column per token (its sentence: --template baseline)."""
    trained_vocabulary_only: bool = False
    """Of the bundled CLIP: only vocabulary entries that occurred in its training."""
    search: bool = True
    """Search the best word per bin on the training split."""
    phrase: Literal[1, 2, 3] = 1
    """Search phrases of so many vocabulary entries per bin at most, after the best words."""
    search_seconds: float = 300
    """For each length of phrases above one; what was found by then is taken."""
    patches: int = 4096
    """Training patches to search on."""
    images: int = 6
    """Test images to show heat maps of."""
    seed: int = 0
    """Of the patches and the random start of the search."""
