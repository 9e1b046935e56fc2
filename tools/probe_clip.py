"""How much depth a trained CLIP's frozen features hold: retrieval, a linear head, words and learned tokens, on scenes it never saw.

    python tools/probe_clip.py --clip bundled --cache CACHE --domain indoor --split val

Settings are chosen on `--split val`; `--split test` is for the figures that are published.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from clip_pairs import Pairs, squares
from depthtokens import DepthTokens, FrozenCLIP, load_clip, make_optimizer
from depthtokens.scenes import DEPTH_RANGE, Scenes
from depthtokens.depth.bins import bin_centres
from depthtokens.depth.loss import silog
from depthtokens.prompt.encoder import PromptEncoder

VALIDATION_SEED = 900  # of scenes of the train split that are used to choose settings


@dataclass
class Config:
    """What to probe. clip: a name or folder. rows: names of rows to run (all by default). modes, lrs, inits: settings to try.

    train_count, count: scenes learned from and scored. seeds: of learned tokens. retrieval: whether to measure it, on how many scenes.
    """

    cache: Path
    clip: str = "bundled"
    domain: str = "indoor"
    split: str = "val"
    train_count: int = 1000
    count: int = 400
    rows: tuple[str, ...] = ("linear", "depth-7", "size-7", "colour-7", "random:7", "rand-txt-7", "learned:7", "learned:20 log", "4o4d")
    modes: tuple[str, ...] = ("layer4", "value")
    lrs: tuple[float, ...] = (0.01,)
    inits: tuple[str, ...] = ("random",)
    steps: int = 400
    batch: int = 16
    seeds: tuple[int, ...] = (42,)
    retrieval: int = 0
    flip: bool = False
    threads: int = 1
    scale: str = "auty2023"


@dataclass
class Frozen:
    """Patch features [N, C, h, w] by mode (with the mirrored images' where flipping), and depth [N, 1, H, W] metres."""

    features: dict[str, Tensor]
    mirrored: dict[str, Tensor]
    depth: Tensor


def main(config: Config) -> None:
    """Print one JSON line per figure."""
    torch.set_num_threads(config.threads)
    clip = load_clip(config.clip)
    split, seed = ("train", VALIDATION_SEED) if config.split == "val" else ("test", 0)
    held_out = Scenes(config.domain, split, config.count, seed=seed, cache=config.cache)
    if config.retrieval:
        both = [Scenes(domain, "test", config.retrieval, cache=config.cache) for domain in ("indoor", "road")]
        pictures, texts = zip(*(embedded(clip, scenes) for scenes in both), strict=True)
        half = config.retrieval // 2
        for name, x, y in (
            ("indoor", pictures[0], texts[0]),
            ("road", pictures[1], texts[1]),
            ("half of each", torch.cat([x[:half] for x in pictures]), torch.cat([y[:half] for y in texts])),
        ):
            print(json.dumps({"retrieval": name, "scenes": len(x), **retrieval(x @ y.T)}), flush=True)
    if not config.rows:
        return
    training = Scenes(config.domain, "train", config.train_count, cache=config.cache)
    seen, unseen = frozen(clip, training, config.modes, False), frozen(clip, held_out, config.modes, config.flip)
    lo, hi = DEPTH_RANGE[config.domain]
    valid = (seen.depth > 0).double()
    logs = seen.depth.clamp(min=1e-3).double().log() * valid
    constant = (logs.sum() / valid.sum()).exp().float()
    mean_map = torch.where(valid.sum(0) > 0, (logs.sum(0) / valid.sum(0).clamp(min=1)).exp().float(), constant)
    control = score(mean_map.expand_as(unseen.depth), unseen.depth, (lo, hi))
    print(json.dumps({"row": "constant", "abs_rel": score(constant.expand_as(unseen.depth), unseen.depth, (lo, hi))}), flush=True)
    print(json.dumps({"row": "mean map", "abs_rel": control}), flush=True)
    for mode in config.modes:
        for row in config.rows:
            learned = row.startswith(("learned", "4o4d")) or row == "linear"
            for lr in config.lrs if learned and row != "linear" else config.lrs[:1]:
                for init in config.inits if row in ("learned:7", "4o4d") else config.inits[:1]:
                    for s in config.seeds if learned or row == "random:7" else config.seeds[:1]:
                        result = run_row(config, clip, row, mode, lr, init, s, seen, unseen, (lo, hi))
                        line = {"row": row, "mode": mode, "lr": lr, "init": init, "seed": s, "steps": config.steps}
                        print(json.dumps({**line, "abs_rel": round(result, 4), "of_mean_map": round(result / control, 3)}), flush=True)


def run_row(
    config: Config, clip: FrozenCLIP, row: str, mode: str, lr: float, init: str, seed: int, seen: Frozen, unseen: Frozen,
    depth_range: tuple[float, float],
) -> float:  # fmt: skip
    """AbsRel of one row of the table."""
    torch.manual_seed(seed)
    lo, hi = depth_range
    if row == "linear":
        head = nn.Conv2d(seen.features[mode].shape[1], 20, 1)
        nn.init.zeros_(head.weight)
        centres = torch.tensor(bin_centres("log", 20, (lo, hi)))
        spread = torch.std_mean(seen.features[mode].float(), (0, 2, 3))
        std, mean = (value[:, None, None] for value in (spread[0] + 1e-6, spread[1]))
        optimizer = torch.optim.AdamW(head.parameters(), lr=0.003, weight_decay=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=config.steps)
        trained = list(head.parameters())

        def predict(x: Tensor) -> Tensor:
            return torch.einsum("bnhw,n->bhw", head((x - mean) / std).softmax(1), centres)[:, None]

    else:
        kind, _, bins = row.partition(" ")
        depth = "learned:7" if kind == "4o4d" else kind
        template = "4o4d" if kind == "4o4d" else "baseline"
        start = init if depth == "learned:7" else "random"
        model = DepthTokens(clip, template, depth, bins=bins or "linear", depth_range=(0.001, hi), dense=mode, seed=seed, init=start,
                            scale=config.scale)  # fmt: skip

        def predict(x: Tensor) -> Tensor:
            return model.depth_from(x, model.text_features()).depth

        trained = list(model.trainable().values())
        if trained:
            optimizer, scheduler = make_optimizer(model, config.steps, lr)
    if trained:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(config.steps):
            chosen = torch.randint(len(seen.depth), (config.batch,), generator=generator)
            loss = silog(predict(seen.features[mode][chosen].float()), seen.depth[chosen][..., ::2, ::2])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 0.1 if row != "linear" else 10.0)
            optimizer.step()
            scheduler.step()
    with torch.no_grad():
        out = predict(unseen.features[mode].float()).clamp(lo, hi)
        if unseen.mirrored:
            out = (out + predict(unseen.mirrored[mode].float()).clamp(lo, hi).flip(-1)) / 2
    return score(out, unseen.depth, depth_range)


