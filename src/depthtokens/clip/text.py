"""Embeddings to text features: the text tower of any open_clip model, entered after the token lookup.

open_clip's `encode_text` takes ids only and always runs the full context. Here a prompt may hold vectors that have no id; causal
towers are run up to the end-of-text token and no further; and what all prompts of a call share (their prefix) is computed once. Other
towers run their own forward pass, in batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .device import stamp

PrefixStates = list[tuple[Tensor, Tensor]]
"""Keys and values [heads, P, width / heads] of a prefix of P positions, block by block."""
PREFIXES_KEPT = 16
"""Prefixes of ordinary words whose states a tower keeps; the oldest goes first."""
FEW = 4
"""Own positions per prompt up to which attention is written out position by position, which is then faster than matrix products."""
POSITIONS = 2048
"""Positions that a tower's own forward pass is given at a time, which bounds its memory."""


class TextTower:
    """The text side of an open_clip model. The twin of `image.ImageTower`.

    Attributes:
        model: the whole open_clip model.
        tower: its text side: the model itself in open_clip's `CLIP` layout, `model.text` in its `CustomTextCLIP` layout.
        embedding: the token embedding, with the scaling that some towers put on it; a vector stands for what comes out of it.
        width: numbers per token embedding, and so per vector in a prompt.
        context_length: positions in its longest prompt.
        masks_padding: whether padding changes nothing, as in most text models of Hugging Face, so that `full_length` takes prompts without
            it.
        causal: whether features can be read from a sequence cut at end-of-text, with the prefix shared (`after_prefix`); towers that
            are bidirectional, pool elsewhere, append a class token or are not open_clip's own take `full_length`.

    Args:
        model: an open_clip model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        tower: Any = getattr(model, "text", model)
        transformer = tower.transformer
        self.tower = tower
        self.embedding: nn.Embedding = tower.token_embedding if hasattr(tower, "token_embedding") else transformer.get_input_embeddings()
        self.width = self.embedding.embedding_dim
        foreign = isinstance(tower, HFTextEncoder)
        self.masks_padding = foreign or getattr(tower, "masks_padding", False)
        # Text models of Hugging Face have positions for more, or no end of them: open_clip trains all at the length it has for CLIP's own.
        context: Any = DEFAULT_CONTEXT_LENGTH if foreign else getattr(tower, "context_length", None) or model.context_length
        self.context_length = int(context)
        pool = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", None)
        self.causal = (
            isinstance(transformer, Transformer)
            and all(type(block) is ResidualAttentionBlock for block in transformer.resblocks)
            and getattr(tower, "attn_mask", None) is not None
            and getattr(tower, "cls_emb", None) is None
            and pool in ("argmax", "eos")
        )
        self._kept: dict[tuple[int, ...], PrefixStates] = {}
        self._kept_of: tuple[Any, ...] = ()

    def forget(self) -> None:
        """Drop the prefixes that are kept."""
        self._kept.clear()

    def stamp(self) -> tuple[Any, ...]:
        """What tells a prefix's weights from changed ones; see `device.stamp`."""
        if not self.causal:  # nothing is kept
            return ()
        parts = (self.embedding, self.tower.transformer)
        weights = (self.tower.positional_embedding, *(weight for part in parts for weight in part.parameters()))
        return stamp(weights)

    def lookup(self, ids: Sequence[int]) -> Tensor:
        """What the tower looks up for n ids: [n, width], without gradient, where the tower is."""
        with torch.no_grad():
            return cast(Tensor, self.embedding(torch.tensor(ids, device=self.embedding.weight.device)))

    def prefix_states(self, prefix: Tensor) -> PrefixStates:
        """What later positions read of a prefix: each block's keys and values.

        Args:
            prefix: [P, width], token embeddings without position embedding.
        """
        x = (prefix + self.tower.positional_embedding[: len(prefix)])[None]
        states = []
        for block in self.tower.transformer.resblocks:
            q, k, v = _heads(block, F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias), 3)
            states.append((k[0].transpose(0, 1), v[0].transpose(0, 1)))
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            x = _finish(block, x, F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2))
        return states

    def word_prefix_states(self, ids: Tensor, words: tuple[int, ...]) -> PrefixStates:
        """`prefix_states` of ordinary words: computed once, and kept for the next call.

        They are computed anew where the tower has moved, has another type or other weights; only what is written through `.data` into the
        same memory is not noticed.

        Args:
            ids: [P], on the tower's device.
            words: the same ids, which need not be read from there.
        """
        if torch.compiler.is_compiling():  # a graph keeps nothing
            return self.prefix_states(self.embedding(ids))
        if self._kept_of != (stamp := self.stamp()):
            self._kept, self._kept_of = {}, stamp
        if words not in self._kept:
            if len(self._kept) == PREFIXES_KEPT:
                self._kept.pop(next(iter(self._kept)))
            # What inference mode makes cannot be trained on later, and half precision would stay.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
                self._kept[words] = self.prefix_states(self.embedding(ids))
        return self._kept[words]

    def after_prefix(self, states: PrefixStates, suffix: Tensor, last: Tensor) -> Tensor:
        """Features of N prompts that begin alike; each prompt costs only the positions that are its own.

        Exact for causal towers, in which nothing behind the end-of-text token reaches it.

        Args:
            states: of the prefix that all prompts share, from `prefix_states`.
            suffix: [N, S, width], token embeddings of what follows it, without position embedding.
            last: [N], the position in the suffix that is read: that of end-of-text.

        Returns:
            [N, C], not normalised.
        """
        length, own = states[0][0].shape[1], suffix.shape[1]
        x = suffix + self.tower.positional_embedding[length : length + own]
        hidden = torch.full((own, own), -torch.inf, device=x.device, dtype=x.dtype).triu(diagonal=1)
        rows = torch.arange(len(x), device=x.device)
        for i, (block, (shared_k, shared_v)) in enumerate(zip(self.tower.transformer.resblocks, states, strict=True)):
            attn, y = block.attn, block.ln_1(x)
            if i < len(states) - 1:
                q, k, v = _heads(block, F.linear(y, attn.in_proj_weight, attn.in_proj_bias), 3)
                mask = hidden
            else:  # only the position that is read needs the last block's queries and what follows them
                width = y.shape[-1]
                k, v = _heads(block, F.linear(y, attn.in_proj_weight[width:], attn.in_proj_bias[width:]), 2)
                (q,) = _heads(block, F.linear(y[rows, last, None], attn.in_proj_weight[:width], attn.in_proj_bias[:width]), 1)
                x, mask = x[rows, last, None], hidden[last, None]
            x = _finish(block, x, _attend(q, k, v, shared_k, shared_v, mask))
        return self._project(x[:, 0])

    def full_length(self, ids: Tensor, slots: Tensor, vectors: Tensor | None) -> Tensor:
        """Features by the tower's own forward pass, with vectors put in behind its token lookup.

        Prompts go through it a few at a time. Where a gradient is asked for and they are more than that, each batch is computed once more
        for it instead of being remembered.

        Args:
            ids: [N, L], where L is the context length unless the tower masks padding. Where a vector goes, `Tokenizer.stand_in` stands,
                and what that looks up is replaced.
            slots: [N, L], index into `vectors`, -1 where a word stands.
            vectors: [V, width], None where there are only words.

        Returns:
            [N, C], not normalised.
        """
        size = max(1, POSITIONS // ids.shape[1])
        if len(ids) <= size:
            return self._own_pass(ids, slots, vectors)
        batches = zip(ids.split(size), slots.split(size), strict=True)
        if vectors is None or not (torch.is_grad_enabled() and vectors.requires_grad):
            return torch.cat([self._own_pass(*batch, vectors) for batch in batches])
        return torch.cat([
            checkpoint(self._own_pass, *batch, vectors, use_reentrant=False, preserve_rng_state=False) for batch in batches
        ])  # fmt: skip

    def _own_pass(self, ids: Tensor, slots: Tensor, vectors: Tensor | None) -> Tensor:
        """`full_length` of one batch."""

        def replace(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            return put(embedded, slots, vectors)

        handle = self.embedding.register_forward_hook(replace)
        try:
            return cast(Tensor, self.model.encode_text(ids))
        finally:
            handle.remove()

    def _project(self, x: Tensor) -> Tensor:
        """The tower's final norm and projection, [N, width] -> [N, C]."""
        x = self.tower.ln_final(x)
        projection = self.tower.text_projection
        if projection is None:
            return x
        return cast(Tensor, projection(x)) if isinstance(projection, nn.Linear) else x @ projection


def put(embedded: Tensor, slots: Tensor, vectors: Tensor | None) -> Tensor:
    """Put vectors in the place of token embeddings.

    Args:
        embedded: [..., L, width], token embeddings.
        slots: [..., L], index into `vectors`, -1 where the embedding stays.
        vectors: [V, width], None where all embeddings stay.

    Returns:
        [..., L, width].
    """
    if vectors is None:
        return embedded
    return torch.where((slots >= 0)[..., None], vectors[slots.clamp(min=0)].to(embedded.dtype), embedded)


def _heads(block: Any, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
    """[N, L, parts * width] -> `parts` tensors [N, L, heads, width / heads]."""
    return projected.unflatten(-1, (parts, block.attn.num_heads, -1)).unbind(2)


def _attend(q: Tensor, k: Tensor, v: Tensor, shared_k: Tensor, shared_v: Tensor, mask: Tensor) -> Tensor:
    """Attention of q [N, Q, heads, d] to a shared prefix [heads, P, d] and to own positions k, v [N, S, heads, d]; as q in shape.

    The prefix is not copied for each prompt. A prompt has mostly two positions of its own: sums over those, written out, are faster
    than thousands of tiny matrix products.
    """
    length, own = shared_k.shape[1], k.shape[1]
    few = own <= FEW
    to_prefix = torch.einsum("nqhd,hpd->nqhp", q, shared_k)
    to_own = torch.stack([(q * key[:, None]).sum(dim=-1) for key in k.unbind(1)], dim=-1) if few else torch.einsum("nqhd,nshd->nqhs", q, k)
    similarities = torch.cat([to_prefix, to_own + mask[..., None, :]], dim=-1) * q.shape[-1] ** -0.5
    over_prefix, over_own = similarities.softmax(dim=-1).split([length, own], dim=-1)
    attended = torch.einsum("nqhp,hpd->nqhd", over_prefix, shared_v)
    if not few:
        return attended + torch.einsum("nqhs,nshd->nqhd", over_own, v)
    for weight, value in zip(over_own.unbind(-1), v.unbind(1), strict=True):
        attended = torch.addcmul(attended, weight[..., None], value[:, None])
    return attended


def _finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a residual block after attention [N, L, heads, width / heads]."""
    x = x + block.ls_1(block.attn.out_proj(attended.flatten(2)))
    return cast(Tensor, x + block.ls_2(block.mlp(block.ln_2(x))))
