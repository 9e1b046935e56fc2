"""How much depth a trained CLIP's frozen features hold: retrieval, a linear head, words and learned tokens, on scenes it never saw.

    python tools/probe_clip.py --clip bundled --cache CACHE --domain indoor --split val

Settings are chosen on `--split val`; `--split test` is for the figures that are published.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from clip_pairs import Pairs, squares
from depthtokens import DepthTokens, FrozenCLIP, Scenes, load_clip
from depthtokens.depth.linear import LinearHead, Trainable
from depthtokens.depth.protocol import find_protocol
from depthtokens.depth.settings import ModelSettings
from depthtokens.experiment.controls import learn_controls
from depthtokens.experiment.evaluate import head_of, score_heads
from depthtokens.experiment.learn import Learner, fit
from depthtokens.experiment.source import Reading, open_source, scored_views
from depthtokens.features.views import Views
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


def main(config: Config) -> None:
    """Print one JSON line per figure."""
    torch.set_num_threads(config.threads)
    clip = load_clip(config.clip)
    if config.retrieval:
        print_retrieval(config, clip)
    if not config.rows:
        return
    split, seed = ("train", VALIDATION_SEED) if config.split == "val" else ("test", 0)
    training = Scenes(config.domain, "train", config.train_count, cache=config.cache)
    held_out = Scenes(config.domain, split, config.count, seed=seed, cache=config.cache)
    protocol = replace(find_protocol("auty2023"), flip=config.flip)
    controls, mean_map = learn_controls(training, training.depth_range, workers=0), 0.0
    reading = Reading(cache=True, workers=0, folder=config.cache)
    for mode in config.modes:
        for row, lr, init, s in settings_of(config):
            model = model_of(config, clip, row, mode, init, s, training.depth_range[1])
            if model.trainable():
                views = open_source(model, training, Views(), reading, together=config.modes)
                fit([Learner(model, config.steps, lr=lr)], views, batch_size=config.batch)
            source = open_source(model, held_out, scored_views(protocol), reading, together=config.modes)
            found = score_heads({row: head_of(model)}, source, protocol, None if mean_map else controls)
            if not mean_map:
                mean_map = found["mean map"].quoted["abs_rel"]
                for name in ("constant", "mean map"):
                    print(json.dumps({"row": name, "abs_rel": found[name].quoted["abs_rel"]}), flush=True)
            score = found[row].quoted["abs_rel"]
            line = {"row": row, "mode": mode, "lr": lr, "init": init, "seed": s, "steps": config.steps}
            print(json.dumps({**line, "abs_rel": round(score, 4), "of_mean_map": round(score / mean_map, 3)}), flush=True)


def settings_of(config: Config) -> list[tuple[str, float, str, int]]:
    """Row, learning rate, what tokens start from, and seed of each run; what makes no difference to a row is tried once."""
    runs = []
    for row in config.rows:
        learned = row.startswith(("learned", "4o4d")) or row == "linear"
        for lr in config.lrs if learned else config.lrs[:1]:
            for init in config.inits if row in ("learned:7", "4o4d") else config.inits[:1]:
                runs += [(row, lr, init, seed) for seed in (config.seeds if learned or row == "random:7" else config.seeds[:1])]
    return runs


def model_of(config: Config, clip: FrozenCLIP, row: str, mode: str, init: str, seed: int, far: float) -> Trainable:
    """The model of a row: "linear" is a linear head over 20 bins, "4o4d" learned context and tokens, others what fills {depth} and bins."""
    kind, _, bins = ("learned:20 log" if row == "linear" else row).partition(" ")
    depth = "learned:7" if kind == "4o4d" else kind
    settings = ModelSettings(
        template="4o4d" if kind == "4o4d" else "baseline", depth=depth, bins=bins or "linear", depth_range=(0.001, far), dense=mode,
        seed=seed, init=init if depth == "learned:7" else "random", scale=config.scale,
    )  # fmt: skip
    model = DepthTokens.of(clip, settings)
    return LinearHead(model) if row == "linear" else model


def print_retrieval(config: Config, clip: FrozenCLIP) -> None:
    """How often picture and caption find each other, within each domain and between both."""
    both = [Scenes(domain, "test", config.retrieval, cache=config.cache) for domain in ("indoor", "road")]
    pictures, texts = zip(*(embedded(clip, scenes) for scenes in both), strict=True)
    half = config.retrieval // 2
    for name, x, y in (
        ("indoor", pictures[0], texts[0]),
        ("road", pictures[1], texts[1]),
        ("half of each", torch.cat([x[:half] for x in pictures]), torch.cat([y[:half] for y in texts])),
    ):
        print(json.dumps({"retrieval": name, "scenes": len(x), **retrieval(x @ y.T)}), flush=True)


def embedded(clip: FrozenCLIP, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Pictures squeezed into squares, and caption number 0 of each: L2-normalised [N, C] both."""
    pairs, side = Pairs([scenes]), clip.image.image_size[0]
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
