"""Controls: geometric means of the training split, scored beside a model."""

from __future__ import annotations

import numpy as np
import pytest

from depthtokens import DepthTokens
from depthtokens.data import open_dataset
from depthtokens.experiment.controls import learn_controls
from depthtokens.experiment.evaluate import head_of, score_heads
from depthtokens.experiment.source import Reading, open_source


def test_controls(nyu_tree, tiny_clip):
    training, test = (open_dataset(f"nyu:{nyu_tree}", split) for split in ("train", "test"))
    controls = learn_controls(training, (0.001, 10.0), workers=0)
    depths = np.stack([training.read(i)[1] for i in range(len(training))])
    assert controls.constant == pytest.approx(np.exp(np.log(depths).mean()), rel=1e-5)
    assert controls.mean_map[0, 0].numpy() == pytest.approx(np.exp(np.log(depths).mean(axis=0)), rel=1e-5)
    model = DepthTokens(tiny_clip)
    source = open_source(model, test, None, Reading(workers=0))
    rows = score_heads({"tokens": head_of(model)}, source, "depthclip", controls)
    assert list(rows) == ["tokens", "constant", "mean map"]
    # The map is cropped as the image is, not squeezed.
    target = test.read(0)[1][56:471, 60:601]
    predicted = np.exp(np.log(depths).mean(axis=0))[56:471, 60:601]
    assert rows["mean map"].per_image[0]["abs_rel"] == pytest.approx(np.mean(np.abs(predicted - target) / target), rel=1e-4)
