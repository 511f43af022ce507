"""Second derivatives, torch.func, forward mode and torch.compile, of all losses: the derivatives of their gradient."""

import math

import pytest
import torch
from torch.autograd import forward_ad

from labo_fairseq.losses import (
    LaboLoss,
    LinearLaboLoss,
    anti_focal_terms,
    confidence_penalty_terms,
    distillation_terms,
    focal_terms,
    labo_terms,
    linear_labo_terms,
)


def draw(n, k, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n * k)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64) * scale
    return logits.to(dtype), torch.randint(k, (n,), generator=generator)


def distil(logits, target, alpha, **options):
    teacher = torch.linspace(-1, 1, logits.size(-1), dtype=logits.dtype).softmax(-1).expand(logits.shape)
    return distillation_terms(logits, target, teacher, alpha, **options)


def fused(logits, target, *options, **named):
    """The hidden states are the logits, the weight a fixed matrix near the identity."""
    k = logits.size(-1)
    weight = torch.eye(k, dtype=logits.dtype) + torch.linspace(-0.1, 0.1, k * k, dtype=logits.dtype).view(k, k)
    return linear_labo_terms(logits, weight, target, *options, **named)


LOSSES = {
    "labo": (labo_terms, ()),
    "labo, fixed alpha": (labo_terms, (1.15, 0.3)),
    "labo, rho 1, large tau": (labo_terms, (30.0, "adaptive", 1.0)),
    "fused labo": (fused, ()),
    "confidence penalty": (confidence_penalty_terms, (0.7,)),
    "focal": (focal_terms, (2.0,)),
    "focal, small gamma": (focal_terms, (0.5,)),
    "anti-focal": (anti_focal_terms, (0.5, 1.5)),
    "distillation": (distil, (0.3,)),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def loss_of(name, target, **named):
    terms_of, options = LOSSES[name]
    return lambda logits: terms_of(logits, target, *options, **named).loss


def gradient_of(loss, logits):
    """The first gradient, which the other tests hold against the equations."""
    z = logits.detach().clone().requires_grad_()
    loss(z).sum().backward()
    return z.grad


def jacobian_by_differences(loss, logits, h=1e-5):
    """d gradient / d logits, (N·K, N·K), by central differences of the first gradient."""
    columns = []
    for i in range(logits.numel()):
        step = torch.zeros(logits.numel(), dtype=logits.dtype)
        step[i] = h
        step = step.view(logits.shape)
        columns.append((gradient_of(loss, logits + step) - gradient_of(loss, logits - step)).flatten() / (2 * h))
    return torch.stack(columns, dim=-1)


@every_loss
def test_the_second_derivative_is_that_of_the_gradient(name):
    logits, target = draw(3, 5)
    loss = loss_of(name, target)
    assert torch.autograd.gradgradcheck(loss, (logits.clone().requires_grad_(),))
    jacobian = torch.autograd.functional.jacobian(
        lambda z: torch.autograd.grad(loss(z).sum(), z, create_graph=True)[0], logits.clone().requires_grad_()
    )
    torch.testing.assert_close(jacobian.view(15, 15), jacobian_by_differences(loss, logits), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha", ["adaptive", 0.3])
def test_labo_equals_the_written_out_derivative(alpha):
    """dg = diag(p) − p·pᵀ − α/τ·(diag(P*) − P*·P*ᵀ) + (onehot(k) − P*)·dα, and dα = ρ/log K·Σ p·(log p + H)·dz."""
    (z,), target = draw(1, 6)[0], torch.tensor([2])
    p, p_star = z.softmax(-1), (z / 1.25).softmax(-1)
    entropy = -(p * p.log()).sum()
    mass = 1 - 0.5 * entropy / math.log(6) if alpha == "adaptive" else torch.tensor(alpha)
    d_mass = 0.5 / math.log(6) * p * (p.log() + entropy) if alpha == "adaptive" else torch.zeros(6)
    expected = p.diag() - p.outer(p) - mass / 1.25 * (p_star.diag() - p_star.outer(p_star))
    expected = expected + (torch.eye(6)[2] - p_star).outer(d_mass.double())
    y = z[None].clone().requires_grad_()
    (grad,) = torch.autograd.grad(labo_terms(y, target, alpha=alpha).loss.sum(), y, create_graph=True)
    rows = [torch.autograd.grad(g, y, retain_graph=True)[0][0] for g in grad[0]]
    torch.testing.assert_close(torch.stack(rows), expected)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gradient_penalty_reaches_every_parameter(name, dtype):
    """loss + λ·‖∂loss/∂x‖², the gradient in weight and bias, against differences of the whole in float64."""
    generator = torch.Generator().manual_seed(5)
    x, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((4, 3), (6, 3), (6,)))
    loss = loss_of(name, torch.tensor([0, 5, 2, 2]))

    def penalized(x, weight, bias):
        x = x.detach().requires_grad_()
        value = loss(torch.nn.functional.linear(x, weight, bias)).mean()
        (grad,) = torch.autograd.grad(value, x, create_graph=True)
        return value.detach() * 0 + grad.square().sum()

    leaves = [tensor.to(dtype).requires_grad_() for tensor in (weight, bias)]
    penalized(x.to(dtype), *leaves).backward()
    for number, leaf in enumerate(leaves):
        for i in (0, 3):
            step = torch.zeros_like(leaf, dtype=torch.float64).flatten()
            step[i] = 1e-5
            values = []
            for sign in (1, -1):
                moved = [weight, bias]
                moved[number] = moved[number] + sign * step.view(leaf.shape)
                values.append(penalized(x, *moved).item())
            expected = (values[0] - values[1]) / 2e-5
            tolerance = 1e-5 if dtype == torch.float64 else 2e-3
            assert leaf.grad.flatten()[i].item() == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_the_fused_loss_has_second_derivatives_in_all_three():
    generator = torch.Generator().manual_seed(5)
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((4, 3), (6, 3), (6,))]
    target = torch.tensor([0, 5, -100, 2])

    def loss(hidden, weight, bias):
        return linear_labo_terms(hidden, weight, target, bias=bias).loss

    assert torch.autograd.gradgradcheck(loss, [tensor.requires_grad_() for tensor in inputs])


