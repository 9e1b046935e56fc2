"""Train the small CLIP that comes with the package, by image-caption contrast on procedural scenes alone.

    python tools/train_clip.py --work WORK --out src/depthtokens/clip/bundled --processes 2

Two contrasts share the text tower: whole pictures against captions (CLIP's own loss), and single positions of the value path against
captions of that region ("about three metres away", "far"). Depth never enters a loss as a number. Every batch is drawn from
(seed, step, process) alone, so that `--resume` continues as if nothing had happened. Several processes of one thread each, with
their gradients averaged, share a busy machine far better than one process with several threads.
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

from clip_pairs import Batch, Pairs, Words, draw, load
from depthtokens.clip.family import resized_positions
from depthtokens.clip.resnet import trunk
from depthtokens.scenes import Scenes

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 256,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 192, "layers": [1, 2, 3, 3], "width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
}
ROWS = 2048  # of the compact vocabulary table: more than captions use
SCALE_LIMIT = math.log(100.0)  # CLIP's


@dataclass
class Config:
    """How to train. work: cache and checkpoints. out: the folder that the model is written to.

    scenes: indoor and road scenes per seed; seeds: of the training scenes. low_steps: first steps, at low_size pixels; then steps at the
    architecture's own size, during which the rate falls to nothing over the last decay_steps. batch: pictures per process and step.
    indoor: share of rooms in a batch. region_weight: of the region contrast. processes: of one thread each.
    """

    work: Path
    out: Path | None = None
    cache: Path | None = None
    scenes: tuple[tuple[int, int], ...] = ((6000, 3000), (8000, 0))
    seeds: tuple[int, ...] = (101, 102)
    low_steps: int = 300
    low_size: int = 96
    steps: int = 440
    batch: int = 128
    regions: int = 12
    indoor: float = 0.6
    region_weight: float = 0.5
    lr: float = 1.5e-3
    weight_decay: float = 0.1
    warmup: int = 100
    decay_steps: int = 340
    seed: int = 5
    processes: int = 2
    save_every: int = 50
    resume: bool = False


class Trainer(nn.Module):
    """The CLIP in training: its towers, a compact table for the vocabulary rows that occur, and a second scale for regions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.clip = open_clip.CLIP(**ARCHITECTURE)
        self.initial = self.clip.token_embedding.weight.detach().clone()
        self.clip.token_embedding.weight.requires_grad_(False)
        self.table = nn.Embedding(ROWS, self.initial.shape[1])
        self.region_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.words = Words()
        self.clip.visual.to(memory_format=torch.channels_last)

    def parameters_for(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups: matrices decay, everything else does not."""
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        small = [p for name, p in named if p.ndim < 2 or "embedding" in name or name.startswith("table")]
        large = [p for name, p in named if not (p.ndim < 2 or "embedding" in name or name.startswith("table"))]
        return [{"params": large, "weight_decay": weight_decay}, {"params": small, "weight_decay": 0.0}]

    def add_rows(self, batch: Batch) -> None:
        """Give ids that occur for the first time, in any process, a row of the table: what the full table holds."""
        new = {i for ids in self.words.encode([*batch.captions, *batch.sayings]) for i in ids} - self.words.rows.keys()
        found: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, sorted(new))
        with torch.no_grad():
            for token in sorted(set().union(*found)):
                self.words.rows[token] = len(self.words.rows)
                self.table.weight[self.words.rows[token]] = self.initial[token]

    def encode_text(self, texts: list[str]) -> Tensor:
        """L2-normalised features [B, C], cut at the longest text; what follows end-of-text cannot reach it."""
        rows, end = self.words.table_rows(texts)
        clip, length = self.clip, rows.shape[1]
        x = self.table(rows) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
        x = clip.ln_final(x[torch.arange(len(x)), end])
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
        pool, features = self.clip.visual.attnpool, trunk(self.clip.visual, batch.images)
        images, texts = self.pool(features), self.encode_text(batch.captions)
        labels = torch.arange(len(images))
        logits = self.clip.logit_scale.exp() * images @ texts.unflatten(0, (-1, len(images))).mT  # [captions of each, B, B]
        whole = torch.stack([(F.cross_entropy(one, labels) + F.cross_entropy(one.T, labels)) / 2 for one in logits]).mean()
        out = {"whole": whole, "top1": (logits.argmax(2) == labels).float().mean()}
        at = features.flatten(2)[batch.where[:, 0], :, batch.where[:, 1]]
        regions = F.normalize(pool.c_proj(pool.v_proj(at)).float(), dim=-1)
        logits = self.region_scale.exp() * regions @ self.encode_text(batch.sayings).T
        out["region"] = F.cross_entropy(logits, batch.said)
        return out

    def exported(self) -> dict[str, Tensor]:
        """The CLIP's weights in float16, trained vocabulary rows put back into the full table."""
        state = self.clip.state_dict()
        full = self.initial.clone()
        ids = list(self.words.rows)
        full[ids] = self.table.weight.detach()[: len(ids)]
        state["token_embedding.weight"] = full
        return {
            key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items() if key != "attn_mask"
        }


def main(config: Config) -> None:
    """Train with `processes` processes, with a checkpoint every so often; then write the open_clip folder."""
    config.work.mkdir(parents=True, exist_ok=True)
    scenes(config)  # rendered once, before every process opens them
    if not config.resume:
        (config.work / "checkpoint.pt").unlink(missing_ok=True)
        (config.work / "training_log.jsonl").unlink(missing_ok=True)
    meeting = config.work / "meeting"
    meeting.unlink(missing_ok=True)
    if config.processes > 1:
        torch.multiprocessing.spawn(train, args=(config, meeting.resolve()), nprocs=config.processes)  # type: ignore[attr-defined, no-untyped-call]
    else:
        train(0, config, meeting.resolve())


def scenes(config: Config) -> list[Scenes]:
    """The training scenes."""
    jobs = [
        (domain, count, seed)
        for seed, counts in zip(config.seeds, config.scenes, strict=True)
        for domain, count in zip(("indoor", "road"), counts, strict=True)
        if count
    ]
    return load(config.cache or config.work / "cache", jobs)


def train(rank: int, config: Config, meeting: Path) -> None:
    """One process of the training; all of them hold the same weights after every step."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=config.processes)
    pairs, trainer = Pairs(scenes(config)), Trainer(config)
    parameters = [p for p in trainer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainer.parameters_for(config.weight_decay), lr=config.lr, betas=(0.9, 0.98))
    checkpoint, log = config.work / "checkpoint.pt", config.work / "training_log.jsonl"
    start, spent = 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        trainer.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        trainer.words.rows = state["rows"]
        start, spent = state["step"], state["seconds"]
        if rank == 0:  # steps after the checkpoint are done again
            lines = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= start]
            log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    total, began = config.low_steps + config.steps, time.monotonic() - spent
    means: dict[str, float] = {}
    for step in range(start, total):
        size = config.low_size if step < config.low_steps else ARCHITECTURE["vision_cfg"]["image_size"]
        batch = draw(pairs, size, config.batch, config.regions, config.indoor, (config.seed, step, rank))
        trainer.add_rows(batch)
        lr = config.lr * min((step + 1) / config.warmup, 1.0, (total - step) / config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast("cpu", torch.bfloat16):
            losses = trainer(batch)
        optimizer.zero_grad(set_to_none=True)
        (losses["whole"] + config.region_weight * losses["region"]).backward()
        average([p.grad for p in parameters if p.grad is not None])
        norm = nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        with torch.no_grad():
            trainer.clip.logit_scale.clamp_(0, SCALE_LIMIT)
            trainer.region_scale.clamp_(0, SCALE_LIMIT)
        for name, value in {**losses, "norm": norm}.items():
            means[name] = 0.9 * means.get(name, value.item()) + 0.1 * value.item()
        last = step + 1 == total
        if (step + 1) % config.save_every == 0 or last:
            average([value for name, value in trainer.named_buffers() if "running" in name])  # BatchNorm's statistics
        if rank == 0 and ((step + 1) % 20 == 0 or last):
            row = {"step": step + 1, "seconds": round(time.monotonic() - began), "size": size, "lr": round(lr, 7)}
            row |= {name: round(value, 4) for name, value in means.items()}
            row |= {"scale": round(float(trainer.clip.logit_scale.exp()), 2), "region_scale": round(float(trainer.region_scale.exp()), 2)}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "rows": len(trainer.words.rows)}) + "\n")
        if rank == 0 and ((step + 1) % config.save_every == 0 or last):
            state = {"model": trainer.state_dict(), "optimizer": optimizer.state_dict(), "rows": trainer.words.rows, "step": step + 1}
            torch.save({**state, "seconds": time.monotonic() - began}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    if rank == 0 and config.out:
        write(trainer, config.out, log)


def average(tensors: list[Tensor]) -> None:
    """Replace tensors by their mean over processes, in one message."""
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def write(trainer: Trainer, folder: Path, log: Path | None = None) -> None:
    """Write the folder that open_clip loads with `local-dir:`, with the trained vocabulary, the weights' checksum and the log."""
    import hashlib

    from safetensors.torch import save_file

    from depthtokens.data.dataset import IMAGENET_MEAN, IMAGENET_STD

    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "open_clip_model.safetensors"
    save_file(trainer.exported(), weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    preprocess = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": ARCHITECTURE, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    encoder = {index: token for token, index in trainer.words.tokenizer.encoder.items()}
    trained = {str(index): encoder[index] for index in sorted(trainer.words.rows)}
    (folder / "trained_tokens.json").write_text(json.dumps(trained, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "sha256.txt").write_text(f"{digest}  {weights.name}\n", encoding="utf-8")
    if log and log.is_file():
        (folder / "training_log.jsonl").write_text(log.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Config))
