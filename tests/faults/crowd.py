"""Several at once: processes that run one command in one folder, and threads that predict while tokens change."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import torch

from depthtokens import DepthTokens, load_clip
from faults.kills import copied, difference
from faults.process import finish, start
from faults.world import Verb, result


def together(world: Path, folder: Path, verb: Verb, expected: dict[str, str], count: int) -> str | None:
    """Start a verb `count` times at once. Returns what was wrong, None where one did the work and the others did it too or were refused."""
    copied(world, folder)
    try:
        ended = [finish(*started) for started in [start(verb.run, folder) for _ in range(count)]]
        if faults := [done.fault for done in ended if done.fault]:
            return faults[0]
        if not any(done.code == 0 for done in ended):
            return f"none did the work: {ended[0].said.strip()[:200]}"
        return difference(result(folder), expected)
    finally:
        shutil.rmtree(folder)


def changing(world: Path, seconds: float, threads: int) -> tuple[int, int]:
    """Predict from threads while the tokens of the model are exchanged, in place and by new ones.

    Args:
        world: its CLIP and tokens are used.
        seconds: how long.
        threads: that predict.

    Returns:
        How many maps were made, and how many of them belong to neither of the two sets of tokens.
    """
    torch.set_num_threads(1)
    clip = load_clip(world / "tiny.pt")
    model = DepthTokens.load(world / "tokens.safetensors", clip)
    photo = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    sets = [model.tokens["depth"].detach().clone(), 3 * model.tokens["depth"].detach().flip(0)]
    allowed = []
    for values in sets:
        with torch.no_grad():
            model.tokens["depth"].copy_(values)
        allowed.append(model.predict(photo).metres)
    assert not np.array_equal(*allowed)
    made, wrong, ended = [0] * threads, [0] * threads, threading.Event()

    def predicting(place: int) -> None:
        while not ended.is_set():
            found = model.predict(photo).metres
            made[place] += 1
            wrong[place] += not any(np.array_equal(found, one) for one in allowed)

    crew = [threading.Thread(target=predicting, args=(i,)) for i in range(threads)]
    for one in crew:
        one.start()
    turn = threading.Event()
    for i in range(int(seconds / 0.002)):
        with torch.no_grad():
            if i % 2:
                model.tokens["depth"].copy_(sets[i // 2 % 2])
            else:
                model.tokens["depth"] = torch.nn.Parameter(sets[i // 2 % 2].clone())
        turn.wait(0.002)
    ended.set()
    for one in crew:
        one.join()
    return sum(made), sum(wrong)
