"""The Triton kernels against the PyTorch path in float64: on a GPU, or under Triton's interpreter (test_triton.py)."""

import math
import os

import pytest
import torch

from labo_fairseq.losses import triton_kernels
from labo_fairseq.losses.blockwise import Rows, differentiable_terms
from labo_fairseq.losses.labo import LaboOptions, labo_kernel, uniform_smoothing
from labo_fairseq.losses.triton_kernels import TritonKernel

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.fixture(autouse=True)
def _on_the_device():
    torch.set_default_device(DEVICE)
    yield
    torch.set_default_device(None)


def draw(n, k, scale=3.0, dtype=torch.float32):
    generator = torch.Generator(DEVICE).manual_seed(n * k)
    logits = torch.randn(n, k, generator=generator) * scale
    return logits.to(dtype), torch.randint(k, (n,), generator=generator)


def kernel_of(options, logits):
    """The Triton kernel, which labo_kernel chooses on a GPU."""
    return TritonKernel(options, labo_kernel(options, logits, plain=True).block)


def terms_of(logits, target, ignored=None, options=LaboOptions()):  # noqa: B008, for it is immutable
    ignored = torch.zeros(target.shape, dtype=torch.bool) if ignored is None else ignored
    return differentiable_terms(kernel_of(options, logits), Rows(logits, target, ignored))


def check(logits, target, tau=1.25, alpha="adaptive", z_loss=0.0, **kwargs):
    check_options(LaboOptions(tau, alpha, z_loss=z_loss), logits, target, **kwargs)


def check_options(options, logits, target, scale=None, rtol=1e-4, atol=1e-5):
    """All terms, and the gradient, against the PyTorch path in float64."""
    scale = torch.ones(target.shape) if scale is None else scale
    z = logits.clone().requires_grad_()
    terms = terms_of(z, target, options=options)
    (terms[0] * scale).sum().backward()
    grad = torch.empty(logits.shape, dtype=torch.float64)
    ignored = torch.zeros(target.shape, dtype=torch.bool)
    wide = logits.double()
    expected = labo_kernel(options, wide).reduce(Rows(wide, target, ignored), grad, scale.double())
    torch.testing.assert_close(torch.stack(terms).double(), expected, rtol=rtol, atol=atol)
    assert z.grad.dtype == logits.dtype
    rounding = {torch.float32: rtol, torch.bfloat16: 1e-2, torch.float16: 2e-3}[logits.dtype]
    torch.testing.assert_close(z.grad.double(), grad, rtol=rounding, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("k", [2, 3, 128, 129, 1000])
@pytest.mark.parametrize("alpha", ["adaptive", 0.0, 0.1, 1.0])
def test_any_shape(n, k, alpha):
    check(*draw(n, k), alpha=alpha)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 1.5])
@pytest.mark.parametrize("z_loss", [0.0, 0.3])
@pytest.mark.parametrize("block", [64, 4096])
def test_label_smoothing(monkeypatch, block, z_loss, epsilon):
    """τ = ∞; the mass of smoothing that spares the target may be above 1."""
    monkeypatch.setattr(triton_kernels, "_MAX_BLOCK", block)
    options = uniform_smoothing(epsilon, z_loss)
    for k in (2, 3, 128, 129, 1000):
        check_options(options, *draw(3, k))
    logits, target = draw(4, 333)
    logits[0] = torch.linspace(-50, 50, 333)
    logits[1] = torch.linspace(50, -50, 333)
    logits[2] = torch.linspace(-1e4, 1e4, 333)
    check_options(options, logits, target, scale=torch.arange(4.0))
    for dtype in (torch.bfloat16, torch.float16):
        check_options(options, *draw(4, 2000, dtype=dtype))


def test_label_smoothing_of_masked_classes():
    """Mass on a class of probability 0 costs without end, and its gradient is that mass."""
    logits, target = draw(3, 40)
    logits[:, 7] = -math.inf
    z = logits.clone().requires_grad_()
    loss = terms_of(z, target, options=uniform_smoothing(0.1))[0]
    loss.sum().backward()
    assert (loss > 1e30).all()
    torch.testing.assert_close(z.grad[:, 7], torch.full((3,), -0.1 / 40) - 0.9 * (target == 7))


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.15, 5.0, 50.0, 1e4])
def test_rows_of_several_blocks(monkeypatch, tau):
    """Rising, falling and random maxima from block to block."""
    monkeypatch.setattr(triton_kernels, "_MAX_BLOCK", 64)
    logits, target = draw(4, 333)
    logits[0] = torch.linspace(-50, 50, 333)
    logits[1] = torch.linspace(50, -50, 333)
    check(logits, target, tau=tau)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [16384, 16385, 20001])
