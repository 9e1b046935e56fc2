"""Phrases of a few vocabulary entries per bin, for the search of `search`: too many to try them all, so a gradient says which are tried.

A change puts one entry in the place of another, or between them. To first order it shifts the error by the gradient with respect to the
embedding at that place times the entry's embedding (HotFlip, Ebrahimi et al. 2018; AutoPrompt, Shin et al. 2020). The `TRIED` entries
that promise most are encoded and scored exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..prompt.encoder import PromptEncoder
from ..prompt.template import parse_template
from .search import Others, Words
from .vocabulary import Blanks

TRIED = 128
"""Entries that are scored exactly for each change."""
Ids = tuple[int, ...]
"""A phrase, as the ids of its vocabulary entries."""


class Sentences:
    """Phrases, given by the ids of their entries, in a template.

    Args:
        encoder: of the CLIP whose vocabulary it is.
        template: the sentence.
        entries: ids of the vocabulary entries that phrases may be made of; those that frame every text are left out.
        context: vectors [slots, width] for the template's {ctx} slots.
    """

    def __init__(self, encoder: PromptEncoder, template: str, entries: Sequence[int], context: Tensor | None = None) -> None:
        tokenizer = encoder.clip.tokenizer
        framing = {*tokenizer.start, *tokenizer.end, *tokenizer.closing}
        self.encoder, self.template = encoder, parse_template(template)
        self.entries = torch.tensor([index for index in entries if index not in framing])
        self.context = [] if context is None else [context]
        self._blanks: dict[int, Blanks] = {}

    @cached_property
    def embeddings(self) -> Tensor:
        """[V, width] float32, of the entries."""
        return self.encoder.clip.text.lookup(self.entries.tolist()).float()

    @cached_property
    def middle(self) -> Tensor:
        """[width], the mean of the entries' embeddings: a place that is taken by no entry in particular."""
        return self.embeddings.mean(dim=0)

    def features(self, phrases: Sequence[Ids]) -> Tensor:
        """Text features [n, C] float32 of phrases, L2-normalised; those of one length are encoded together."""
        found = torch.empty(len(phrases), 0)
        for length in sorted({len(phrase) for phrase in phrases}):
            which = [i for i, phrase in enumerate(phrases) if len(phrase) == length]
            layout = self._blank(length).filled(torch.tensor([phrases[i] for i in which]))
            with torch.inference_mode():
                part = F.normalize(self.encoder.encode(layout, torch.cat(self.context) if self.context else None).float(), dim=-1)
                if not found.numel():
                    found = part.new_empty(len(phrases), part.shape[1])
                found[which] = part
        return found

    def promising(self, phrase: Ids, place: int, vector: Tensor, others: Others, patches: Tensor) -> list[int]:
        """The `TRIED` entries that promise the least error at one place of a phrase, to first order.

        Args:
            phrase: what stands at `place` is of no effect.
            place: from 0.
            vector: [width], what stands there instead, around which the error is taken to be linear.
            others: the bin as the other bins leave it.
            patches: [C, P], scaled, as `Words` has them.
        """
        vector = vector.clone().requires_grad_()
        layout = self._blank(len(phrase)).filled(torch.tensor([phrase]), place)
        with torch.enable_grad():
            text = self.encoder.encode(layout, torch.cat([*self.context, vector[None]]))
            error = others.errors(F.normalize(text.float(), dim=-1).to(patches.device) @ patches)
        (gradient,) = torch.autograd.grad(error.sum(), vector)
        order = (self.embeddings @ gradient).topk(min(TRIED, len(self.entries)), largest=False).indices
        found: list[int] = self.entries[order.cpu()].tolist()
        return found

    def _blank(self, length: int) -> Blanks:
        """The template with so many places."""
        if length not in self._blanks:
            self._blanks[length] = Blanks.of(self.encoder, self.template, length)
        return self._blanks[length]


class Phrases:
    """What a bin may take: one of a table of words, or a phrase of up to `length` entries.

    Changes to a bin: one entry more at one place of its phrase; another entry there, or none; and last any candidate of the table, which a
    start that comes from there has tried before. Phrases are counted from behind the table on, in the order in which they are met.

    Args:
        words: the table.
        ids: of the table's candidates; a hand-made phrase may have more entries than `length`, and is then taken whole or not at all.
        sentences: the template they stand in.
        length: entries of a phrase at most.
        shorter: what an earlier search met, whose indices go on meaning the same.

    Attributes:
        changes: how many kinds of change to a bin there are.
        ids: of every candidate that has an index.
        scored: how many phrases were encoded.
    """

    def __init__(self, words: Words, ids: Sequence[Ids], sentences: Sentences, length: int, shorter: Phrases | None = None) -> None:
        self.words, self.sentences, self.length = words, sentences, length
        self.patches, self.changes = words.patches, 2 * length + 1
        self.ids: list[Ids] = list(shorter.ids if shorter else ids)
        self._met: list[Tensor] = list(shorter._met) if shorter else []  # features [C] of the phrases behind the table
        self._places = {phrase: place for place, phrase in enumerate(self.ids)}
        self.scored = 0

    def index(self, phrase: Ids, features: Tensor | None = None) -> int:
        """A phrase's index, which it gets here if it had none; features: [C], where they are at hand."""
        if phrase not in self._places:
            self._places[phrase] = len(self.ids)
            self.ids.append(phrase)
            self._met.append((self.sentences.features([phrase])[0] if features is None else features).to(self.patches.device))
        return self._places[phrase]

    def features(self, indices: Sequence[int]) -> Tensor:
        """Text features [len(indices), C]."""
        table = self.words.candidates
        return torch.stack([table[i] if i < len(table) else self._met[i - len(table)] for i in indices])

    def rows(self, indices: list[int]) -> Tensor:
        """Logits [len(indices), P]."""
        table = self.words.count
        return torch.cat([
            self.words.rows([i]) if i < table else self._met[i - table][None] @ self.patches for i in indices
        ])  # fmt: skip

    def best(self, index: int, change: int, others: Others) -> int | None:
        """As `Words.best`, of those that are tried."""
        if change == self.changes - 1:
            return self.words.best(index, 0, others)
        phrase, (kind, place) = self.ids[index], divmod(change, self.length)
        more = kind == 0
        if len(phrase) + more > self.length or place >= len(phrase) + more or len(phrase) + more == 1:
            return None  # one entry alone is replaced from the table
        sentences = self.sentences
        if more:
            phrase = (*phrase[:place], int(sentences.entries[0]), *phrase[place:])
            vector = sentences.middle
        else:
            vector = sentences.encoder.clip.text.lookup([phrase[place]])[0].float()
        before, behind = phrase[:place], phrase[place + 1 :]
        tried = [(*before, entry, *behind) for entry in sentences.promising(phrase, place, vector, others, self.patches)]
        if not more:
            tried.append((*before, *behind))
        features = sentences.features(tried).to(self.patches.device)
        self.scored += len(tried)
        best = int(others.errors(features @ self.patches).argmin())
        return self.index(tried[best], features[best])