@every_loss
def test_ignored_and_masked_classes_leave_second_derivatives_finite(name):
    logits, target = draw(4, 5)
    target[1] = -100
    loss = loss_of(name, target)
    kept = target != -100
    expected = torch.autograd.functional.hessian(lambda z: loss_of(name, target[kept])(z).sum(), logits[kept])
    logits[1] = math.nan
    actual = torch.autograd.functional.hessian(lambda z: loss(z).sum(), logits)
    torch.testing.assert_close(actual[kept][:, :, kept], expected)
    assert (actual[1] == 0).all()
    assert (actual[:, :, 1] == 0).all()
    if name == "fused labo":  # 0 times −inf is NaN in the projection already
        return
    logits, target = draw(2, 5)
    target[:] = torch.tensor([0, 1])
    logits[:, 3] = -math.inf
    hessian = torch.autograd.functional.hessian(lambda z: loss_of(name, target)(z).sum(), logits)
    assert hessian.isfinite().all()
    assert (hessian[:, 3] == 0).all()


@every_loss
def test_the_gradient_is_the_same_with_a_graph_and_can_be_used_again(name):
    logits, target = draw(4, 6, dtype=torch.float32)
    loss = loss_of(name, target)
    z = logits.clone().requires_grad_()
    value = loss(z).sum()
    (grad,) = torch.autograd.grad(value, z, create_graph=True)
    torch.testing.assert_close(grad, gradient_of(loss, logits))
    torch.testing.assert_close(torch.autograd.grad(value, z)[0], grad)


@every_loss
def test_ignored_tokens_have_no_gradient_where_the_others_have_none_that_is_finite(name):
    logits, target = draw(4, 6, dtype=torch.float32)
    target[1] = -100
    kept = target != -100
    for factor in (math.inf, math.nan):
        for upstream in (torch.tensor([1.0, factor, 1.0, 1.0]), torch.full((4,), factor)):
            z = logits.clone().requires_grad_()
            loss_of(name, target)(z).backward(upstream)
            assert (z.grad[1] == 0).all()
            assert bool(z.grad[kept].isfinite().all()) is bool(upstream[kept].isfinite().all())
    z = logits.clone().requires_grad_()
    (loss_of(name, torch.full_like(target, -100))(z).sum() / 0).backward()
    assert (z.grad == 0).all()


