"""What a scene is called by: seeds that never meet."""

from depthtokens.scenes.content import scene_seed


def test_seeds_of_splits_never_meet():
    seeds = {scene_seed(seed, split, index) for seed in range(4) for split in ("train", "test") for index in range(500)}
    assert len(seeds) == 4 * 2 * 500
