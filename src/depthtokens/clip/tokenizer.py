"""Words to token ids, without the start and end tokens, for whatever tokenizer a CLIP came with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import UsageError


@dataclass(frozen=True)
class Tokenizer:
    """A CLIP's vocabulary as prompts need it: pieces of text to ids, and the ids that stand around every text.

    Attributes:
        tokenizer: open_clip's own.
        start: ids before every text.
        end: ids after every text; the last is the end-of-text token.
        pad: the id that fills up positions behind the end.
    """

    tokenizer: Any
    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int

    @classmethod
    def of(cls, tokenizer: Any) -> Tokenizer:
        """Wrap open_clip's `SimpleTokenizer` (CLIP's BPE) or its `HFTokenizer`. Raises UsageError for one that prompts cannot follow."""
        if hasattr(tokenizer, "sot_token_id"):
            return cls(tokenizer, (tokenizer.sot_token_id,), (tokenizer.eot_token_id,), 0)
        inner = tokenizer.tokenizer
        if getattr(tokenizer, "tokenizer_mode", ""):
            raise UsageError("this CLIP's tokenizer adds tokens of its own behind the padding, which prompts with vectors cannot follow")
        marker = inner.unk_token_id if inner.unk_token_id is not None else 5
        framed = inner.build_inputs_with_special_tokens([marker])
        at = framed.index(marker)
        return cls(tokenizer, tuple(framed[:at]), tuple(framed[at + 1 :]), inner.pad_token_id)

    def ids(self, text: str) -> list[int]:
        """Ids of a piece of text. BPE works word by word, so pieces split at white space get the ids they have in the whole text."""
        if hasattr(self.tokenizer, "encode"):
            return list(self.tokenizer.encode(text))
        return list(self.tokenizer.tokenizer(self.tokenizer.clean_fn(text), add_special_tokens=False).input_ids)

    def token_id(self, token: str) -> int:
        """Id of one entry of CLIP's vocabulary.

        Args:
            token: the entry, without `</w>`. Its word-final form (`token</w>`) is taken, or the fragment where there is only that.

        Raises:
            UsageError: where the vocabulary has neither.
        """
        encoder = getattr(self.tokenizer, "encoder", {})
        for form in (f"{token}</w>", token):
            if form in encoder:
                return int(encoder[form])
        raise UsageError(f"'{token}' is not a single token of this CLIP's vocabulary")
