"""Ridge regression in closed form: the same as least squares, over patches that have truth."""

from __future__ import annotations

import math

import pytest
import torch

from depthtokens.depth.ridge import Ridge, moments, solve, squared_error


@pytest.fixture
def made():
    """Features [3, 5, 4, 6] whose fifth channel is nearly the fourth, and truth [3, 1, 4, 6] metres with holes."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(3, 5, 4, 6, generator=generator) + 7
    patches[:, 4] = patches[:, 3] + 1e-3 * patches[:, 4]
    truth = (0.3 * patches[:, :1] - 0.2 * patches[:, 3:4] + 0.1 * torch.randn(3, 1, 4, 6, generator=generator)).exp()
    truth[:, :, 1, 2:] = 0
    return patches, truth


@pytest.mark.parametrize("strength", [0.0, 1e-3, 1.0])
def test_it_is_least_squares(made, strength):
    patches, truth = made
    sums = moments(patches[:2], truth[:2]) + moments(patches[2:], truth[2:])
    (found,) = solve(sums, [strength])
    valid = truth.flatten() > 0
    rows, wanted = patches.permute(0, 2, 3, 1).reshape(-1, 5)[valid].double(), truth.flatten()[valid].double().log()
    centred = rows - rows.mean(dim=0)
    penalty = (strength * len(rows) * centred.var(dim=0, correction=0).mean()).sqrt() * torch.eye(5)
    weight = torch.linalg.lstsq(
        torch.cat([centred, penalty.double()]), torch.cat([wanted - wanted.mean(), torch.zeros(5)])[:, None]
    ).solution[:, 0]
    bias = wanted.mean() - rows.mean(dim=0) @ weight
    assert torch.allclose(found, torch.cat([weight, bias[None]]), atol=1e-6)
    errors = (rows @ found[:-1] + found[-1] - wanted).square()
    assert squared_error(found, sums) == pytest.approx(float(errors.sum()), rel=1e-6)
    ridge = Ridge(found[:-1].float(), float(found[-1]), strength, (0.5, 2.0))
    assert ridge.parameters == 6
    assert torch.allclose(ridge(patches).flatten()[valid], (rows @ found[:-1] + found[-1]).exp().clamp(0.5, 2.0).float(), atol=1e-3)


def test_a_patch_without_truth_does_not_count(made):
    patches, truth = made
    changed = patches.clone()
    changed[:, :, 1, 2:] = torch.nan
    assert torch.equal(moments(changed, truth), moments(patches, truth))


def test_constant_features_give_the_constant():
    sums = moments(torch.ones(1, 3, 2, 2), torch.tensor([1.0, 2.0, 4.0, 0.0]).view(1, 1, 2, 2))
    (found,) = solve(sums, [1e-3])
    assert found[:3].sum() + found[3] == pytest.approx(math.log(2))