@pytest.mark.skipif(not hasattr(torch, "func"), reason="this torch cannot tell a batch of gradients")
@every_loss
def test_several_gradients_at_once(name):
    logits, target = draw(4, 5)
    target[2] = -100
    loss = loss_of(name, target)
    one_by_one = torch.autograd.functional.jacobian(loss, logits)
    torch.testing.assert_close(torch.autograd.functional.jacobian(loss, logits, vectorize=True), one_by_one)


has_func = pytest.mark.skipif(not hasattr(torch, "func"), reason="this torch has no torch.func")


@has_func
@every_loss
def test_torch_func(name):
    logits, target = draw(4, 5)
    terms_of, options = LOSSES[name]

    def one(z, k):
        return terms_of(z[None], k[None], *options).loss[0]

    torch.testing.assert_close(torch.func.vmap(one)(logits, target), loss_of(name, target)(logits))
    expected = gradient_of(loss_of(name, target), logits)
    torch.testing.assert_close(torch.func.grad(lambda z: loss_of(name, target)(z).sum())(logits), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(one))(logits, target), expected)
    direction = torch.linspace(-1, 1, 20, dtype=torch.float64).view(4, 5)
    value, change = torch.func.jvp(loss_of(name, target), (logits,), (direction,))
    torch.testing.assert_close(value, loss_of(name, target)(logits))
    torch.testing.assert_close(change, (expected * direction).sum(-1))
    hessian = torch.func.hessian(lambda z: loss_of(name, target)(z).sum())(logits)
    differences = jacobian_by_differences(loss_of(name, target), logits)
    torch.testing.assert_close(hessian.view(20, 20), differences, rtol=1e-6, atol=1e-8)


@has_func
def test_torch_func_in_half_precision_and_with_ignored_tokens():
    logits, target = draw(4, 50, dtype=torch.bfloat16)
    target[2] = -100
    actual = torch.func.grad(lambda z: LaboLoss()(z, target))(logits)
    z = logits.clone().requires_grad_()
    LaboLoss()(z, target).backward()
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, z.grad)


@every_loss
def test_forward_mode(name):
    logits, target = draw(4, 5)
    direction = torch.linspace(-1, 1, 20, dtype=torch.float64).view(4, 5)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(logits, direction)
        if not hasattr(torch, "func"):
            with pytest.raises(RuntimeError, match=r"torch 2\.0"):
                loss_of(name, target)(dual)
            return
        change = forward_ad.unpack_dual(loss_of(name, target)(dual)).tangent
    torch.testing.assert_close(change, (gradient_of(loss_of(name, target), logits) * direction).sum(-1))


@pytest.mark.skipif(
    not hasattr(getattr(torch, "compiler", None), "is_compiling"), reason="this torch compiles no autograd function"
)
@every_loss
def test_torch_compile_in_one_graph(name):
    logits, target = draw(4, 6, dtype=torch.float32)
    target[1] = -100
    loss = loss_of(name, target)
    torch._dynamo.reset()
    z = logits.clone().requires_grad_()
    value = torch.compile(loss, fullgraph=True, backend="aot_eager")(z)
    value.sum().backward()
    torch.testing.assert_close(value, loss(logits))
    torch.testing.assert_close(z.grad, gradient_of(loss, logits))


@pytest.mark.skipif(
    not hasattr(getattr(torch, "compiler", None), "is_compiling"), reason="this torch compiles no autograd function"
)
def test_torch_compile_of_the_modules():
    logits, target = draw(4, 6, dtype=torch.float32)
    torch._dynamo.reset()
    module = LaboLoss(warmup_steps=2)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for _ in range(4):
        torch.testing.assert_close(compiled(logits, target), module(logits, target))
        module.step()
    hidden = torch.ones(4, 3)
    weight = torch.ones(6, 3)
    fused_loss = LinearLaboLoss()
    compiled = torch.compile(fused_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(hidden, weight, target), fused_loss(hidden, weight, target))
