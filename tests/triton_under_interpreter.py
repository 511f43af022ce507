"""The Triton kernels under Triton's interpreter, which test_triton.py starts: against the PyTorch path in float64."""

import math

import pytest
import torch

from labo_fairseq.losses import triton_kernels
from labo_fairseq.losses.labo import labo_rows
from labo_fairseq.losses.triton_kernels import TritonLabo, gradient, statistics


def draw(n, k, scale=3.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n * k)
    logits = torch.randn(n, k, generator=generator) * scale
    return logits.to(dtype), torch.randint(k, (n,), generator=generator)


def check(logits, target, tau=1.25, alpha=None, scale=None, ignored=None, rtol=1e-4, atol=1e-5):
    """All terms, and the gradient, against the PyTorch path in float64."""
    ignored = torch.zeros(target.shape, dtype=torch.bool) if ignored is None else ignored
    scale = torch.ones(target.shape) if scale is None else scale
    z = logits.clone().requires_grad_()
    terms = TritonLabo.apply(z, target, ignored, tau, alpha, 0.5)
    (terms[0] * scale).sum().backward()
    grad = torch.empty(logits.shape, dtype=torch.float64)
    expected = labo_rows(logits.double(), target, ignored, tau, alpha, 0.5, grad, scale.double())
    torch.testing.assert_close(torch.stack(terms).double(), expected, rtol=rtol, atol=atol)
    assert z.grad.dtype == logits.dtype
    rounding = {torch.float32: rtol, torch.bfloat16: 1e-2, torch.float16: 2e-3}[logits.dtype]
    torch.testing.assert_close(z.grad.double(), grad, rtol=rounding, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("k", [2, 3, 128, 129, 1000])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.1, 1.0])
def test_any_shape(n, k, alpha):
    check(*draw(n, k), alpha=alpha)


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.15, 5.0])
def test_rows_of_several_blocks(monkeypatch, tau):
    """Rising, falling and random maxima from block to block."""
    monkeypatch.setattr(triton_kernels, "_MAX_BLOCK", 64)
    logits, target = draw(4, 333)
    logits[0] = torch.linspace(-50, 50, 333)
    logits[1] = torch.linspace(50, -50, 333)
    check(logits, target, tau=tau)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scales_before_it_rounds(dtype):
    logits, target = draw(4, 2000, scale=0.1, dtype=dtype)
    check(logits, target, scale=torch.full((4,), 1024.0))


def test_every_token_may_have_a_weight():
    check(*draw(5, 70), scale=torch.arange(5.0))


def test_ignored_tokens():
    logits, target = draw(5, 70)
    ignored = torch.tensor([True, False, False, True, False])
    logits[0] = math.nan
    z = logits.clone().requires_grad_()
    terms = TritonLabo.apply(z, target, ignored, 1.25, None, 0.5)
    terms[0].sum().backward()
    assert all((term[ignored] == 0).all() for term in terms)
    assert (z.grad[ignored] == 0).all()
    check(logits[~ignored], target[~ignored])
    expected = TritonLabo.apply(logits[~ignored], target[~ignored], ignored[~ignored], 1.25, None, 0.5)
    torch.testing.assert_close(terms[0][~ignored].detach(), expected[0])


@pytest.mark.parametrize("block", [4, 4096])
@pytest.mark.parametrize("alpha", [None, 0.1, 1.0])
def test_extreme_logits(monkeypatch, block, alpha):
    monkeypatch.setattr(triton_kernels, "_MAX_BLOCK", block)
    inf = math.inf
    rows = [
        [1e4, -1e4, 0.0, 0.0, 1.0],
        [-1e4, -1e4, -1e4, -1e4, -1e4],
        [5.0, -inf, 3.0, -inf, 1e4],
        [0.0, -inf, -inf, -inf, -inf],
    ]
    check(torch.tensor(rows), torch.tensor([0, 1, 2, 0]), alpha=alpha, rtol=1e-4, atol=1e-2)
    leading = torch.full((1, 12), -inf)
    leading[0, 9:] = torch.tensor([1.0, 2.0, 3.0])
    check(leading, torch.tensor([10]), alpha=alpha)


def test_strided_logits():
    logits, target = draw(6, 50)
    check(logits.t().contiguous().t(), target)
    check(torch.cat([logits, logits], -1)[:, :50], target)
    check(torch.cat([logits, logits], -1)[:, ::2], target)


def test_the_gradient_may_take_the_place_of_the_logits():
    logits, target = draw(6, 50)
    ignored = torch.zeros(6, dtype=torch.bool)
    _, saved = statistics(logits, target, ignored, 1.25, None, 0.5)
    expected = torch.empty_like(logits)
    gradient(logits, target, ignored, saved, 1.25, torch.ones(6), expected)
    triton_kernels.labo_rows(logits, target, ignored, 1.25, None, 0.5, logits)
    assert torch.equal(logits, expected)


def test_the_graph_can_be_used_twice():
    logits, target = draw(4, 6)
    logits.requires_grad_()
    loss = TritonLabo.apply(logits, target, torch.zeros(4, dtype=torch.bool), 1.25, None, 0.5)[0].sum()
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    loss.backward()
    torch.testing.assert_close(logits.grad, 2 * once)
