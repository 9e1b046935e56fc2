"""A study of depth tokens: what lies near them, how they lie to each other, what each is worth, and how far words alone can go."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .._version import versions
from ..clip.bundled import trained_tokens
from ..depth.model import DepthTokens
from ..errors import UsageError
from ..progress import Progress, prefixed, silent
from ..prompt.scales import SCALES, depth_words
from ..prompt.template import parse_template
from ..prompt.tokens import has_words
from . import BEST_OF, TOKENS, geometry
from .ablations import KINDS, chosen_ablations
from .carry import AS_TEXT, Carried, Elsewhere, carry, spoken, texts_of
from .data import StudyData, check_condition
from .neighbours import EMBEDDING, NeighbourTable, depth_features, depth_vectors, embeddings, nearest, neighbour_tables
from .scores import StudyRow, TokenMaps, score, token_maps
from .settings import StudySettings
from .vocabulary import vocabulary_entries, vocabulary_features
from .words import Candidates, WordSearch, search_best_words, word_candidates

PAPER = 15
"""Neighbours of each token in the paper's table."""


@dataclass
class Study:
    """What a study found. What needs images is empty, or None, without them.

    Attributes:
        model: with the tokens under study.
        settings: what was looked at.
        data: the images, if any.
        neighbours: tables of the tokens and of each scale, in both spaces.
        scale_words: the words of each scale, by its name.
        distances: [N, N] between text features, of the tokens and of each scale.
        paths: how text features lie along depth, likewise; empty for fewer than three bins.
        norms: [N] length of each vector that stands for {depth}, likewise.
        vocabulary_norms: 5th, 50th and 95th percentile of that length over the vocabulary.
        vocabulary: how many entries were candidates for neighbours.
        rows: scores, the tokens' first.
        search: the best words.
        longer: the best phrases, of up to two entries, and so on.
        carried: what both are worth in another CLIP.
        paper_table: the tokens' nearest in embedding space, as many as in the paper's table, where they were asked for.
        maps: what each token says about some test images.
        notes: what was left out or done otherwise, in words.
        versions: of the packages that the figures depend on.
        seconds: how long it took.
    """

    model: DepthTokens
    settings: StudySettings
    data: StudyData | None
    neighbours: list[NeighbourTable]
    scale_words: dict[str, list[str]]
    distances: dict[str, Tensor]
    paths: dict[str, geometry.Path]
    norms: dict[str, Tensor]
    vocabulary_norms: tuple[float, float, float]
    vocabulary: int
    rows: list[StudyRow] = field(default_factory=list)
    search: WordSearch | None = None
    longer: list[WordSearch] = field(default_factory=list)
    carried: Carried | None = None
    paper_table: NeighbourTable | None = None
    maps: list[TokenMaps] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def compared(self) -> list[StudyRow]:
        """The rows that stand beside each other: tokens, best words, scales and controls."""
        return [row for row in self.rows if row.kind not in KINDS]

    @property
    def searches(self) -> list[WordSearch]:
        """The best words, then the best phrases; empty where none were searched."""
        return [self.search, *self.longer] if self.search else []

    @property
    def ablations(self) -> list[StudyRow]:
        """The rows of tokens after one change."""
        return [row for row in self.rows if row.kind in KINDS]

    @property
    def fragments(self) -> bool:
        """Whether an entry of the vocabulary without a mark at its end is a fragment of a word, as in CLIP's BPE."""
        return self.model.clip.tokenizer.marks_ends


