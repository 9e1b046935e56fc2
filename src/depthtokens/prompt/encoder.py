"""Prompts of words and vectors to text features, with exact gradients."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.device import may_read
from ..clip.load import FrozenCLIP
from ..clip.text import put
from ..errors import UsageError
from .scales import Token, Word
from .template import Segment
from .tokens import word_ids


@dataclass(frozen=True)
class PromptLayout:
    """N prompts as positions, each of which holds a vocabulary id or an inserted vector.

    Vectors have no id of their own.

    Attributes:
        ids: [N, L] int64, L the length of the longest prompt with its end token. Where a vector stands, the id is the tokenizer's
            `stand_in` and of no effect: what it looks up is replaced.
        slots: [N, L] int64, index of the vector that stands there, -1 for a word.
        end: [N] int64, position of end-of-text, where causal towers are read.
        shared: number of positions at the beginning in which all prompts agree; all lie before end-of-text.
        vectors: how many vectors a table needs for these slots.
        prefix: the ids in the shared positions; None where a vector stands in one of them.
    """

    ids: Tensor
    slots: Tensor
    end: Tensor
    shared: int
    vectors: int = field(init=False)
    prefix: tuple[int, ...] | None = field(init=False)
    _placed: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:  # numbers are taken out of tensors here, once: nothing is compiled yet, and no GPU has to be asked
        object.__setattr__(self, "vectors", int(self.slots.max()) + 1)
        words = bool((self.slots[0, : self.shared] < 0).all())
        object.__setattr__(self, "prefix", tuple(self.ids[0, : self.shared].tolist()) if words else None)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """`ids`, `slots` and `end` on a device, where they stay for the next call."""
        if device == self.ids.device:
            return self.ids, self.slots, self.end
        if device not in self._placed:
            with torch.inference_mode(False):  # what inference mode makes cannot be trained with later
                self._placed[device] = (self.ids.to(device), self.slots.to(device), self.end.to(device))
        return self._placed[device]


def joined(layouts: Sequence[PromptLayout], vectors: Sequence[int]) -> PromptLayout:
    """Several layouts as one, whose tables of vectors are joined one behind the other.

    Args:
        layouts: as `PromptEncoder.layout` makes them.
        vectors: how many vectors the table of each layout has.

    Raises:
        UsageError: for no layout, or another number of tables.
    """
    if not layouts or len(layouts) != len(vectors):
        raise UsageError(f"{len(layouts)} layouts with {len(vectors)} tables of vectors cannot be joined: each layout has one")
    length = max(layout.ids.shape[1] for layout in layouts)
    offsets = [sum(vectors[:i]) for i in range(len(vectors))]
    # What stands behind end-of-text is never read, so any id will do there.
    ids = torch.cat([F.pad(layout.ids, (0, length - layout.ids.shape[1])) for layout in layouts])
    slots = torch.cat([
        F.pad(torch.where(layout.slots >= 0, layout.slots + offset, -1), (0, length - layout.slots.shape[1]), value=-1)
        for layout, offset in zip(layouts, offsets, strict=True)
    ])  # fmt: skip
    return _layout(ids, slots, torch.cat([layout.end for layout in layouts]))


def _layout(ids: Tensor, slots: Tensor, end: Tensor) -> PromptLayout:
    """A layout, once it has been counted in how many positions its prompts agree."""
    agree = ((ids == ids[:1]) & (slots == slots[:1])).all(dim=0)
    return PromptLayout(ids, slots, end, min(int(agree.long().cumprod(dim=0).sum()), int(end.min())))


class PromptEncoder(nn.Module):
    """Text features of prompts made of any mix of words and vectors, from a frozen CLIP of any kind that `load_clip` loads.

    Equal to its own text features for plain words, and for text in pieces, which a space joins, where the tokenizer works word by word.
    Causal towers (all of OpenAI's) run cut at end-of-text with the prompts' common prefix computed once; other towers run at full length.

    Args:
        clip: from `load_clip`.

    Raises:
        UsageError: for anything else than a `FrozenCLIP`.

    Example:
        >>> from depthtokens import load_clip
        >>> clip = load_clip("bundled")
        >>> vector = torch.zeros(clip.text.width, requires_grad=True)
        >>> features = PromptEncoder(clip)(["a red ball", ["This object appears to be", vector]])
        >>> features.shape, features.requires_grad  # the gradient flows to `vector`
        (torch.Size([2, 256]), True)
    """

    def __init__(self, clip: FrozenCLIP) -> None:
        super().__init__()
        if not isinstance(clip, FrozenCLIP):
            raise UsageError(f"PromptEncoder wants a CLIP from load_clip, not a {type(clip).__name__}")
        self.clip = clip

    def forward(self, prompts: Sequence[str | Sequence[Word | Tensor]]) -> Tensor:
        """Encode prompts.

        Args:
            prompts: N of them. Each is text, or a sequence of text, vocabulary `Token`s and vectors ([width], or [k, width] for k
                positions).

        Returns:
            [N, C], not normalised.

        Raises:
            UsageError: for no prompt, one longer than the CLIP's context, a vector of another width or that is no number, or a piece of
                another kind.
        """
        if isinstance(prompts, str):
            raise UsageError("PromptEncoder takes a list of prompts, not one text: write [text]")
        if not isinstance(prompts, Iterable) or isinstance(prompts, Tensor):
            raise UsageError(f"PromptEncoder takes a list of prompts, not {_short(prompts)}")
        vectors: list[Tensor] = []
        count = 0
        indexed: list[list[Segment]] = []
        for prompt in prompts:
            segments: list[Segment] = []
            for piece in _pieces(prompt):
                if not isinstance(piece, Tensor):
                    if not isinstance(piece, Word):
                        raise UsageError(f"a prompt is made of text, Tokens and vectors (tensors), not of {_short(piece)}")
                    segments.append(piece)
                    continue
                self._check_vectors(piece, (1, 2))
                rows = piece.reshape(-1, piece.shape[-1]).to(self.clip.text.embedding.weight.device)
                vectors.append(rows)
                segments.extend(range(count, count + len(rows)))
                count += len(rows)
            indexed.append(segments)
        return self.encode(self.layout(indexed), torch.cat(vectors) if vectors else None)

    def layout(self, prompts: Sequence[Sequence[Segment]]) -> PromptLayout:
        """Positions of prompts whose vectors are given as indices.

        Args:
            prompts: each a sequence of text, vocabulary `Token`s, and int: index of a vector in the table that `encode` is given.

        Raises:
            UsageError: for no prompt at all, one longer than the CLIP's context, words that are not in the CLIP's vocabulary, or a piece
                of another kind.
        """
        if isinstance(prompts, str):
            raise UsageError("a layout takes a list of prompts, not one text: write [[text]]")
        if not len(prompts):
            raise UsageError("no prompts to encode")
        tokenizer = self.clip.tokenizer
        most = self.clip.text.context_length - len(tokenizer.closing)
        rows: list[tuple[list[int], list[int]]] = []
        for prompt in prompts:
            ids, slots = list(tokenizer.start), [-1] * len(tokenizer.start)
            for segment in _pieces(prompt):
                if not isinstance(segment, Word):
                    ids.append(tokenizer.stand_in)
                    slots.append(_slot(segment))
                else:
                    words = word_ids(self.clip, segment, first=len(ids) == len(tokenizer.start))
                    ids += words
                    slots += [-1] * len(words)
            ids += tokenizer.end
            slots += [-1] * len(tokenizer.end)
            if not ids:
                raise UsageError("an empty prompt: this CLIP's tokenizer puts nothing around words, so there must be some")
            if len(ids) > most:
                raise UsageError(f"a prompt of {len(ids)} tokens is longer than this CLIP's context of {most}")
            if max(ids) >= self.clip.text.embedding.num_embeddings:
                raise UsageError(f"a word of id {max(ids)} is not in this CLIP's vocabulary of {self.clip.text.embedding.num_embeddings}")
            rows.append((ids, slots))
        length = max(len(ids) for ids, _ in rows)
        padded_ids = torch.tensor([ids + [tokenizer.pad] * (length - len(ids)) for ids, _ in rows])
        padded_slots = torch.tensor([slots + [-1] * (length - len(slots)) for _, slots in rows])
        return _layout(padded_ids, padded_slots, torch.tensor([len(ids) - 1 for ids, _ in rows]))

    def encode(self, layout: PromptLayout, vectors: Tensor | None = None) -> Tensor:
        """Text features of prompts.

        Args:
            layout: N prompts.
            vectors: [V, width], the table that the layout's slots are filled from; None where it has none.

        Returns:
            [N, C], not normalised.

        Raises:
            UsageError: for a table of another shape, with too few vectors, or with vectors that are no numbers. In training, where a
                gradient is asked for, the latter is for the loss to notice; in a compiled graph and on a GPU for whoever reads its result.
        """
        text = self.clip.text
        count = 0
        if vectors is not None:
            self._check_vectors(vectors, (2,))
            count = len(vectors)
        if layout.vectors > count:
            raise UsageError(f"prompts with {layout.vectors} slots for vectors are given {count} vectors")
        features = self._encoded(layout, vectors if count else None)
        learning = torch.is_grad_enabled() and features.requires_grad
        if not learning and may_read(features) and not features.isfinite().all():
            raise UsageError(f"text features are NaN or infinite in {str(text.embedding.weight.dtype)[6:]}: use the text tower in float32")
        return features

    def _check_vectors(self, vectors: Tensor, axes: tuple[int, ...]) -> None:
        """Raise UsageError unless vectors have the text tower's width, one of the numbers of axes, and are numbers."""
        width = self.clip.text.width
        if not isinstance(vectors, Tensor) or vectors.ndim not in axes or not vectors.is_floating_point():
            found = f"{str(vectors.dtype)[6:]} {list(vectors.shape)}" if isinstance(vectors, Tensor) else f"a {type(vectors).__name__}"
            wanted = f"[k, {width}]{f' or [{width}]' if 1 in axes else ''}"
            raise UsageError(f"vectors of a prompt are floating-point tensors {wanted}, not {found}")
        if vectors.shape[-1] != width:
            raise UsageError(f"a vector of width {vectors.shape[-1]} in a prompt: this CLIP's text tower has {width}")
        if not may_read(vectors) or (torch.is_grad_enabled() and vectors.requires_grad):
            return
        good = vectors.isfinite().all(dim=-1)
        if not good.all():
            places = (~good).nonzero().flatten().tolist() if good.ndim else [0]
            raise UsageError(f"vector {places[0]} of a prompt holds NaN or infinite values: its training diverged, or its file is damaged")

    def _encoded(self, layout: PromptLayout, vectors: Tensor | None) -> Tensor:
        """`encode` behind its checks."""
        text = self.clip.text
        device = text.embedding.weight.device
        vectors = None if vectors is None else vectors.to(device)
        (ids, slots, end), shared = layout.on(device), layout.shared
        if text.causal:
            if layout.prefix is not None:
                states = text.word_prefix_states(ids[0, :shared], layout.prefix)
            else:
                states = text.prefix_states(put(text.embedding(ids[0, :shared]), slots[0, :shared], vectors))
            suffix = put(text.embedding(ids[:, shared:]), slots[:, shared:], vectors)
            return text.after_prefix(states, suffix, end - shared)
        if not text.masks_padding:
            tokenizer = self.clip.tokenizer
            missing = text.context_length - ids.shape[1]
            ids = F.pad(ids, (0, missing - len(tokenizer.closing)), value=tokenizer.pad)
            for index in tokenizer.closing:
                ids = F.pad(ids, (0, 1), value=index)
            slots = F.pad(slots, (0, missing), value=-1)
        return text.full_length(ids, slots, vectors)


def _pieces(prompt: Any) -> Iterable[Any]:
    """The pieces of a prompt, which may be a single one. Raises UsageError for what is neither."""
    if isinstance(prompt, str | Token | Tensor):
        return [prompt]
    if not isinstance(prompt, Iterable):
        raise UsageError(f"a prompt is text, or a list of pieces, not {_short(prompt)}")
    return prompt


def _slot(segment: Any) -> int:
    """An index of a vector. Raises UsageError for what is none."""
    try:
        slot = -1 if isinstance(segment, bool) else operator.index(segment)
    except TypeError:
        slot = -1
    if slot < 0:
        raise UsageError(f"a prompt's layout is made of text, Tokens and indices of vectors (0, 1, ...), not of {_short(segment)}")
    return slot


def _short(value: object) -> str:
    """A value in a few words, on one line."""
    return " ".join(reprlib.repr(value).split())