def frozen(clip: FrozenCLIP, scenes: Scenes, modes: tuple[str, ...], flip: bool) -> Frozen:
    """Features of all scenes, computed once."""
    features: dict[str, list[Tensor]] = {mode: [] for mode in modes}  # in float16
    mirrored: dict[str, list[Tensor]] = {mode: [] for mode in modes}
    depth = []
    with torch.inference_mode():
        for i in range(0, len(scenes), 16):
            samples = [scenes[j] for j in range(i, min(i + 16, len(scenes)))]
            images = torch.stack([s.image for s in samples])
            depth.append(torch.stack([s.depth for s in samples]))
            for mode in modes:
                features[mode].append(clip.dense(images, mode).half())
                if flip:
                    mirrored[mode].append(clip.dense(images.flip(-1), mode).half())
    return Frozen(
        {mode: torch.cat(parts) for mode, parts in features.items()},
        {mode: torch.cat(parts) for mode, parts in mirrored.items() if parts},
        torch.cat(depth),
    )


def score(predicted: Tensor, truth: Tensor, depth_range: tuple[float, float]) -> float:
    """Mean over images of AbsRel."""
    lo, hi = depth_range
    total, images = 0.0, 0
    for i in range(len(truth)):
        depth = F.interpolate(predicted[i : i + 1], size=truth.shape[-2:], mode="bilinear", align_corners=True)[0]
        valid = (truth[i] > lo) & (truth[i] <= hi)
        if valid.any():
            total += float(((depth[valid] - truth[i][valid]).abs() / truth[i][valid]).mean())
            images += 1
    return total / images


def embedded(clip: FrozenCLIP, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Pictures squeezed into squares, and caption number 0 of each: L2-normalised [N, C] both."""
    pairs, side = Pairs([scenes]), int(clip.visual.image_size)  # type: ignore[arg-type]
    with torch.inference_mode():
        encode: Any = clip.model.encode_image
        parts = [encode(squares(pairs, np.arange(i, min(i + 50, len(pairs))), side)) for i in range(0, len(pairs), 50)]
        texts = PromptEncoder(clip)([scenes.caption(i) for i in range(len(pairs))])
    return F.normalize(torch.cat(parts), dim=-1), F.normalize(texts, dim=-1)


def retrieval(similar: Tensor, group: int = 100, draws: int = 20) -> dict[str, float]:
    """Top-1 both ways among random groups of `group`, from similarities [N, N] of pictures and captions."""
    rng, hits, back = np.random.default_rng(0), [], []
    for _ in range(draws):
        for part in rng.permutation(len(similar))[: len(similar) // group * group].reshape(-1, group):
            block, labels = similar[part][:, part], torch.arange(group)
            hits.append(float((block.argmax(1) == labels).float().mean()))
            back.append(float((block.argmax(0) == labels).float().mean()))
    return {"image_to_caption": round(float(np.mean(hits)), 4), "caption_to_image": round(float(np.mean(back)), 4)}


if __name__ == "__main__":
    main(tyro.cli(Config))
