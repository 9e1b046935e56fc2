"""The best words of one CLIP in another: written out as text, tokenized by the other, and scored on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.load import FrozenCLIP
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol
from ..errors import UsageError
from ..experiment.evaluate import score_heads
from ..experiment.named import NamedData
from ..experiment.result import Result
from ..experiment.source import Reading, Source, open_source, scored_views
from ..progress import Progress, prefixed, silent
from ..prompt.scales import SCALES, Word
from ..prompt.tokens import has_words
from . import BEST, CONTROL, MAIN, WORDS
from .ablations import Variant
from .scores import StudyRow
from .words import WordSearch

AS_TEXT = ", as text"
"""End of the name of a row: the best found, written out and tokenized again by their own CLIP."""


@dataclass(frozen=True)
class Elsewhere:
    """Another CLIP, and the test images as it sees them.

    Attributes:
        model: random tokens in that CLIP, with the bins, template and scale of the tokens under study.
        test: the same test images.
    """

    model: DepthTokens
    test: Source


@dataclass(frozen=True)
class Carried:
    """What the best words are worth in another CLIP.

    Attributes:
        model: as of `Elsewhere`.
        texts: one per bin, by the name of the row that they come from.
        differs: for each text, whether its own CLIP reads other vocabulary entries in it than those that were found.
        rows: scores in the other CLIP: of the texts by those names, then of the hand-made scales.
        survives: by row, which share is left of the lead that the best found have over the best row without any search (in mean AbsRel over
            the test images; a hand-made scale, each CLIP with its own best, or a control); None where they had no lead.
    """

    model: DepthTokens
    texts: dict[str, list[str]]
    differs: dict[str, list[bool]]
    rows: list[StudyRow]
    survives: dict[str, float | None]


def open_elsewhere(
    model: DepthTokens, clip: FrozenCLIP, named: NamedData, protocol: Protocol, reading: Reading, list_file: str | None = None
) -> Elsewhere:
    """The test images of a study as another CLIP sees them: in the tokens' mode where it has that, else in its default.

    Args:
        model: the tokens under study.
        clip: the other CLIP.
        named: the data set, or a store of its test split whose images are still there.
        protocol: by which the model is scored.
        reading: how patch features are had; its `list_file` gives way to that below.
        list_file: the test split's list file, where it is not found under the data set's root.

    Raises:
        UsageError: for learned context vectors, which no other CLIP knows.
        DataError: where there are no test images.
    """
    if "context" in model.tokens:
        raise UsageError("learned context vectors stand in these tokens' sentences, and no other CLIP knows them: leave out --carry-to")
    settings = model.settings
    scale = float(model.log_scale.exp()) if settings.scale == "learned" else settings.scale
    dense = settings.dense if settings.dense in clip.image.modes else clip.default_dense
    other = DepthTokens.of(
        clip, settings.changed(depth=f"random:{len(model.centres)}", dense=dense, scale=scale, batchnorm="frozen", init="random")
    )
    lines = named.store.meta["data"]["list_file"] if named.store else list_file
    views = scored_views(protocol, settings.normalisation)
    return Elsewhere(other, open_source(other, named.split("test", lines), views, replace(reading, list_file=lines)))


def texts_of(model: DepthTokens, search: WordSearch) -> list[str]:
    """What was found for each bin, written out."""
    return [model.clip.tokenizer.text(ids) for ids in search.ids]


def spoken(model: DepthTokens, words: Sequence[Word]) -> Tensor:
    """Text features [N, C] of words in a model's template, as its CLIP tokenizes them, L2-normalised."""
    with torch.inference_mode():
        features = model.encoder.encode(model.encoder.layout([model.settings.parsed.fill([word]) for word in words]))
        return F.normalize(features.float(), dim=-1).cpu()


def carry(
    model: DepthTokens,
    searches: Sequence[WordSearch],
    rows: Mapping[str, StudyRow],
    elsewhere: Elsewhere,
    protocol: Protocol,
    progress: Progress = silent,
) -> Carried:
    """Score the best words in another CLIP.

    Args:
        model: the tokens under study.
        searches: what was found.
        rows: of the study, by name.
        elsewhere: the other CLIP.
        protocol: by which all is scored.
        progress: called as images are scored.
    """
    other, tokenizer = elsewhere.model, model.clip.tokenizer
    texts = {search.name: texts_of(model, search) for search in searches}
    differs = {
        search.name: [tuple(tokenizer.ids(text)) != ids for text, ids in zip(texts[search.name], search.ids, strict=True)]
        for search in searches
    }
    fitting = {name: words for name, words in SCALES.items() if len(words) == len(other.centres) and has_words(other.clip, words)}
    variants = [Variant(name, BEST, spoken(other, words), other.centres) for name, words in texts.items()]
    variants += [Variant(name, WORDS, spoken(other, words), other.centres) for name, words in fitting.items()]
    scale = float(other.log_scale.exp())
    heads = {variant.name: variant.head(scale) for variant in variants}
    scores = score_heads(heads, elsewhere.test, protocol, progress=prefixed(progress, "in the other CLIP: "))
    found = [StudyRow(variant.name, variant.kind, scores[variant.name], Result.of([scores[variant.name]]), None) for variant in variants]
    own, there = _leads(list(rows.values())), _leads([*found, *(row for row in rows.values() if row.kind == CONTROL)])
    survives = {name: there[name] / own[name] if own.get(name, 0) > 0 and name in there else None for name in texts}
    return Carried(other, texts, differs, found, survives)


def _leads(rows: Sequence[StudyRow]) -> dict[str, float]:
    """By how much the best found are better than the best row without any search; empty where there is none."""
    scored = {row.name: (row.kind, row.result.interval(MAIN).mean) for row in rows}
    without = [mean for kind, mean in scored.values() if kind in (WORDS, CONTROL)]
    return {name: min(without) - mean for name, (kind, mean) in scored.items() if kind == BEST} if without else {}
