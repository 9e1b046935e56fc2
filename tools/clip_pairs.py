"""Pictures and words for `train_clip.py`: views of rendered scenes, captions of whole views, and captions of small regions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from torch import Tensor

from depthtokens.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from depthtokens.scenes import Scenes, words
from depthtokens.scenes.captions import caption

CAPTIONS = 2  # of each picture: words cost less than pictures
CELL = 8  # pixels: views begin and end at multiples of this
STRIDE = 32  # pixels per position of the image tower
FLIPPED = {"left": "right", "right": "left"}
_SIDES = re.compile(r"\b(left|right(?! in front))\b")
# what is said of a region, with a distance in its place; the plain words weigh most
SENTENCES = ("{}", "{}", "{}", "this object appears to be {}", "this object is {}", "this part appears to be {}", "it is {}",
             "everything here is {}", "a surface {}", "the wall here is {}", "something {}")  # fmt: skip


class Pairs:
    """Scenes of several jobs: rgb uint8 [N, H, W, 3]; log depth per cell of 8 x 8 pixels [N, H/8, W/8], NaN where there is none."""

    def __init__(self, parts: Sequence[Scenes]) -> None:
        self.parts = parts
        stores = [part.store for part in parts]
        self.rgb = [store.rgb for store in stores if store]
        self.contents = [content for store in stores if store for content in store.contents]
        self.cells = torch.cat([_cells(part) for part in parts])
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.indoor = np.flatnonzero([content.domain == "indoor" for content in self.contents])
        self.road = np.flatnonzero([content.domain == "road" for content in self.contents])

    def __len__(self) -> int:
        return len(self.contents)

    def pictures(self, chosen: np.ndarray, box: tuple[int, int, int, int]) -> Tensor:
        """The box (top, bottom, left, right, in cells) of some scenes: uint8 [B, 3, h, w] in channels-last layout."""
        top, bottom, left, right = (CELL * edge for edge in box)
        out = np.empty((len(chosen), bottom - top, right - left, 3), np.uint8)
        part = np.searchsorted(self.starts, chosen, "right") - 1
        for i, (index, p) in enumerate(zip(chosen, part, strict=True)):
            out[i] = self.rgb[p][index - self.starts[p], top:bottom, left:right]
        return torch.from_numpy(out).permute(0, 3, 1, 2)


@dataclass
class Texts:
    """ids: [T, L] of CLIP's BPE with start and end, zero behind them. end: [T] position of the end of each text."""

    ids: Tensor
    end: Tensor


@dataclass
class Batch:
    """images: uint8 [B, 3, S, S]. light: [B, 1, 1, 1] their brightness. captions: `CAPTIONS` for each, all first ones first.
    where: [R, 2] image and position (row-major) of each captioned region.
    said: [R] which of `sayings` is said of it."""

    images: Tensor
    light: Tensor
    captions: Texts
    where: Tensor
    said: Tensor
    sayings: Texts

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        images, light, where, said = (x.to(device, non_blocking=True) for x in (self.images, self.light, self.where, self.said))
        captions, sayings = (Texts(x.ids.to(device), x.end.to(device)) for x in (self.captions, self.sayings))
        return Batch(images, light, captions, where, said, sayings)


@dataclass
class Draws(torch.utils.data.Dataset[Batch]):
    """The batch of every step, the same for the same seed whichever process draws it.

    Of the first low_steps at low_size pixels, then at size. batch: pictures; indoor: share of rooms among them; regions: captioned
    positions of each.
    """

    pairs: Pairs
    words: Words
    size: int
    low_size: int
    low_steps: int
    batch: int
    indoor: float
    regions: int
    seed: int

    def __getitem__(self, step: int) -> Batch:
        size = self.low_size if step < self.low_steps else self.size
        return draw(self.pairs, self.words, size, self.batch, self.regions, self.indoor, (self.seed, step))


