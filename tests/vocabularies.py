"""Small tokenizers and text models of the kinds that CLIPs take from Hugging Face, made here: only the hub has the real ones' files."""

from __future__ import annotations

WORDS = ["this", "object", "appears", "to", "be", "close", "far", "from", "a", "small", "red", "ball", "the", "camera"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
KINDS = {
    "siglip2": "gemma",
    "siglip": "siglip",
    "bert-": "bert",
    "clips": "clips",
    "xlm-": "xlm",
    "roberta": "roberta",
    "mt5": "t5",
    "nllb": "nllb",
}
"""Which kind a tokenizer or a text model is of, by a part of its name."""


def kind(name):
    return next(kind for part, kind in KINDS.items() if part in name.lower())


def make_tokenizer(kind, folder):
    """Write a tokenizer of a kind into a folder; returns how many entries it has."""
    import transformers as t

    if kind in ("bert", "clips"):
        entries = [
            "[PAD]",
            "[unused0]",
            "[unused1]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *WORDS,
            *LETTERS,
            *(f"##{letter}" for letter in LETTERS),
        ]
        more = {"bos_token": "[unused0]", "eos_token": "[unused1]"} if kind == "clips" else {}
        tokenizer = t.BertTokenizer(vocab={entry: index for index, entry in enumerate(dict.fromkeys(entries))}, **more)
    elif kind == "roberta":
        tokenizer = t.RobertaTokenizer(*_merged(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "Ġ"))
    elif kind == "xlm":
        tokenizer = t.XLMRobertaTokenizer(vocab=[*_scored(["<s>", "<pad>", "</s>", "<unk>"]), ("<mask>", 0.0)])
    elif kind == "t5":
        tokenizer = t.T5Tokenizer(vocab=_scored(["<pad>", "</s>", "<unk>"]), extra_ids=0)
    elif kind == "siglip":
        tokenizer = t.T5Tokenizer(vocab=_scored(["<pad>", "</s>", "<unk>"]), extra_ids=0, pad_token="</s>")
    elif kind == "gemma":
        entries = _merged(["<pad>", "<eos>", "<bos>", "<unk>"], "▁")
        tokenizer = t.GemmaTokenizer(*entries, padding_side="right", add_bos_token=False, add_eos_token=True)
    elif kind == "clip":
        tokenizer = t.CLIPTokenizer(*_ended(["<|startoftext|>", "<|endoftext|>"]))
    elif kind == "tips":
        from transformers.models.tipsv2.tokenization_tipsv2 import Tipsv2Tokenizer

        tokenizer = Tipsv2Tokenizer(*_merged(["<pad>", "<unk>"], "▁"))
    else:
        tokenizer = t.NllbTokenizer(*_merged(["<s>", "<pad>", "</s>", "<unk>"], "▁"), additional_special_tokens=["fra_Latn", "eng_Latn"])
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def make_text_model(kind, folder, entries):
    """Write the configuration of a small text model of a kind into a folder."""
    import transformers as t

    small = {"vocab_size": entries, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = {
        "bert": lambda: t.BertConfig(**small),
        "roberta": lambda: t.RobertaConfig(**small, max_position_embeddings=514),
        "xlm": lambda: t.XLMRobertaConfig(**small, max_position_embeddings=514),
        "t5": lambda: t.MT5Config(vocab_size=entries, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0),
        "nllb": lambda: t.M2M100Config(
            vocab_size=entries, d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, decoder_layers=1,
            decoder_attention_heads=2, decoder_ffn_dim=64, scale_embedding=True,
        ),
    }[kind]()  # fmt: skip
    config.save_pretrained(folder)


def _scored(special):
    """Entries of a Unigram vocabulary, with their scores."""
    return [*((entry, 0.0) for entry in special), *((f"▁{word}", -3.0) for word in WORDS), *((letter, -8.0) for letter in f"{LETTERS}▁")]


def _merged(special, space):
    """Entries and merges of a BPE vocabulary in which a word has another entry behind a space."""
    entries, merges = [*special, space, *LETTERS], []
    for word in (*(space + word for word in WORDS), *WORDS):
        for end in range(1, len(word)):
            if word[: end + 1] not in entries:
                entries.append(word[: end + 1])
                merges.append((word[:end], word[end]))
    return {entry: index for index, entry in enumerate(entries)}, merges


def _ended(special):
    """Entries and merges of CLIP's BPE, which marks the ends of words."""
    entries, merges = [*special, *LETTERS, *(f"{letter}</w>" for letter in LETTERS)], []
    for word in WORDS:
        letters = [*word[:-1], f"{word[-1]}</w>"]
        for end in range(1, len(letters)):
            if "".join(letters[: end + 1]) not in entries:
                entries.append("".join(letters[: end + 1]))
                merges.append(("".join(letters[:end]), letters[end]))
    return {entry: index for index, entry in enumerate(entries)}, merges
