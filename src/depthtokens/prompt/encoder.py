"""Prompts of words and vectors to text features, with exact gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..clip.load import FrozenCLIP
from ..clip.text import put
from ..errors import UsageError
from .template import Segment


@dataclass(frozen=True)
class PromptLayout:
    """N prompts as positions: which hold a vocabulary id, which an inserted vector. Vectors never get an id of their own.

    ids, slots: [N, L] int64, L the longest prompt with its end token; slots is the index of a vector, -1 where a word stands (ids
    there is the word's; under a vector it is the start token's, which is never looked up). end: [N] position of end-of-text, where
    causal towers are read. shared: number of leading positions in which all prompts agree, all before end-of-text.
    """

    ids: Tensor
    slots: Tensor
    end: Tensor
    shared: int


class PromptEncoder(nn.Module):
    """Text features of prompts made of any mix of words and vectors, from a frozen CLIP of any kind that open_clip loads.

    >>> encoder = PromptEncoder(clip)
    >>> features = encoder(["a photo of a cat", ["This object appears to be", vector]])   # [2, C], gradient flows to `vector`

    Equal to open_clip's `encode_text` for plain words. Causal towers (all of OpenAI's) run cut at end-of-text with the prompts'
    common prefix computed once; other towers run at full length.
    """

    def __init__(self, clip: FrozenCLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, prompts: Sequence[str | Sequence[str | Segment | Tensor]]) -> Tensor:
        """Encode prompts; each is text, or a sequence of text, vocabulary `Token`s and vectors ([width], or [k, width] for k positions).

        Returns [N, C], not normalised. Raises UsageError for a prompt longer than the CLIP's context or a vector of another width.
        """
        vectors: list[Tensor] = []
        count = 0
        indexed: list[list[Segment]] = []
        for prompt in prompts:
            segments: list[Segment] = []
            for piece in [prompt] if isinstance(prompt, str) else prompt:
                if not isinstance(piece, Tensor):
                    segments.append(piece)
                    continue
                rows = piece.reshape(-1, piece.shape[-1])
                if rows.shape[1] != self.clip.text.width:
                    raise UsageError(f"a vector of width {rows.shape[1]} in a prompt: this CLIP's text tower has {self.clip.text.width}")
                vectors.append(rows)
                segments.extend(range(count, count + len(rows)))
                count += len(rows)
            indexed.append(segments)
        return self.encode(self.layout(indexed), torch.cat(vectors) if vectors else None)

    def layout(self, prompts: Sequence[Sequence[Segment]]) -> PromptLayout:
        """Positions of prompts whose vectors are given as indices (int) into a table that `encode` gets.

        Raises UsageError for no prompt at all, or one longer than the CLIP's context.
        """
        if not prompts:
            raise UsageError("no prompts to encode")
        tokenizer = self.clip.tokenizer
        rows: list[tuple[list[int], list[int]]] = []
        for prompt in prompts:
            ids, slots = list(tokenizer.start), [-1] * len(tokenizer.start)
            for segment in prompt:
                new = (
                    [tokenizer.start[0] if tokenizer.start else 0]
                    if isinstance(segment, int)
                    else (tokenizer.ids(segment) if isinstance(segment, str) else [tokenizer.token_id(segment.text)])
                )
                ids += new
                slots += [segment if isinstance(segment, int) else -1] * len(new)
            ids += tokenizer.end
            slots += [-1] * len(tokenizer.end)
            if len(ids) > self.clip.text.context_length:
                raise UsageError(f"a prompt of {len(ids)} tokens is longer than this CLIP's context of {self.clip.text.context_length}")
            rows.append((ids, slots))
        length = max(len(ids) for ids, _ in rows)
        device = self.clip.text.embedding.weight.device
        padded_ids = torch.tensor([ids + [tokenizer.pad] * (length - len(ids)) for ids, _ in rows], device=device)
        padded_slots = torch.tensor([slots + [-1] * (length - len(slots)) for _, slots in rows], device=device)
        end = torch.tensor([len(ids) - 1 for ids, _ in rows], device=device)
        agree = ((padded_ids == padded_ids[:1]) & (padded_slots == padded_slots[:1])).all(dim=0)
        shared = int(agree.long().cumprod(dim=0).sum())
        return PromptLayout(padded_ids, padded_slots, end, min(shared, int(end.min())))

    def encode(self, layout: PromptLayout, vectors: Tensor | None = None) -> Tensor:
        """Features [N, C] of a layout, its slots filled from vectors [V, width]; not normalised."""
        text = self.clip.text
        if text.causal:
            embedded_prefix = put(text.embedding(layout.ids[0, : layout.shared]), layout.slots[0, : layout.shared], vectors)
            embedded_suffix = put(text.embedding(layout.ids[:, layout.shared :]), layout.slots[:, layout.shared :], vectors)
            return text.shared_prefix(embedded_prefix, embedded_suffix, layout.end - layout.shared)
        missing = text.context_length - layout.ids.shape[1]
        ids = nn.functional.pad(layout.ids, (0, missing), value=self.clip.tokenizer.pad)
        return text.full_length(ids, nn.functional.pad(layout.slots, (0, missing), value=-1), vectors)