def draw(pairs: Pairs, words: Words, size: int, batch: int, regions: int, indoor: float, seed: Sequence[int]) -> Batch:
    """One training batch: the same for the same seed. indoor: share of rooms; regions: captioned positions per picture."""
    rng = np.random.default_rng(seed)
    rooms = round(batch * indoor) if len(pairs.road) else batch
    chosen = np.concatenate([rng.choice(pairs.indoor, rooms, replace=False), rng.choice(pairs.road, batch - rooms, replace=False)])
    rows, columns = pairs.cells.shape[1:]
    height = int(rng.integers(rows - 4, rows + 1))
    # from square pixels (as in the dense modes) to the whole picture squeezed into the square (as in `encode_image`)
    whole = rng.random() < 0.6
    height = rows if whole else height
    width = columns if whole else int(rng.integers(min(height, columns - 1), columns + 1))
    top, left = int(rng.integers(0, rows - height + 1)), int(rng.integers(0, columns - width + 1))
    box = (top, top + height, left, left + width)
    images = F.interpolate(pairs.pictures(chosen, box), size=(size, size), mode="bilinear", antialias=True)  # in uint8, which is fast
    cells = pairs.cells[chosen, box[0] : box[1], box[2] : box[3]]
    captions = [caption(pairs.contents[i], rng) for _ in range(CAPTIONS) for i in chosen]
    if rng.random() < 0.5:
        images, cells, captions = images.flip(-1), cells.flip(-1), [mirrored(text) for text in captions]
    light = torch.from_numpy(np.exp(rng.normal(0, 0.1, (batch, 1, 1, 1)))).float()
    depth, share = _grid(cells, size // STRIDE)
    where, distances = _choose(depth, share, regions, rng)
    # two sayings for each 5 % of distance serve the whole batch: the text tower is most of the work otherwise
    sayings: dict[str, int] = {}
    drawn: dict[tuple[str, int, int], int] = {}
    said = []
    for i, metres, which in zip(where[:, 0].tolist(), distances.tolist(), rng.integers(2, size=len(where)).tolist(), strict=True):
        domain, level = pairs.contents[chosen[i]].domain, round(math.log(metres) / 0.05)
        if (domain, level, which) not in drawn:
            drawn[domain, level, which] = sayings.setdefault(say(metres, domain, rng), len(sayings))
        said.append(drawn[domain, level, which])
    return Batch(images, light, words.texts(captions), where, torch.tensor(said), words.texts(list(sayings)))


def say(metres: float, domain: str, rng: np.random.Generator) -> str:
    """A caption of a small region: how far away it is, in words, by a slightly unsure observer."""
    guess = metres * float(np.exp(rng.normal(0, 0.04)))
    if rng.random() < 0.5:
        far = ("", "about ", "roughly ")[int(rng.integers(3))] + words.metres_in_words(guess, rng) + " away"
    else:
        options = words.DISTANCES[words.distance_level(guess, domain)]
        far = options[int(rng.integers(len(options)))]
    return SENTENCES[int(rng.integers(len(SENTENCES)))].format(far)


def mirrored(text: str) -> str:
    """The caption of the mirrored picture."""
    return _SIDES.sub(lambda found: FLIPPED[found[1]], text)


def normalised(images: Tensor, light: Tensor | None = None) -> Tensor:
    """Images uint8 [B, 3, h, w] as the library feeds them, with ImageNet's mean and standard deviation; light: [B, 1, 1, 1] brightness."""
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (((images * ((1.0 if light is None else light) / 255)).clamp(0, 1) - mean) / std).contiguous(memory_format=torch.channels_last)


def squares(pairs: Pairs, chosen: np.ndarray, size: int) -> Tensor:
    """Whole scenes squeezed into squares, normalised: [B, 3, size, size]."""
    rows, columns = pairs.cells.shape[1:]
    whole = pairs.pictures(chosen, (0, rows, 0, columns))
    return normalised(F.interpolate(whole, size=(size, size), mode="bilinear", antialias=True))


class Words:
    """Texts to ids of CLIP's BPE; a word is looked up once."""

    def __init__(self) -> None:
        self.tokenizer = SimpleTokenizer()
        self._known: dict[str, list[int]] = {}

    def texts(self, texts: Sequence[str]) -> Texts:
        """Texts, cut at the longest one's end."""
        encoded = [torch.tensor(self._ids(text)) for text in texts]
        ids = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True)
        return Texts(ids, torch.tensor([len(one) - 1 for one in encoded]))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = [self.tokenizer.sot_token_id]
        for word in text.replace(",", " ,").replace(".", " .").replace(";", " ;").split():
            if word not in self._known:
                self._known[word] = self.tokenizer.encode(word)
            ids += self._known[word]
        return [*ids, self.tokenizer.eot_token_id]


def load(cache: Path, jobs: Sequence[tuple[str, int, int]], size: tuple[int, int] = (208, 272)) -> list[Scenes]:
    """Training scenes of (domain, count, seed), rendered into the cache where they are not there yet."""
    return [Scenes(domain, "train", count, size, seed, cache) for domain, count, seed in jobs]


def _cells(part: Scenes) -> Tensor:
    store = part.store
    assert store is not None
    n, h, w = store.depth.shape
    from depthtokens.scenes.content import DEPTH_SCALE

    out = np.empty((n, h // CELL, w // CELL), np.float32)
    with np.errstate(all="ignore"):
        for i in range(0, n, 256):
            block = np.asarray(store.depth[i : i + 256]).reshape(-1, h // CELL, CELL, w // CELL, CELL).astype(np.float32)
            seen = (block > 0).sum((2, 4))
            total = np.log(np.where(block > 0, block, 1) / np.where(block > 0, DEPTH_SCALE[part.domain], 1)).sum((2, 4))
            out[i : i + 256] = np.where(seen > CELL * CELL / 2, total / seen, np.nan)
    return torch.from_numpy(out)


def _grid(cells: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Log depth [B, h, w] -> its mean over valid cells and the share of them, per position of the tower [B, side * side]."""
    valid = ~cells.isnan()
    share = F.adaptive_avg_pool2d(valid[:, None].float(), side).flatten(1)
    mean = F.adaptive_avg_pool2d(cells.nan_to_num(0.0)[:, None], side).flatten(1) / share.clamp(min=1e-6)
    return mean, share


def _choose(depth: Tensor, share: Tensor, regions: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Up to `regions` positions of each picture with depth: [R, 2] picture and position, and metres [R]."""
    order = torch.from_numpy(rng.random(share.shape)).masked_fill(share < 0.6, 2.0)
    best = order.topk(min(regions, order.shape[1]), dim=1, largest=False)
    picture, k = torch.nonzero(best.values < 1.5, as_tuple=True)
    position = best.indices[picture, k]
    return torch.stack([picture, position], dim=1), depth[picture, position].exp()
