"""How far words can go: what may stand for {depth}, and the best word for every bin, the fair upper bound for one-word language."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.model import DepthTokens
from ..experiment.source import Source
from ..progress import Progress, prefixed, silent
from ..prompt.encoder import PromptEncoder
from ..prompt.scales import SCALES, Word
from ..prompt.template import parse_template
from ..prompt.tokens import has_words, word_ids
from . import BEST_OF, TOKENS
from .ablations import removed
from .neighbours import depth_features
from .patches import sample_patches
from .phrases import Phrases, Sentences
from .search import Found, Words, drawn_at_random, search, word_score
from .vocabulary import vocabulary_entries, vocabulary_features

WORK, SWEEPS = 3e10, 50
"""Similarities that one descent may look at (20 rounds over 7 bins, the whole vocabulary on 4096 patches), and its rounds at most."""


@dataclass(frozen=True)
class Candidates:
    """What may stand for {depth}.

    Attributes:
        names: V vocabulary entries and phrases.
        ids: of the vocabulary entries that each of them is made of.
        features: [V, C] float32, L2-normalised.
        scales: the hand-made scales, as indices among them.
    """

    names: list[str]
    ids: list[tuple[int, ...]]
    features: Tensor
    scales: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class WordSearch:
    """The best words, or phrases, that were found.

    Attributes:
        words: one per bin, as the vocabulary writes it; a phrase of several entries as text.
        phrases: whether each is a phrase of several entries.
        features: [N, C], theirs.
        found: how the search went.
        candidates: how many there were; of phrases longer than one entry, how many were encoded and scored.
        patches: how many they were judged on.
        objective: mean absolute relative error on those patches, of the tokens, the scales and the best found, by the rows' names.
        without: the same of the best found less one, with its bin, for each bin.
        ids: of the vocabulary entries that each is made of.
        entries: their names.
        length: how many entries it may have, unless it is a phrase of a hand-made scale.
        seconds: that the search took.
    """

    words: list[str]
    phrases: list[bool]
    features: Tensor
    found: Found
    candidates: int
    patches: int
    objective: dict[str, float]
    without: list[float]
    ids: list[tuple[int, ...]]
    entries: list[list[str]]
    length: int = 1
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Of its row."""
        return BEST_OF[self.length]


def word_candidates(
    encoder: PromptEncoder,
    template: str = "baseline",
    tokens: Sequence[str | int] | None = None,
    *,
    context: Tensor | None = None,
    scales: Mapping[str, Sequence[Word]] = SCALES,
    progress: Progress = silent,
) -> Candidates:
    """Every vocabulary entry in a template, and behind them every phrase of the scales that is no single entry.

    Args:
        encoder: of the CLIP whose vocabulary it is.
        template: the sentence.
        tokens: the entries wanted, as in `vocabulary_entries`; None for all. Phrases with other entries in them are then left out, and
            so are the scales that need one.
        context: vectors [slots, width] for the template's {ctx} slots.
        scales: where phrases come from; the hand-made ones if not given. Those with a `Token` that the vocabulary lacks are left out.
        progress: called as the vocabulary is encoded.

    Raises:
        UsageError: as `vocabulary_features`.
    """
    scales = {name: words for name, words in scales.items() if has_words(encoder.clip, words)}
    names, features = vocabulary_features(encoder, template, tokens, context=context, progress=progress)
    entries = vocabulary_entries(encoder.clip, tokens)[1]
    single = {index: place for place, index in enumerate(entries)}
    places: dict[Word, int] = {}
    phrases: list[Word] = []
    for word in dict.fromkeys(word for scale in scales.values() for word in scale):
        ids = word_ids(encoder.clip, word)
        if not all(index in single for index in ids):
            continue
        if len(ids) == 1:
            places[word] = single[ids[0]]
        else:
            places[word] = len(names) + len(phrases)
            phrases.append(word)
    if phrases:
        parsed = parse_template(template)
        with torch.inference_mode():
            spoken = encoder.encode(encoder.layout([parsed.fill([phrase]) for phrase in phrases]), context)
            spoken = F.normalize(spoken.float(), dim=-1).cpu()
        features = torch.cat([features, spoken])
    known = {name: tuple(places[word] for word in words) for name, words in scales.items() if all(word in places for word in words)}
    made_of = [*((index,) for index in entries), *(tuple(word_ids(encoder.clip, phrase)) for phrase in phrases)]
    return Candidates([*names, *map(str, phrases)], made_of, features, known)


