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


class TextTower:
    """The text side of an open_clip model, in either layout (`CLIP` keeps it flat, `CustomTextCLIP` under `.text`).

    causal: whether features can be read from a sequence cut at end-of-text, with the prefix shared (`shared_prefix`); towers that
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

    def shared_prefix(self, prefix: Tensor, suffix: Tensor, last: Tensor) -> Tensor:
        """Features of N prompts that begin alike, exact for causal towers (nothing after end-of-text reaches it).

        prefix [P, width], suffix [N, S, width]: token embeddings without position; last [N]: index of end-of-text in the suffix.
        Returns [N, C], not normalised. The prefix's keys and values are computed once and attended to by every prompt.
        """
        tower, length, own = self.tower, prefix.shape[0], suffix.shape[1]
        position = tower.positional_embedding
        shared, x = (prefix + position[:length])[None], suffix + position[length : length + own]
        mask = torch.ones(own, length + own, dtype=torch.bool, device=x.device).tril(diagonal=length)
        rows = torch.arange(x.shape[0], device=x.device)
        blocks = list(tower.transformer.resblocks)
        for block in blocks:
            final = block is blocks[-1]
            q, k, v = _queries_keys_values(block, x)
            shared_q, shared_k, shared_v = _queries_keys_values(block, shared)
            k = torch.cat([shared_k.expand(len(x), -1, -1, -1), k], dim=2)
            v = torch.cat([shared_v.expand(len(x), -1, -1, -1), v], dim=2)
            if final:  # only end-of-text is read: nothing else needs the last block
                attended = F.scaled_dot_product_attention(q[rows, :, last, None], k, v, attn_mask=mask[last, None, None])
                return self._project(_finish(block, x[rows, last, None], attended)[:, 0])
            x = _finish(block, x, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
            shared = _finish(block, shared, F.scaled_dot_product_attention(shared_q, shared_k, shared_v, is_causal=True))
        raise AssertionError("a transformer has at least one block")

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


def _queries_keys_values(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, L, width] -> three tensors [B, heads, L, width / heads]."""
    attn = block.attn
    qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def _finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a residual block after attention [B, heads, L, width / heads]."""
    x = x + block.ls_1(block.attn.out_proj(attended.transpose(1, 2).flatten(2)))
    return cast(Tensor, x + block.ls_2(block.mlp(block.ln_2(x))))
