"""A CLIP's whole vocabulary as text features: every entry put into a template, at little cost, since the prompts differ in one id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.load import FrozenCLIP
from ..errors import UsageError
from ..progress import Progress, silent
from ..prompt.encoder import PromptEncoder, PromptLayout
from ..prompt.template import Template, parse_template


def vocabulary_entries(clip: FrozenCLIP, tokens: Sequence[str | int] | None = None) -> tuple[list[str], list[int]]:
    """Names and ids of vocabulary entries.

    Args:
        clip: whose vocabulary it is.
        tokens: the entries wanted; None means all that the text tower has an embedding for, in the order of ids. A token is an id, or a
            text as `prompt.scales.Token` takes it: the word-final form unless there is only a fragment. In CLIP's BPE a final form is
            called "close</w>", and a fragment, which other letters follow, "close".

    Raises:
        UsageError: for one that is unknown.
    """
    rows = clip.text.embedding.num_embeddings
    by_id = {index: name for name, index in clip.tokenizer.vocabulary().items() if index < rows}
    if tokens is None:
        ids = sorted(by_id)
        return [by_id[index] for index in ids], ids
    names, ids = [], []
    for token in tokens:
        index = clip.tokenizer.token_id(token) if isinstance(token, str) else token
        if index not in by_id:
            raise UsageError(f"this CLIP's vocabulary has no entry {index}: ids go from 0 to {max(by_id)}")
        names.append(token if isinstance(token, str) else by_id[index])
        ids.append(index)
    return names, ids


def vocabulary_features(
    encoder: PromptEncoder,
    template: str = "baseline",
    tokens: Sequence[str | int] | None = None,
    chunk: int = 512,
    position: int | None = None,
    *,
    context: Tensor | None = None,
    progress: Progress = silent,
) -> tuple[list[str], Tensor]:
    """Every vocabulary entry in a template.

    Args:
        encoder: of the CLIP whose vocabulary it is.
        template: as in `DepthTokens`.
        tokens: as in `vocabulary_entries`; None for the whole vocabulary.
        chunk: prompts encoded at a time, which bounds memory beside the result.
        position: as in `features_at`; None reads at end-of-text.
        context: vectors [slots, width] for the template's {ctx} slots.
        progress: called after every chunk.

    Returns:
        The names of the V entries, and features [V, C] float32 on the CPU, L2-normalised.

    Raises:
        UsageError: for {ctx} slots without as many vectors, or an unknown token.
    """
    parsed = parse_template(template)
    if parsed.contexts != (0 if context is None else len(context)):
        raise UsageError(f"the template '{parsed.text}' has {parsed.contexts} {{ctx}} slots: give as many context vectors")
    names, ids = vocabulary_entries(encoder.clip, tokens)
    blank = Blanks.of(encoder, parsed)
    table = torch.empty(0)
    for start in range(0, len(ids), chunk):
        part = torch.tensor(ids[start : start + chunk])
        layout = blank.filled(part[:, None])
        with torch.inference_mode():
            features = encoder.encode(layout, context) if position is None else features_at(encoder, layout, position, context)
            if not start:
                table = torch.empty(len(ids), features.shape[1])
            table[start : start + chunk] = F.normalize(features.float(), dim=-1)
        progress("encoding the vocabulary", start + len(part), len(ids))
    return names, table


def features_at(encoder: PromptEncoder, layout: PromptLayout, position: int, vectors: Tensor | None = None) -> Tensor:
    """Features of prompts read at a fixed position instead of at end-of-text.

    Exact for causal towers, where nothing behind a position reaches it. Behind its end a prompt has the tokenizer's padding, as in CLIP.

    Args:
        encoder: of a CLIP with a causal text tower.
        layout: of N prompts.
        position: where they are read; the start token is 0.
        vectors: [V, width] for the layout's slots.

    Returns:
        [N, C], not normalised.

    Raises:
        UsageError: for other towers, and a position outside the context.
    """
    text = encoder.clip.text
    if not text.causal:
        raise UsageError("this CLIP's text tower is not causal: its features cannot be read at another position than its own")
    if not 0 <= position < text.context_length:
        raise UsageError(f"position {position}: prompts have positions 0 to {text.context_length - 1}")
    missing = max(0, position + 1 - layout.ids.shape[1])
    ids = F.pad(layout.ids, (0, missing), value=encoder.clip.tokenizer.pad)[:, : position + 1]
    slots = F.pad(layout.slots, (0, missing), value=-1)[:, : position + 1]
    cut = PromptLayout(ids, slots, torch.full_like(layout.end, position), min(layout.shared, position))
    return encoder.encode(cut, vectors if vectors is not None and len(vectors) else None)


@dataclass(frozen=True)
class Blanks:
    """A sentence with places for vocabulary entries, in a row where {depth} stands: one layout serves all prompts that differ only there.

    Attributes:
        layout: of the one prompt, with a vector in each place.
        places: positions of those vectors.
        contexts: how many of the layout's slots are context, which come first.
    """

    layout: PromptLayout
    places: tuple[int, ...]
    contexts: int

    @classmethod
    def of(cls, encoder: PromptEncoder, template: Template, length: int = 1) -> Blanks:
        """The template's sentence with `length` places."""
        blanks = [template.contexts + i for i in range(length)]
        layout = encoder.layout([template.fill(blanks)])
        return cls(layout, tuple(int((layout.slots[0] == blank).nonzero()) for blank in blanks), template.contexts)

    def filled(self, ids: Tensor, free: int | None = None) -> PromptLayout:
        """One prompt for each row of entries.

        Args:
            ids: [n, length], of vocabulary entries.
            free: a place that keeps a vector, which comes behind the context in the table that the prompts are encoded with; None for none.
        """
        pattern, places = self.layout, list(self.places)
        filled, slots = pattern.ids.repeat(len(ids), 1), pattern.slots.repeat(len(ids), 1)
        filled[:, places] = ids
        slots[:, places] = -1
        alike = int((ids == ids[:1]).all(dim=0).long().cumprod(dim=0)[:-1].sum())  # places that need not be computed for each prompt
        if free is not None:
            filled[:, places[free]], slots[:, places[free]] = pattern.ids[0, places[free]], self.contexts
            alike = min(alike, free)
        return PromptLayout(filled, slots, pattern.end.repeat(len(ids)), min(pattern.shared, places[alike]))
