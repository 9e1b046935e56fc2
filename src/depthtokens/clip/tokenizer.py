"""Words to token ids, without the start and end tokens, for whatever tokenizer a CLIP came with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from ..errors import UsageError

_BEFORE = "a"
"""A word that stands before a piece of text while it is tokenized, as another does in the prompt."""


@dataclass(frozen=True)
class Tokenizer:
    """A CLIP's vocabulary as prompts need it: pieces of text to ids, and the ids that stand around every text.

    Attributes:
        tokenizer: open_clip's own.
        start: ids before every text.
        end: ids after every text; the last is the end-of-text token.
        pad: the id that fills up positions behind the end.
        closing: ids behind the padding, in the last places of the context.
    """

    tokenizer: Any
    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    closing: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any) -> Tokenizer:
        """Wrap open_clip's `SimpleTokenizer` (CLIP's BPE) or its `HFTokenizer`. Raises UsageError for one that prompts cannot follow."""
        if hasattr(tokenizer, "sot_token_id"):
            return cls(tokenizer, (tokenizer.sot_token_id,), (tokenizer.eot_token_id,), 0)
        inner = tokenizer.tokenizer
        clips = tokenizer.tokenizer_mode == "clips"
        around = (inner.bos_token_id, inner.eos_token_id, inner.cls_token_id) if clips else ()
        if tokenizer.tokenizer_mode not in ("", "clips") or inner.padding_side != "right" or None in (inner.pad_token_id, *around):
            raise UsageError("this CLIP's tokenizer fills up texts in a way that prompts with vectors cannot follow: use another CLIP")
        if clips:
            return cls(tokenizer, around[:1], around[1:2], inner.pad_token_id, around[2:])
        framed, bare = inner(_BEFORE).input_ids, inner(_BEFORE, add_special_tokens=False).input_ids
        at = next(i for i in count() if framed[i : i + len(bare)] == bare or i == len(framed))
        if at == len(framed):
            raise UsageError("this CLIP's tokenizer changes a text where it puts tokens around it, which prompts cannot follow")
        frame = [0 if _stripped(tokenizer, index) else index for index in framed]
        return cls(tokenizer, tuple(frame[:at]), tuple(frame[at + len(bare) :]), inner.pad_token_id)

    @property
    def marks_ends(self) -> bool:
        """Whether the vocabulary marks the ends of words, as CLIP's BPE does, so that an entry without a mark is a fragment."""
        return hasattr(self.tokenizer, "encoder")

    @property
    def stand_in(self) -> int:
        """The id that stands where a vector does: no padding and no end, for which towers look among the ids, and as small as can be."""
        return next(i for i in count() if i not in (self.pad, *self.end, *self.closing))

    def ids(self, text: str, first: bool = False) -> list[int]:
        """Ids of a piece of text.

        A piece gets the ids that it has in the whole text where the tokenizer works word by word. Many write the space before a word into
        its entry, so a piece is tokenized as what follows a word.

        Args:
            text: the piece; to what stands before it, it is joined by a space.
            first: whether a prompt begins with it.
        """
        if self.marks_ends:
            return list(self.tokenizer.encode(text))
        if not first:
            before, whole = self.ids(_BEFORE, first=True), self.ids(f"{_BEFORE} {text}", first=True)
            if whole[: len(before)] == before:
                return whole[len(before) :]
        found = self.tokenizer.tokenizer(self.tokenizer.clean_fn(text), add_special_tokens=False).input_ids
        return [0 if _stripped(self.tokenizer, index) else index for index in found]

    def text(self, ids: Sequence[int]) -> str:
        """What entries say as text, of which `ids` may make others: of two fragments one word, of a fragment at the end a whole one."""
        return str((self.tokenizer if self.marks_ends else self.tokenizer.tokenizer).decode(list(ids))).strip()

    def vocabulary(self) -> dict[str, int]:
        """Every entry's name and id."""
        return dict(self.tokenizer.encoder if self.marks_ends else self.tokenizer.tokenizer.get_vocab())

    def token_id(self, token: str) -> int:
        """Id of one entry of CLIP's vocabulary.

        Args:
            token: the entry. Of CLIP's BPE, without `</w>`: its word-final form (`token</w>`) is taken, or the fragment where there is only
                that. Of another vocabulary, a word that is one entry, or else an entry's own name.

        Raises:
            UsageError: where the vocabulary has neither.
        """
        if self.marks_ends:
            encoder = self.tokenizer.encoder
            found = [encoder[form] for form in (f"{token}</w>", token) if form in encoder]
        else:
            inner, found = self.tokenizer.tokenizer, self.ids(token)
            if len(found) != 1 or found[0] == inner.unk_token_id:
                index = inner.convert_tokens_to_ids(token)
                found = [index] if index is not None and inner.convert_ids_to_tokens(index) == token else []
        if not found:
            raise UsageError(f"'{token}' is not a single token of this CLIP's vocabulary")
        return int(found[0])


def _stripped(tokenizer: Any, index: int) -> bool:
    """Whether open_clip puts a 0 in the place of an id, as it does with BERT's separator for CLIPA."""
    return bool(tokenizer.strip_sep_token) and index == tokenizer.tokenizer.sep_token_id
