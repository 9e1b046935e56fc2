"""SILog and its gradient, and the cross-entropy of bins, against the formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DataError, UsageError, bin_cross_entropy, silog
from depthtokens.depth.loss import patch_truth


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


def test_truth_of_patches():
    """From where resizing puts a patch, whatever holes there are."""
    ramp = torch.arange(40.0)[None, None, None, :].expand(1, 1, 30, 40) + 1
    assert torch.allclose(patch_truth(ramp, (3, 4))[0, 1], torch.tensor([1.0, 14, 27, 40]), atol=2.7)  # at borders half a cell's median
    assert patch_truth(ramp, (3, 4))[0, 1, 1:3].tolist() == [14, 27] and patch_truth(ramp, (1, 1)).item() == pytest.approx(20.5, abs=1)
    holes = ramp.clone()
    holes[..., ::3], holes[:, :, :2], holes[:, :, :, 33:] = 0, 0, 0  # some everywhere, a border, and all that one column of patches has
    found = patch_truth(holes, (3, 4))[0]
    assert (found[:, 3] == 0).all() and (found[:, :3] > 0).all() and found[1, 2].item() == pytest.approx(27, abs=3)


@pytest.mark.parametrize("ordinal", [False, True])
def test_cross_entropy_of_bins(ordinal):
    generator = torch.Generator().manual_seed(0)
    logits, centres = torch.randn(2, 4, 2, 3, generator=generator), torch.tensor([1.0, 2.0, 4.0, 8.0])
    target = 9 * torch.rand(2, 1, 8, 12, generator=generator)
    target[0, :, :4] = 0  # the upper patches of one image have no truth
    expected = []
    for b, i, j in [(b, i, j) for b in range(2) for i in range(2) for j in range(3) if b or i]:
        depth = patch_truth(target, (2, 3))[b, i, j].item()
        if ordinal:  # centres are log 2 apart
            wanted = torch.tensor([math.exp(-((math.log(c) - math.log(depth)) ** 2) / (2 * (math.log(2) / 2) ** 2)) for c in centres])
        else:
            wanted = torch.eye(4)[sum(depth > edge for edge in (1.5, 3.0, 6.0))]
        expected.append(-(wanted / wanted.sum() @ logits[b, :, i, j].log_softmax(0)).item())
    loss = bin_cross_entropy(logits, target, centres, ordinal=ordinal)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert bin_cross_entropy(logits.softmax(dim=1).log(), target, centres, ordinal=ordinal).item() == pytest.approx(loss.item(), rel=1e-5)
    assert bin_cross_entropy(logits, torch.zeros_like(target), centres, ordinal=ordinal) == 0


def test_cross_entropy_moves_where_silog_cannot():
    """A softmax so sure of the wrong bin that its other probabilities are 0."""
    logits = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    centres, target = torch.tensor([1.0, 4.0]), torch.full((1, 1, 2, 2), 4.0)
    depth = torch.nn.functional.conv2d(logits.softmax(dim=1), centres[None, :, None, None])
    assert torch.autograd.grad(silog(depth, target), logits)[0].abs().max() == 0
    assert torch.autograd.grad(bin_cross_entropy(logits, target, centres), logits)[0].flatten().tolist() == [1, -1]


def test_cross_entropy_of_what_does_not_fit():
    logits, target, centres = torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 8, 8), torch.tensor([1.0, 2.0, 3.0])
    for wrong, message in (
        ((logits[0], target, centres), "logits: needs a tensor [B, N, h, w]"), ((logits, target[:, 0], centres), "[B, 1, H, W]"),
        ((logits, target, centres[:2]), "3 bins of 2 images do not fit 2 centres and 2 targets"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            bin_cross_entropy(*wrong)
        assert message in str(caught.value)