def test_long_rows_take_more_threads(k, dtype):
    check(*draw(2, k, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scales_before_it_rounds(dtype):
    logits, target = draw(4, 2000, scale=0.1, dtype=dtype)
    check(logits, target, scale=torch.full((4,), 1024.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_one_scale_for_all_rows(dtype, factor):
    """Of a sum autograd gives a gradient that is repeated in place, and not in memory."""
    logits, target = draw(5, 300, dtype=dtype)
    grads = []
    for weights in (factor, torch.full((5,), factor)):
        z = logits.clone().requires_grad_()
        loss = terms_of(z, target)[0]
        (loss.sum() * weights if isinstance(weights, float) else (loss * weights).sum()).backward()
        grads.append(z.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("factor", [1 / 3, 2.0])
def test_the_scale_of_the_backward_pass_may_be_known(factor):
    """Or be another, as where a mean is weighted."""
    logits, target = draw(3, 70)
    rows = Rows(logits.requires_grad_(), target, torch.zeros(3, dtype=torch.bool))
    known = TritonKernel(LaboOptions(), kernel_of(LaboOptions(), logits).block, torch.tensor(1 / 3))
    (factor * differentiable_terms(known, rows)[0]).sum().backward()
    mine, logits.grad = logits.grad, None
    (factor * differentiable_terms(kernel_of(LaboOptions(), logits), rows)[0]).sum().backward()
    torch.testing.assert_close(mine, logits.grad)


def test_every_token_may_have_a_weight():
    check(*draw(5, 70), scale=torch.arange(5.0))


def test_ignored_tokens():
    logits, target = draw(5, 70)
    ignored = torch.tensor([True, False, False, True, False])
    logits[0] = math.nan
    z = logits.clone().requires_grad_()
    terms = terms_of(z, target, ignored)
    terms[0].sum().backward()
    assert all((term[ignored] == 0).all() for term in terms)
    assert (z.grad[ignored] == 0).all()
    check(logits[~ignored], target[~ignored])
    expected = terms_of(logits[~ignored], target[~ignored])
    torch.testing.assert_close(terms[0][~ignored].detach(), expected[0])
    wanted = torch.where(ignored, math.inf, 2.0)
    again = logits.clone().requires_grad_()
    torch.autograd.backward(terms_of(again, target, ignored)[0], wanted)
    torch.testing.assert_close(again.grad, 2 * z.grad)


@pytest.mark.parametrize("block", [4, 4096])
@pytest.mark.parametrize("alpha", ["adaptive", 0.1, 1.0])
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])  # a gradient in the forward pass, and one after it
@pytest.mark.parametrize("wrong", [-3, 16])
def test_a_target_that_is_no_class_spoils_its_own_row_alone(dtype, wrong):
    logits, target = draw(3, 16, dtype=dtype)
    target[1] = wrong
    z = logits.clone().requires_grad_()
    loss = terms_of(z, target)[0]
    loss.sum().backward()
    assert loss.isnan().tolist() == [False, True, False]
    assert z.grad.isnan().any(dim=-1).tolist() == [False, True, False]
    kept = logits[[0, 2]].clone().requires_grad_()
    terms_of(kept, target[[0, 2]])[0].sum().backward()
    torch.testing.assert_close(z.grad[[0, 2]], kept.grad)


def test_strided_logits():
    logits, target = draw(6, 50)
    check(logits.t().contiguous().t(), target)
    check(torch.cat([logits, logits], -1)[:, :50], target)
    check(torch.cat([logits, logits], -1)[:, ::2], target)


def test_the_gradient_may_take_the_place_of_the_logits():
    logits, target = draw(6, 50)
    ignored = torch.zeros(6, dtype=torch.bool)
    kernel = kernel_of(LaboOptions(), logits)
    expected = torch.empty_like(logits)
    rows = Rows(logits, target, ignored)
    kernel.reduce(rows, expected)
    kernel.reduce(rows, logits)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("alpha", ["adaptive", 0.1])
def test_z_loss(alpha):
    check(*draw(5, 70), alpha=alpha, z_loss=0.3)
    check(*draw(5, 700, dtype=torch.bfloat16), alpha=alpha, z_loss=0.3)


def test_a_second_derivative_is_that_of_the_pytorch_path():
    logits, target = draw(4, 30)

    def penalty_gradient(kernel, logits):
        z = logits.clone().requires_grad_()
        loss = differentiable_terms(kernel, Rows(z, target, torch.zeros(4, dtype=torch.bool)))[0].sum()
        (grad,) = torch.autograd.grad(loss, z, create_graph=True)
        grad.square().sum().backward()
        return z.grad

    mine = penalty_gradient(kernel_of(LaboOptions(), logits), logits)
    wide = logits.double()
    torch.testing.assert_close(
        mine.double(), penalty_gradient(labo_kernel(LaboOptions(), wide), wide), rtol=1e-4, atol=1e-6
    )


def test_the_graph_can_be_used_twice():
    logits, target = draw(4, 6)
    logits.requires_grad_()
    loss = terms_of(logits, target)[0].sum()
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    loss.backward()
    torch.testing.assert_close(logits.grad, 2 * once)
