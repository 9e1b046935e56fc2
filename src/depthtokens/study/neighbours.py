"""Which words lie near what was learned: the whole vocabulary put into a template, and distances to it (paper, table 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.tokenizer import Tokenizer
from ..depth.model import DepthTokens
from ..errors import UsageError, unknown
from ..prompt.encoder import PromptEncoder, PromptLayout
from ..prompt.template import parse_template
from ..prompt.tokens import vectors_from_words

SPACES = ("embedding", "token")
Progress = Callable[[int, int], None]
"""Called with the number of tokens done and their total."""


@dataclass(frozen=True)
class Neighbour:
    """A vocabulary token, or another depth word of the same model as "{depth_3}", and its Euclidean distance."""

    name: str
    distance: float


def nearest_words(
    model: DepthTokens,
    vocabulary: Sequence[str | int] | None = None,
    count: int = 5,
    template: str = "baseline",
    chunk: int = 512,
    *,
    space: str = "embedding",
    position: int | None = None,
    progress: Progress | None = None,
) -> list[list[Neighbour]]:
    """The `count` nearest neighbours of each of a model's N depth words, learned, random or human, nearest first.

    vocabulary, template, chunk, progress: as in `vocabulary_features`. space "embedding": every vocabulary entry is put into
    `template`, embedded and L2-normalised, and compared with the model's own text features, as in the paper. "token": the vectors
    that stand for {depth} against the rows of the token embedding, before any sentence (a phrase counts as the mean of its tokens).
    A model's depth words are neighbours of each other too. position: read every prompt there instead of at end-of-text, see
    `features_at`. Raises UsageError for another space, or a position in the space of tokens.
    """
    if space not in SPACES:
        raise unknown("space of neighbours", space, SPACES)
    if space == "token":
        if position is not None:
            raise UsageError("a position is where a sentence is read: the space of tokens has none")
        names, ids = vocabulary_entries(model.clip.tokenizer, vocabulary)
        embedding = model.clip.text.embedding.weight.detach()
        own = depth_vectors(model)
        return nearest(own.to(embedding.device), embedding[torch.tensor(ids)].float(), names, count)
    with torch.inference_mode():
        if position is None:
            own = model.text_features()
        else:
            own = F.normalize(features_at(model.encoder, model.layout, position, model.vectors()), dim=-1)
    names, features = vocabulary_features(model.encoder, template, vocabulary, chunk, position, progress=progress)
    return nearest(own, features.to(own.device), names, count)


def nearest(own: Tensor, others: Tensor, names: Sequence[str], count: int) -> list[list[Neighbour]]:
    """The `count` nearest of each row of own [N, C]: among others [V, C], called by `names`, and the other rows of own, "{depth_i}"."""
    with torch.inference_mode():
        # Matrix products would leave equal rows some 1e-3 apart, and 0.000 is what a reader of this table looks for
        distances = torch.cdist(own, torch.cat([own, others]), compute_mode="donot_use_mm_for_euclid_dist")
        distances.fill_diagonal_(float("inf"))  # a depth word is not its own neighbour
        values, order = distances.topk(min(count, distances.shape[1] - 1), largest=False)
    called = [*(f"{{depth_{i}}}" for i in range(len(own))), *names]
    return [[Neighbour(called[j], d) for d, j in zip(*row, strict=True)] for row in zip(values.tolist(), order.tolist(), strict=True)]


def depth_vectors(model: DepthTokens) -> Tensor:
    """What stands for {depth} before the text tower: [N, width] float32, for words the mean of their token embeddings."""
    if "depth" in model.tokens:
        return model.vectors().detach()[-len(model.centres) :].float()  # context vectors come first
    return vectors_from_words(model.clip, model.settings["depth"], len(model.words))


def vocabulary_entries(tokenizer: Tokenizer, tokens: Sequence[str | int] | None = None) -> tuple[list[str], list[int]]:
    """Names and ids of vocabulary entries: all of them (None) in the order of ids, or `tokens`.

    A token is an id, or a text as `prompt.scales.Token` takes it: the word-final form unless there is only a fragment; in CLIP's BPE
    a final form is called "close</w>", and a fragment, which other letters follow, "close". Raises UsageError for one that is unknown.
    """
    inner = tokenizer.tokenizer
    table: dict[str, int] = inner.encoder if hasattr(inner, "encoder") else inner.tokenizer.get_vocab()
    if tokens is None:
        names = sorted(table, key=table.__getitem__)
        return names, [table[name] for name in names]
    by_id = {index: name for name, index in table.items()}
    names, ids = [], []
    for token in tokens:
        index = tokenizer.token_id(token) if isinstance(token, str) else token
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
    progress: Progress | None = None,
) -> tuple[list[str], Tensor]:
    """Every vocabulary entry in a template: names, and features [V, C] float32 on the CPU, L2-normalised.

    template: as in `DepthTokens`; context [slots, width] fills its {ctx} slots. tokens: as in `vocabulary_entries`, None for the
    whole vocabulary. chunk: prompts encoded at a time, which bounds memory beside the result. position: as in `features_at`.
    Raises UsageError for {ctx} slots without as many vectors.
    """
    parsed = parse_template(template)
    if parsed.contexts != (0 if context is None else len(context)):
        raise UsageError(f"the template '{parsed.text}' has {parsed.contexts} {{ctx}} slots: give as many context vectors")
    names, ids = vocabulary_entries(encoder.clip.tokenizer, tokens)
    # All prompts are alike but for one id, so one layout with a marked place serves them all
    pattern = encoder.layout([parsed.fill([parsed.contexts])])
    place = int((pattern.slots[0] == parsed.contexts).nonzero())
    rows: list[Tensor] = []
    for start in range(0, len(ids), chunk):
        part = torch.tensor(ids[start : start + chunk])
        layout = _filled(pattern, place, part)
        with torch.inference_mode():
            features = encoder.encode(layout, context) if position is None else features_at(encoder, layout, position, context)
            rows.append(F.normalize(features.float(), dim=-1).cpu())
        if progress:
            progress(start + len(part), len(ids))
    return names, torch.cat(rows)


def _filled(pattern: PromptLayout, place: int, ids: Tensor) -> PromptLayout:
    """One prompt per id [n], at the marked `place` of a layout of a single prompt."""
    filled, slots = pattern.ids.repeat(len(ids), 1), pattern.slots.repeat(len(ids), 1)
    filled[:, place] = ids
    slots[:, place] = -1
    return PromptLayout(filled, slots, pattern.end.repeat(len(ids)), min(pattern.shared, place))


def features_at(encoder: PromptEncoder, layout: PromptLayout, position: int, vectors: Tensor | None = None) -> Tensor:
    """Features [N, C] of prompts read at a fixed `position` (the start token is 0) instead of at end-of-text; not normalised.

    Behind its end a prompt has the tokenizer's padding, as in CLIP. Exact for causal towers, where nothing behind a position reaches
    it. Raises UsageError for other towers, and a position outside the context.
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
