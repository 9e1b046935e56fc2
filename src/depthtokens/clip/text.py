"""Embeddings to text features: the text tower of any open_clip model, entered after the token lookup.

open_clip's `encode_text` takes ids only and always runs the full context. Here a prompt may hold vectors that have no id, causal
towers stop at the end-of-text token, and what all prompts of a call share (their prefix) is computed once.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import Tensor, nn

PrefixStates = list[tuple[Tensor, Tensor]]
"""Keys and values [heads, P, width / heads] of a prefix of P positions, block by block."""
PREFIXES_KEPT = 16
FEW = 4


class TextTower:
    """The text side of an open_clip model, in either layout (`CLIP` keeps it flat, `CustomTextCLIP` under `.text`).

    causal: whether features can be read from a sequence cut at end-of-text, with the prefix shared (`after_prefix`); towers that
    are bidirectional, pool elsewhere, append a class token or are not open_clip's own take `full_length`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        tower: Any = getattr(model, "text", model)
        transformer = tower.transformer
        self.tower = tower
        self.embedding: nn.Embedding = tower.token_embedding if hasattr(tower, "token_embedding") else transformer.get_input_embeddings()
        self.width = self.embedding.embedding_dim
        context: Any = getattr(tower, "context_length", None) or self.model.context_length
        self.context_length = int(context)
        pool = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", None)
        self.causal = (
            isinstance(transformer, Transformer)
            and all(type(block) is ResidualAttentionBlock for block in transformer.resblocks)
            and getattr(tower, "attn_mask", None) is not None
            and getattr(tower, "cls_emb", None) is None
            and pool in ("argmax", "eos")
        )
        self._kept: dict[tuple[Any, ...], PrefixStates] = {}

    def prefix_states(self, prefix: Tensor) -> PrefixStates:
        """What later positions read of a prefix [P, width] of token embeddings without position: each block's keys and values."""
        x = (prefix + self.tower.positional_embedding[: len(prefix)])[None]
        states = []
        for block in self.tower.transformer.resblocks:
            q, k, v = _heads(block, F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias), 3)
            states.append((k[0].transpose(0, 1), v[0].transpose(0, 1)))
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            x = _finish(block, x, F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2))
        return states

    def word_prefix_states(self, ids: Tensor) -> PrefixStates:
        """`prefix_states` of ordinary words, ids [P]: computed once, since the tower is frozen, and kept for the next call."""
        key = (ids.device, *ids.tolist())
        if key not in self._kept:
            if len(self._kept) == PREFIXES_KEPT:
                self._kept.pop(next(iter(self._kept)))
            # What inference mode makes cannot be trained on later, and half precision would stay.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
                self._kept[key] = self.prefix_states(self.embedding(ids))
        return self._kept[key]

    def after_prefix(self, states: PrefixStates, suffix: Tensor, last: Tensor) -> Tensor:
        """Features of N prompts that begin alike, exact for causal towers (nothing after end-of-text reaches it).

        states: of the prefix; suffix [N, S, width]: token embeddings without position; last [N]: index of the position that is read
        (end-of-text) in the suffix. Returns [N, C], not normalised. Every prompt pays for its own positions alone.
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

        ids [N, context_length]: an ordinary word's id stands in for each slot, and what it looks up is replaced; slots the same
        shape: index into vectors [V, width], -1 where a word stands. Returns [N, C], not normalised.
        """

        def replace(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            return put(embedded, slots, vectors)

        handle = self.embedding.register_forward_hook(replace)
        try:
            return cast(Tensor, self.model.encode_text(ids))
        finally:
            handle.remove()

    def _project(self, x: Tensor) -> Tensor:
        x = self.tower.ln_final(x)
        projection = self.tower.text_projection
        if projection is None:
            return x
        return cast(Tensor, projection(x)) if isinstance(projection, nn.Linear) else x @ projection


def put(embedded: Tensor, slots: Tensor, vectors: Tensor | None) -> Tensor:
    """Replace embeddings [..., L, width] by vectors [V, width] wherever slots [..., L] is not -1."""
    if vectors is None:
        return embedded
    return torch.where((slots >= 0)[..., None], vectors[slots.clamp(min=0)].to(embedded.dtype), embedded)


def _heads(block: Any, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
    """[N, L, parts * width] -> `parts` tensors [N, L, heads, width / heads]."""
    return projected.unflatten(-1, (parts, block.attn.num_heads, -1)).unbind(2)


def _attend(q: Tensor, k: Tensor, v: Tensor, shared_k: Tensor, shared_v: Tensor, mask: Tensor) -> Tensor:
    """Attention of q [N, Q, heads, d] to a shared prefix [heads, P, d] and to own positions k, v [N, S, heads, d]; as q in shape.

    The prefix is never copied per prompt. Own positions are mostly two, and products over them are faster written out than as
    thousands of tiny matrices.
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