def search_best_words(
    model: DepthTokens,
    scales: Mapping[str, DepthTokens],
    candidates: Candidates,
    nearest: Sequence[int],
    train: Source,
    *,
    vocabulary: int,
    patches: int,
    seed: int,
    length: int = 1,
    seconds: float = 300,
    progress: Progress = silent,
) -> list[WordSearch]:
    """Search a word for each of a model's bins on patches of a training split, and then phrases.

    Phrases are searched from where every start of the next shorter ones ended, and from one more at random: they are never worse on these
    patches.

    Args:
        model: the tokens under study.
        scales: the same model with human words, by the scales' names; each scale is a start of the search.
        candidates: what words are chosen from.
        nearest: the candidate nearest to each token; another start.
        train: training images.
        vocabulary: how many of the candidates, which come first, are vocabulary entries; the others are phrases.
        patches: how many are drawn.
        seed: of the draw, and of the starts at random.
        length: entries of the longest phrases.
        seconds: for each length above one.
        progress: called as the search goes on.

    Returns:
        What was found with one entry per bin, with up to two, and so on.

    Raises:
        UsageError: where no patch has ground truth.
    """
    features, truth = sample_patches(train, patches, batch_size=1, seed=seed)  # one by one: images may differ in size
    if features.device.type == "mps":  # which has no double precision
        features, truth = features.cpu(), truth.cpu()
    centres, scale = model.centres.to(features.device), float(model.log_scale.exp())
    count = len(centres)
    compared = {TOKENS: depth_features(model), **{name: depth_features(words) for name, words in scales.items()}}
    table = Words(candidates.features, features, scale)
    context = model.tokens["context"].detach() if "context" in model.tokens else None
    entries = [ids[0] for ids in candidates.ids[:vocabulary]]
    sentences = Sentences(model.encoder, model.settings.template, entries, context)
    choices = Phrases(table, candidates.ids, sentences, 1)
    starts = [tuple(nearest), *(candidates.scales[name] for name in scales if name in candidates.scales)]
    starts += map(tuple, drawn_at_random(table.count, 1, count, seed))
    named = {index: name for name, index in model.clip.tokenizer.vocabulary().items()}
    searches: list[WordSearch] = []
    for longest in range(1, length + 1):
        started = time.monotonic()
        if longest == 1:
            sweeps = int(WORK / (count * table.count * len(truth)))
            found = search(table, truth, starts, centres, sweeps=max(1, min(SWEEPS, sweeps)), progress=progress)
        else:
            choices = Phrases(table, candidates.ids, sentences, longest, choices)
            drawn = sentences.entries[torch.tensor(drawn_at_random(len(sentences.entries), count, longest, seed))]
            starts = [*found.ends, tuple(choices.index(tuple(phrase)) for phrase in drawn.tolist())]
            found = search(
                choices, truth, starts, centres, sweeps=SWEEPS, seconds=seconds, progress=prefixed(progress, f"up to {longest} entries: ")
            )
        best = choices.features(found.indices)
        text = compared | {BEST_OF[longest]: best}
        objective = {name: word_score(features, truth, text.to(features.device), centres, scale) for name, text in text.items()}
        fewer = [removed(best.to(features.device), centres, i) for i in range(count)]
        ids = [choices.ids[index] for index in found.indices]
        searches.append(
            WordSearch(
                words=[candidates.names[i] if i < table.count else model.clip.tokenizer.text(choices.ids[i]) for i in found.indices],
                phrases=[i >= vocabulary for i in found.indices],
                features=best.cpu(),
                found=found,
                candidates=table.count if longest == 1 else choices.scored,
                patches=len(truth),
                objective=objective,
                without=[word_score(features, truth, variant.features, variant.centres, scale) for variant in fewer],
                ids=ids,
                entries=[[named[index] for index in phrase] for phrase in ids],
                length=longest,
                seconds=time.monotonic() - started,
            )
        )
    return searches
