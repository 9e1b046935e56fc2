"""SILog and its gradient against the formula written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DataError, silog


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("small", "large"), [((3, 5), (17, 23)), ((1, 4), (9, 9)), ((4, 4), (4, 4))])
def test_silog_s_own_gradient_is_autograd_s(holes, small, large):
    """Loss and gradient in one pass, against the formula written out and differentiated by torch."""
    torch.manual_seed(1)
    depth = (0.1 + 9 * torch.rand(3, 1, *small)).requires_grad_()
    target = (0.1 + 9 * torch.rand(3, 1, *large)) * (torch.rand(3, 1, *large) >= holes)
    target[1] = 0  # an image without any truth
    resized = F.interpolate(depth, size=large, mode="bilinear", align_corners=True)
    g = (resized.log() - target.log())[target > 0.001]
    plain = 10 * torch.sqrt((g**2).mean() - 0.85 * g.mean() ** 2)
    loss = silog(depth, target)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    ours, theirs = torch.autograd.grad(3 * loss, depth)[0], torch.autograd.grad(3 * plain, depth)[0]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())
    assert ours[1].abs().max() == 0


def test_silog():
    torch.manual_seed(0)
    depth, target = 1 + torch.rand(2, 1, 3, 4), 5 * torch.rand(2, 1, 12, 16)
    target[0, 0, :6] = 0
    resized = F.interpolate(depth, size=(12, 16), mode="bilinear", align_corners=True)
    g = (resized.log() - target.log())[target > 0.001].double()
    expected = 10 * math.sqrt((g**2).mean() - 0.85 * g.mean() ** 2)
    assert silog(depth, target).item() == pytest.approx(expected, rel=1e-5)
    # A global factor costs only the 0.15 share.
    same = torch.full((1, 1, 4, 4), 2.0)
    assert silog(2 * same, same).item() == pytest.approx(10 * math.sqrt(0.15) * math.log(2), rel=1e-5)
    with pytest.raises(DataError, match="no valid ground truth"):
        silog(depth, torch.zeros(2, 1, 12, 16))


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_silog_compiles_without_a_break():
    depth, target = (1 + torch.rand(2, 1, 3, 4)).requires_grad_(), 5 * torch.rand(2, 1, 12, 16)
    torch.compiler.reset()
    found, expected = torch.compile(silog, fullgraph=True, backend="eager")(depth, target), silog(depth, target)
    assert torch.allclose(found, expected)
    assert torch.allclose(*(torch.autograd.grad(loss, depth)[0] for loss in (found, expected)))
