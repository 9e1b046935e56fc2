"""Train the small CLIP that comes with the package, by image-caption contrast on procedural scenes alone.

    python tools/train_clip.py --work WORK --out src/depthtokens/clip/bundled

Two contrasts share the text tower: whole pictures against captions (CLIP's own loss), and single positions of the value path against
captions of that region ("about three metres away", "far"). Depth never enters a loss as a number. Every batch is drawn from
(seed, step) alone, so that `--resume` continues as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from clip_pairs import Batch, Draws, Pairs, Texts, Words, load, normalised
from depthtokens.clip.family import resized_positions
from depthtokens.clip.resnet import trunk
from depthtokens.scenes.store import cores

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 256,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 192, "layers": [1, 2, 3, 3], "width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
}
SCALE_LIMIT = math.log(100.0)  # CLIP's


@dataclass
class Config:
    """How to train. work: cache and checkpoints. out: the folder that the model is written to.

    indoor_scenes, road_scenes: how many to learn from; scene_seed: theirs. low_steps: the first of the steps, at low_size pixels; the
    others are at the architecture's own size. The rate rises over warmup steps and falls to nothing over the last decay_steps.
    batch: pictures of a step; indoor: share of rooms among them; regions: captioned positions of each. region_weight: of the region
    contrast. workers: processes that draw batches, None = one per core. log_every, save_every: steps.
    """

    work: Path
    out: Path | None = None
    cache: Path | None = None
    indoor_scenes: int = 28000
    road_scenes: int = 12000
    scene_seed: int = 101
    steps: int = 2500
    low_steps: int = 250
    low_size: int = 96
    batch: int = 512
    regions: int = 12
    indoor: float = 0.6
    region_weight: float = 0.5
    lr: float = 1.5e-3
    weight_decay: float = 0.1
    warmup: int = 200
    decay_steps: int = 1500
    seed: int = 5
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    workers: int | None = None
    log_every: int = 50
    save_every: int = 250
    resume: bool = False


class Trainer(nn.Module):
    """The CLIP in training: its towers, a second scale for regions, and which rows of the vocabulary occurred."""

    seen: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.clip = open_clip.CLIP(**ARCHITECTURE)
        self.region_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("seen", torch.zeros(ARCHITECTURE["text_cfg"]["vocab_size"], dtype=torch.bool))
        self.clip.visual.to(memory_format=torch.channels_last)

    def parameters_for(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups: matrices decay, everything else does not, so that rows of words that never occur stay as they were drawn."""
        large = [p for name, p in self.named_parameters() if p.ndim >= 2 and "embedding" not in name]
        small = [p for name, p in self.named_parameters() if p.ndim < 2 or "embedding" in name]
        return [{"params": large, "weight_decay": weight_decay}, {"params": small, "weight_decay": 0.0}]

    def encode_text(self, texts: Texts) -> Tensor:
        """L2-normalised features [T, C]; what follows end-of-text cannot reach it."""
        clip, length = self.clip, texts.ids.shape[1]
        self.seen[torch.where(torch.arange(length, device=texts.ids.device) <= texts.end[:, None], texts.ids, texts.ids[:, :1])] = True
        x = clip.token_embedding(texts.ids) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
        x = clip.ln_final(x[torch.arange(len(x), device=x.device), texts.end])
        return F.normalize((x @ clip.text_projection).float(), dim=-1)

    def pool(self, x: Tensor) -> Tensor:
        """The attention pool's one query, the mean: [B, D, h, w] -> [B, C]. Linear maps are reordered, which changes nothing but time."""
        pool, heads = self.clip.visual.attnpool, self.clip.visual.attnpool.num_heads
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + resized_positions(pool.positional_embedding, *x.shape[-2:])
        q = pool.q_proj(tokens[:, 0]).unflatten(-1, (heads, -1))
        key = torch.einsum("bhd,hdc->bhc", q, pool.k_proj.weight.unflatten(0, (heads, -1)))
        attention = (key @ tokens.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)  # k's bias is the same for every position
        mixed = torch.einsum("bhc,hdc->bhd", attention @ tokens, pool.v_proj.weight.unflatten(0, (heads, -1))).flatten(1)
        return F.normalize(pool.c_proj(mixed + pool.v_proj.bias).float(), dim=-1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The two losses of a batch, and its top-1 accuracy from picture to caption."""
        pool, features = self.clip.visual.attnpool, trunk(self.clip.visual, normalised(batch.images, batch.light))
        images, texts = self.pool(features), self.encode_text(batch.captions)
        labels = torch.arange(len(images), device=images.device)
        logits = self.clip.logit_scale.exp() * images @ texts.unflatten(0, (-1, len(images))).mT  # [captions of each, B, B]
        whole = torch.stack([(F.cross_entropy(one, labels) + F.cross_entropy(one.T, labels)) / 2 for one in logits]).mean()
        out = {"whole": whole, "top1": (logits.argmax(2) == labels).float().mean()}
        at = features.flatten(2)[batch.where[:, 0], :, batch.where[:, 1]]
        regions = F.normalize(pool.c_proj(pool.v_proj(at)).float(), dim=-1)
        logits = self.region_scale.exp() * regions @ self.encode_text(batch.sayings).T
        out["region"] = F.cross_entropy(logits, batch.said)
        return out


def main(config: Config) -> None:
    """Train, with a checkpoint every so often; then write the open_clip folder."""
    config.work.mkdir(parents=True, exist_ok=True)
    checkpoint, log = config.work / "checkpoint.pt", config.work / "training_log.jsonl"
    if not config.resume:
        checkpoint.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
    jobs = [("indoor", config.indoor_scenes, config.scene_seed), ("road", config.road_scenes, config.scene_seed)]
    pairs = Pairs(load(config.cache or config.work / "cache", [job for job in jobs if job[1]]))
    device = torch.device(config.device)
    trainer = Trainer(config.seed).to(device)
    optimizer = torch.optim.AdamW(trainer.parameters_for(config.weight_decay), lr=config.lr, betas=(0.9, 0.98))
    start, spent = 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        trainer.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, spent = state["step"], state["seconds"]
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= start]
        log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")  # steps after the checkpoint are done again
    size = ARCHITECTURE["vision_cfg"]["image_size"]
    draws = Draws(pairs, Words(), size, config.low_size, config.low_steps, config.batch, config.indoor, config.regions, config.seed)
    began, means = time.monotonic() - spent, dict[str, Tensor]()
    for step, batch in enumerate(_drawn(draws, range(start, config.steps), config.workers or cores()), start):
        lr = config.lr * min((step + 1) / config.warmup, 1.0, (config.steps - step) / config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):  # few processors are any faster so
            losses = trainer(batch.to(device))
        optimizer.zero_grad(set_to_none=True)
        (losses["whole"] + config.region_weight * losses["region"]).backward()
        norm = nn.utils.clip_grad_norm_(trainer.parameters(), 2.0)
        optimizer.step()
        with torch.no_grad():
            trainer.clip.logit_scale.clamp_(0, SCALE_LIMIT)
            trainer.region_scale.clamp_(0, SCALE_LIMIT)
            for name, value in {**losses, "norm": norm}.items():
                means[name] = 0.9 * means.get(name, value) + 0.1 * value
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            row = {"step": done, "seconds": round(time.monotonic() - began), "size": batch.images.shape[-1], "lr": round(lr, 7)}
            row |= {name: round(value.item(), 4) for name, value in means.items()}
            row |= {"scale": round(trainer.clip.logit_scale.exp().item(), 2), "region_scale": round(trainer.region_scale.exp().item(), 2)}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "rows": int(trainer.seen.sum())}) + "\n")
        if done % config.save_every == 0 or done == config.steps:
            state = {"model": trainer.state_dict(), "optimizer": optimizer.state_dict(), "step": done}
            torch.save({**state, "seconds": time.monotonic() - began}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    if config.out:
        write(trainer.cpu(), config.out, log)


def _drawn(draws: Draws, steps: range, workers: int) -> torch.utils.data.DataLoader[Batch]:
    """The batches of some steps, drawn ahead by processes of one thread each."""
    return torch.utils.data.DataLoader(draws, batch_size=None, sampler=steps, num_workers=workers)


def write(trainer: Trainer, folder: Path, log: Path | None = None) -> None:
    """Write the folder that open_clip loads with `local-dir:`, in float16, with the trained vocabulary, a checksum and the log."""
    import hashlib

    from safetensors.torch import save_file

    from depthtokens.data.dataset import IMAGENET_MEAN, IMAGENET_STD

    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "open_clip_model.safetensors"
    state = {key: value for key, value in trainer.clip.state_dict().items() if key != "attn_mask"}
    halves = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}
    save_file(halves, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    preprocess = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": ARCHITECTURE, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    encoder = {index: token for token, index in Words().tokenizer.encoder.items()}
    trained = {str(index): encoder[index] for index in trainer.seen.nonzero().flatten().tolist()}
    (folder / "trained_tokens.json").write_text(json.dumps(trained, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "sha256.txt").write_text(f"{digest}  {weights.name}\n", encoding="utf-8")
    if log and log.is_file():
        (folder / "training_log.jsonl").write_text(log.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Config))
