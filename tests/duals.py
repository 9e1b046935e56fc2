"""transformers' dual encoders, each of a few narrow layers and with a small tokenizer of its kind, in a folder as the hub has them."""

from __future__ import annotations

import json

import torch

from vocabularies import make_tokenizer

TOKENIZERS = {"clip": "clip", "metaclip_2": "xlm", "siglip": "siglip", "siglip2": "gemma", "tipsv2": "tips"}
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CONTEXT = 24


def make_dual(kind, folder):
    """Write a dual encoder of a kind, all of whose weights matter, into a folder; returns the model."""
    import transformers as t

    entries = make_tokenizer(TOKENIZERS[kind], folder)
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    text = {
        **_SMALL, "vocab_size": entries, "max_position_embeddings": CONTEXT, "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    vision = {**_SMALL, "patch_size": 8, "image_size": 32}
    torch.manual_seed(0)
    if kind in ("clip", "metaclip_2"):
        config, model = (t.CLIPConfig, t.CLIPModel) if kind == "clip" else (t.MetaClip2Config, t.MetaClip2Model)
        config = config(text_config=text, vision_config=vision, projection_dim=24)
    elif kind == "siglip":
        config, model = t.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision), t.SiglipModel
    elif kind == "siglip2":
        del vision["image_size"]
        config = t.Siglip2Config(text_config={**text, "projection_size": 32}, vision_config={**vision, "num_patches": 16})
        model = t.Siglip2Model
    else:
        del vision["intermediate_size"]
        config, model = t.Tipsv2Config(text_config=text, vision_config={**vision, "mlp_ratio": 2, "num_register_tokens": 2}), t.Tipsv2Model
    model = model(config).eval().requires_grad_(False)
    for weight in model.parameters():
        weight += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    if kind == "siglip":
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.5, 0.5]}))
    return model


def text_features(model, kind, folder, sentences):
    """What a model itself makes of sentences, tokenized as it was trained."""
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(sentences, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    masked = {} if kind.startswith("siglip") else {"attention_mask": inputs.attention_mask}
    return model.get_text_features(input_ids=inputs.input_ids, **masked).pooler_output


def hidden(model, kind, images):
    """What a model's own image tower gives behind its last norm for each patch: [B, h*w, D]."""
    size = [length // 8 for length in images.shape[-2:]]
    if kind == "siglip2":
        from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

        patches = torch.stack([convert_image_to_patches(image, 8) for image in images])
        whole = torch.ones(patches.shape[:2], dtype=torch.long)
        return model.vision_model(patches, whole, torch.tensor([size] * len(images))).last_hidden_state
    further = {} if kind == "tipsv2" else {"interpolate_pos_encoding": True}
    found = model.vision_model(images, **further).last_hidden_state[:, -size[0] * size[1] :]
    return model.vision_model.post_layernorm(found) if "clip" in kind else found