def run_study(
    model: DepthTokens,
    settings: StudySettings,
    data: StudyData | None = None,
    progress: Progress = silent,
    elsewhere: Elsewhere | None = None,
) -> Study:
    """Study a model's depth words, learned, random or human.

    Args:
        model: the model.
        settings: what to look at.
        data: images, for scores, ablations, the word search and heat maps; None leaves those out.
        progress: called as the vocabulary is encoded, words are searched, images are scored, and so on.
        elsewhere: another CLIP, which the best words are carried to.

    Raises:
        UsageError: for settings that do not fit the model, before any work.
        DataError: as `scores.score`.
    """
    started = time.monotonic()
    entries = _entries(model, settings)
    scales = {name: in_words(model, name) for name in _scale_names(model, settings)}
    _check(model, settings, data, elsewhere)
    notes = _notes(model, data)
    candidates = word_candidates(
        model.encoder, model.settings.template, entries, context=_context(model, model.settings.template),
        scales={**SCALES, **{name: one.settings.words.words for name, one in scales.items()}}, progress=progress,
    )  # fmt: skip
    studied = {TOKENS: model, **scales}
    names, ids = vocabulary_entries(model.clip, entries)
    sentences = candidates.features[: len(names)]
    if settings.template is not None or settings.position is not None:  # the table of neighbours reads other sentences
        template = settings.template or model.settings.template
        _, sentences = vocabulary_features(
            model.encoder, template, ids, position=settings.position, context=_context(model, template),
            progress=prefixed(progress, "for the table of neighbours: "),
        )  # fmt: skip
    neighbours = neighbour_tables(studied, ids, names, sentences, settings.neighbours, settings.position)
    paper_table = None
    if settings.paper_table:
        paper_table = NeighbourTable(TOKENS, EMBEDDING, nearest(depth_features(model, settings.position), sentences, names, PAPER))
    features = {name: depth_features(one).cpu() for name, one in studied.items()}
    lengths = embeddings(model, ids).norm(dim=1)
    low, middle, high = lengths.quantile(lengths.new_tensor([0.05, 0.5, 0.95])).tolist()
    study = Study(
        model=model,
        settings=settings,
        data=data,
        neighbours=neighbours,
        scale_words={name: one.words for name, one in scales.items()},
        distances={name: geometry.pairwise(text) for name, text in features.items()},
        paths={name: geometry.path(text, model.centres) for name, text in features.items()} if len(model.centres) > 2 else {},
        norms={name: geometry.norms(depth_vectors(one)) for name, one in studied.items()},
        vocabulary_norms=(low, middle, high),
        vocabulary=len(names),
        paper_table=paper_table,
        notes=notes,
        versions={**versions("torch", "open_clip", "numpy"), "python": platform.python_version()},
    )
    if data is not None:
        _with_images(study, data, scales, candidates, features[TOKENS], progress, elsewhere)
    study.seconds = time.monotonic() - started
    return study


def in_words(model: DepthTokens, words: str) -> DepthTokens:
    """The same model with human words for its bins: template, learned context, bins and logit scale stay.

    Args:
        model: the model.
        words: a scale's name, or near|far|..., one word per bin.

    Raises:
        UsageError: where the number of words differs from that of bins.
    """
    spoken, count = depth_words(words), len(model.centres)
    if spoken.kind != "words":
        raise UsageError(f"'{words}' is no scale of words: give {', '.join(SCALES)}, or one word per bin as 'near|far'")
    if spoken.count != count:
        raise UsageError(f"the scale '{words}' has {spoken.count} words, these tokens have {count} bins: leave it out of --scales")
    other = DepthTokens.of(model.clip, model.settings.changed(depth=words, batchnorm="frozen", init="random", condition=None))
    with torch.no_grad():
        if "context" in model.tokens:
            other.tokens["context"].copy_(model.tokens["context"])
        other.log_scale.copy_(model.log_scale)
    return other.to(model.centres.device)


def _with_images(
    study: Study,
    data: StudyData,
    scales: Mapping[str, DepthTokens],
    candidates: Candidates,
    own: Tensor,
    progress: Progress,
    elsewhere: Elsewhere | None,
) -> None:
    """Search, score and draw maps; own: text features [N, C] of the tokens."""
    model, settings = study.model, study.settings
    words = candidates.features[: study.vocabulary]
    nearest_word = (own @ words.T).argmax(dim=1).tolist()  # of unit length: the largest product is the least distance
    if settings.search and data.train is not None:
        study.search, *study.longer = search_best_words(
            model, scales, candidates, nearest_word, data.train, vocabulary=study.vocabulary, patches=settings.patches,
            seed=settings.seed, length=settings.phrase, seconds=settings.search_seconds, progress=progress,
        )  # fmt: skip
        if not study.search.found.converged:
            study.notes.append("the search stopped at its limit of rounds: a change of one word might still help")
        for search in study.longer:
            if not search.found.converged:
                limit = f"{settings.search_seconds:g} s (--search-seconds)"
                study.notes.append(f"the search of {search.name} stopped at its limit of {limit}: more changes might help")
    best = {search.name: search.features for search in study.searches}
    if elsewhere is not None:
        best |= {search.name + AS_TEXT: spoken(model, texts_of(model, search)) for search in study.searches}
    names = [candidates.names[index] for index in nearest_word]
    ablations, left_out = chosen_ablations(model, words[nearest_word], names)
    study.notes += [left_out] if left_out else []
    study.rows = score(model, scales, best, ablations, data, progress)
    if elsewhere is not None:
        study.carried = carry(model, study.searches, {row.name: row for row in study.rows}, elsewhere, data.protocol, progress)
    if data.shown is not None:
        study.maps = token_maps(model, data.shown, data.protocol, settings.images)


def _entries(model: DepthTokens, settings: StudySettings) -> Sequence[int] | None:
    """Ids of the vocabulary entries that may be neighbours and words; None = all."""
    if not settings.trained_vocabulary_only:
        return None
    if model.clip.name != "bundled":
        raise UsageError("--trained-vocabulary-only is for the bundled CLIP: of other CLIPs nobody knows which entries training saw")
    return [index for index, token in trained_tokens().items() if not token.startswith("<")]


def _scale_names(model: DepthTokens, settings: StudySettings) -> list[str]:
    """The human scales to study: those asked for, or every hand-made one that fits and that the CLIP has the words of."""
    if settings.scales is not None:
        return list(dict.fromkeys(settings.scales))
    fitting = [name for name, words in SCALES.items() if len(words) == len(model.centres) and has_words(model.clip, words)]
    return [name for name in fitting if name != model.settings.depth]


def _context(model: DepthTokens, template: str) -> Tensor | None:
    """The model's learned context, for a template that has slots for it."""
    return model.tokens["context"].detach() if "context" in model.tokens and parse_template(template).contexts else None


def _check(model: DepthTokens, settings: StudySettings, data: StudyData | None, elsewhere: Elsewhere | None) -> None:
    """Raise UsageError for settings that do not fit the model or the images."""
    check_condition(model, data is not None)
    if settings.neighbours < 1 or settings.patches < 1 or settings.images < 0:
        raise UsageError("a study needs at least one neighbour and one patch, and no negative number of images")
    if settings.phrase not in BEST_OF or not settings.search_seconds > 0:
        raise UsageError(f"phrases have 1 to {max(BEST_OF)} entries, and a search takes more than no seconds")
    if (elsewhere is not None or settings.phrase > 1) and (data is None or data.train is None or not settings.search):
        raise UsageError("--phrase and --carry-to go on from best words, which are searched with --data, and without --no-search")
    if settings.position is not None:  # fails here rather than after the vocabulary has been encoded
        depth_features(model, settings.position)
    if settings.template is not None:
        vocabulary_features(model.encoder, settings.template, [0], context=_context(model, settings.template))
    if data is None:
        return
    if settings.search and data.train is not None and (data.train.name, data.train.split) == (data.test.name, data.test.split):
        where = f"{data.test.name} ({data.test.split})"
        raise UsageError(f"words would be searched on the images that test them, {where}: give another split, or use --no-search")
    if len(data.test.names) < 2:
        raise UsageError(f"intervals need at least two test images, {data.test.name} ({data.test.split}) has {len(data.test.names)}")


def _notes(model: DepthTokens, data: StudyData | None) -> list[str]:
    """What will be left out, and what a reader must know, in words."""
    notes = []
    if "context" in model.tokens:
        notes.append("words stand in the tokens' own template, with its learned context vectors: no one-word row is plain language alone")
    if len(model.centres) < 3:
        notes.append("two tokens are always in order, so there is no path through them to look at, and none can be removed or merged")
    if data is None:
        notes.append("without images there are no scores, no ablations, no word search and no heat maps: give --data for them")
        return notes
    if data.train is None:
        notes.append("no word search")
    if data.controls is None:
        notes.append("no training split at hand: the rows `constant` and `mean map` are missing")
    if data.shown is None:
        notes.append("the test images are not at hand, only their features: no heat maps")
    return notes
