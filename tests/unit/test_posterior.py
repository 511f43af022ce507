"""The posterior of each method: what minimizes the expected loss under y, inverted, is y."""

import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labo_fairseq.losses import (
    LaboLoss,
    LinearCrossEntropyLoss,
    LinearLaboLoss,
    anti_focal_log_posterior,
    confidence_penalty_log_posterior,
    cross_entropy_log_posterior,
    distillation_log_posterior,
    focal_log_posterior,
    label_smoothing_log_posterior,
    labo_log_posterior,
    posterior,
)


def teacher_of(k):
    return torch.linspace(1, -1, k, dtype=torch.float64).softmax(-1)


def distil(logits, alpha):
    teacher = teacher_of(logits.size(-1))
    return distillation_log_posterior(logits, teacher.expand(logits.shape), alpha)


def distil_equation(logits, target, alpha):
    return reference.distillation(logits, target, teacher_of(logits.size(-1)).expand(logits.shape), alpha)


def smoothing(logits, target, epsilon):
    return torch.nn.functional.cross_entropy(logits, target, label_smoothing=epsilon, reduction="none")


def fairseq_smoothing(logits, target, epsilon):
    log_p, k = logits.log_softmax(-1), logits.size(-1)
    one = -log_p.gather(-1, target[:, None]).squeeze(-1)
    return (1 - epsilon - epsilon / (k - 1)) * one - epsilon / (k - 1) * log_p.sum(-1)


def labo(logits, target, tau, alpha, rho=0.5):
    """The objective, with the α of the prediction as the constant that it is for the gradient."""
    a = reference.adaptive_alpha(logits.detach(), rho) if alpha == "adaptive" else torch.full_like(logits[:, 0], alpha)
    return reference.objective(logits, target, tau, a.detach())


def labo_with(support):
    """The equation with P* over some classes only."""

    def equation(logits, target, tau, alpha):
        a = torch.full(target.shape, alpha, dtype=torch.float64)
        log_p = logits.log_softmax(-1)
        p_star = (logits.detach() / tau).masked_fill(~support, -math.inf).softmax(-1)
        label = (1 - a[:, None]) * reference.one_hot(target, log_p) + a[:, None] * p_star
        return -(label * log_p).sum(-1)

    return equation


SUPPORT = torch.tensor([True, False, True, True, False, True])

#: log posterior, equation of the loss, options
METHODS = {
    "cross-entropy": (cross_entropy_log_posterior, lambda z, t: smoothing(z, t, 0.0), ()),
    "label smoothing": (label_smoothing_log_posterior, smoothing, (0.1,)),
    "label smoothing, fairseq's": (
        lambda z, e: label_smoothing_log_posterior(z, e, over_others=True),
        fairseq_smoothing,
        (0.1,),
    ),
    "labo": (labo_log_posterior, labo, (1.25, "adaptive")),
    "labo, rho 1": (labo_log_posterior, labo, (1.15, "adaptive", 1.0)),
    "labo, fixed alpha": (labo_log_posterior, labo, (1.5, 0.3)),
    "labo, large tau": (labo_log_posterior, labo, (1e3, 0.1)),
    "labo, tau 1": (labo_log_posterior, labo, (1.0, "adaptive")),
    "masked labo": (
        lambda z, tau, alpha: LaboLoss(tau, alpha, smoothing_support=SUPPORT).log_posterior(z),
        labo_with(SUPPORT),
        (1.25, 0.3),
    ),
    "confidence penalty": (confidence_penalty_log_posterior, reference.confidence_penalty, (0.1,)),
    "strong confidence penalty": (confidence_penalty_log_posterior, reference.confidence_penalty, (2.0,)),
    "focal": (focal_log_posterior, reference.focal, (2.0,)),
    "focal, gamma 1/2": (focal_log_posterior, reference.focal, (0.5,)),
    "focal, gamma 5": (focal_log_posterior, reference.focal, (5.0,)),
    "anti-focal": (anti_focal_log_posterior, reference.anti_focal, (0.5, 1.0)),
    "anti-focal, stronger": (anti_focal_log_posterior, reference.anti_focal, (1.0, 1.5)),
    "distillation": (
        distil,
        lambda z, t, a: reference.distillation(z, t, teacher_of(z.size(-1)).expand(z.shape), a),
        (0.3,),
    ),
}
every_method = pytest.mark.parametrize("name", METHODS)
#: where a class that the model finds likelier gets at least as much
ORDERED = [name for name in METHODS if name not in ("distillation", "masked labo")]


def draw(n, k, scale=2.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, k, generator=generator, dtype=torch.float64) * scale).to(dtype)


def without_floor(log_y, logits):
    """The distribution before the floor mixed it with the prediction."""
    return (log_y.exp() - posterior.FLOOR * logits.softmax(-1)) / (1 - posterior.FLOOR)


def minimum(equation, y, options):
    """Logits that minimize the expected loss under y, (K,): by descent, and Newton's method for the last digits."""
    k = len(y)
    targets = torch.arange(k)

    def gradient(z):
        rows = z.expand(k, k)
        return torch.autograd.grad((y * equation(rows, targets, *options)).sum(), z, create_graph=True)[0]

    z = torch.zeros(k, dtype=torch.float64)
    for _ in range(150):
        z = z.detach() - 2 * gradient(z.requires_grad_()).detach()
    for _ in range(50):
        g = gradient(z.requires_grad_()).detach()
        if g.abs().max() < 1e-15:
            break
        # by differences, for P* and α are constants in the equation, and the gradient moves with them
        steps = (1e-6 * torch.eye(k, dtype=torch.float64)).unbind()
        moved = [(gradient(z + e) - gradient(z - e)).detach() / 2e-6 for e in steps]
        step = torch.linalg.lstsq(torch.stack(moved, -1), -g[:, None], driver="gelsd").solution[:, 0]
        z, length = z.detach(), 1.0
        while length > 1e-6 and gradient((z + length * step).requires_grad_()).norm() > g.norm():
            length /= 2
        z = z + length * step
    assert gradient(z.requires_grad_()).abs().max() < 1e-12, "no minimum"
    return z.detach()


@every_method
@pytest.mark.parametrize("seed", range(4))
def test_the_posterior_of_the_minimum_is_the_distribution(name, seed):
    log_posterior, equation, options = METHODS[name]
    y = draw(1, 6, scale=1.0 + seed / 2, seed=seed)[0].softmax(-1)
    z = minimum(equation, y, options)
    log_y = log_posterior(z[None], *options)[0]
    actual = log_y.exp() if name == "cross-entropy" else without_floor(log_y, z)
    torch.testing.assert_close(actual, y, rtol=1e-9, atol=1e-9)


@every_method
def test_it_is_a_distribution_of_which_the_prediction_is_a_share(name):
    log_posterior, _, options = METHODS[name]
    logits = draw(50, 6, scale=4.0)
    log_y = log_posterior(logits, *options)
    torch.testing.assert_close(log_y.exp().sum(-1), torch.ones(50, dtype=torch.float64))
    assert (log_y >= math.log(posterior.FLOOR) + logits.log_softmax(-1) - 1e-9).all()
    if name in ("label smoothing", "labo", "masked labo", "confidence penalty", "distillation"):
        assert (without_floor(log_y, logits).abs() < 1e-15).any(), "nothing was clipped"


@pytest.mark.parametrize("name", ORDERED)
@settings(max_examples=60, deadline=None)
@given(k=st.integers(2, 300), scale=st.sampled_from([0.01, 1.0, 5.0, 30.0, 1e3]), seed=st.integers(0, 10**6))
def test_the_order_of_the_classes_stays(name, k, scale, seed):
    log_posterior, _, options = METHODS[name]
    logits = draw(5, k, scale, seed=seed).sort(dim=-1, descending=True).values
    actual = log_posterior(logits, *options)
    assert (actual.diff(dim=-1) <= 1e-9).all()
    assert (actual[:, 0] == actual.amax(-1)).all()


@every_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits(name, dtype):
    log_posterior, _, options = METHODS[name]
    inf, top = math.inf, 6e4 if dtype == torch.float16 else 1e5
    rows = [
        [top, -top, 0.0, 1.0, 2.0, -3.0],
        [-top] * 6,
        [top] * 6,
        [0.0, 30.0, 0.0, 0.0, 0.0, 0.0],
        [5.0, -inf, 3.0, -inf, 1.0, 4.0],
        [0.0, -inf, -inf, -inf, -inf, -inf],
    ]
    logits = torch.tensor(rows, dtype=dtype)
    actual = log_posterior(logits, *options)
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not actual.isnan().any()
    if name != "distillation":  # its teacher finds none of the classes impossible
        assert torch.equal(actual.isinf(), logits.isinf())
    torch.testing.assert_close(actual.exp().sum(-1), torch.ones(6, dtype=actual.dtype))
    if name in ORDERED:
        assert (actual.argmax(-1) == logits.argmax(-1)).all()
        torch.testing.assert_close(actual[1:3].exp(), torch.full((2, 6), 1 / 6, dtype=actual.dtype))


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_logits_are_computed_in_float32(name, dtype):
    log_posterior, _, options = METHODS[name]
    logits = draw(30, 6, scale=3.0, dtype=dtype)
    expected = log_posterior(logits.double(), *options)
    # a class that is almost clipped is a small difference of large numbers
    torch.testing.assert_close(log_posterior(logits, *options).double().exp(), expected.exp(), rtol=1e-4, atol=2e-6)


@every_method
def test_any_shape_and_any_cut_into_blocks(name, monkeypatch):
    log_posterior, _, options = METHODS[name]
    logits = draw(60, 6)
    whole = log_posterior(logits, *options)
    torch.testing.assert_close(log_posterior(logits.view(3, 4, 5, 6), *options), whole.view(3, 4, 5, 6))
    torch.testing.assert_close(log_posterior(logits[0], *options), whole[0])
    assert log_posterior(logits[:0], *options).shape == (0, 6)
    strided = torch.cat([logits, logits], -1)[:, ::2]
    torch.testing.assert_close(log_posterior(strided, *options), log_posterior(strided.contiguous(), *options))
    monkeypatch.setattr("labo_fairseq.losses.blockwise._BLOCK_ELEMENTS_PER_THREAD", 7 * 6)
    torch.testing.assert_close(log_posterior(logits, *options), whole)


@every_method
def test_it_is_differentiable(name):
    log_posterior, _, options = METHODS[name]
    logits = draw(3, 6, scale=0.5)
    with torch.no_grad():
        expected = log_posterior(logits, *options)
    torch.testing.assert_close(log_posterior(logits.clone().requires_grad_(), *options).detach(), expected)
    assert torch.autograd.gradcheck(lambda z: log_posterior(z, *options), (logits.requires_grad_(),))


def test_of_the_modules():
    logits = draw(7, 6)
    torch.testing.assert_close(LaboLoss(1.15, 0.3).log_posterior(logits), labo_log_posterior(logits, 1.15, 0.3))
    torch.testing.assert_close(LinearLaboLoss(1.15).log_posterior(logits), labo_log_posterior(logits, 1.15))
    smoothed = label_smoothing_log_posterior(logits, 0.2)
    torch.testing.assert_close(LinearCrossEntropyLoss(label_smoothing=0.2).log_posterior(logits), smoothed)
    images = logits.t().reshape(1, 6, 7)
    torch.testing.assert_close(LaboLoss().log_posterior(images, dim=1)[0].t(), labo_log_posterior(logits))
    loss = LaboLoss(warmup_steps=1, label_smoothing=0.2)
    torch.testing.assert_close(loss.log_posterior(logits), smoothed)
    loss.set_updates(2)
    torch.testing.assert_close(loss.log_posterior(logits), labo_log_posterior(logits))


def test_class_weights_are_taken_out():
    """A class of weight 3 is predicted as if it were three times as frequent."""
    weight = torch.tensor([1.0, 3.0, 0.5, 1.0, 2.0, 1.0], dtype=torch.float64)
    y = draw(1, 6, 1.0)[0].softmax(-1)

    def weighted(z, t, tau, alpha):
        return weight[t] * labo(z, t, tau, alpha)

    z = minimum(weighted, y, (1.25, "adaptive"))
    actual = weight * LaboLoss(weight=weight).log_posterior(z[None])[0].exp()
    actual = without_floor((actual / actual.sum()).log(), z) / weight
    torch.testing.assert_close(actual / actual.sum(), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: labo_log_posterior(z, alpha=1.0), "alpha must be < 1, got 1"),
        (lambda z: labo_log_posterior(z, tau=0), "tau must be a finite number > 0, got 0"),
        (lambda z: distil(z, 1.0), "alpha must be < 1, got 1"),
        (lambda z: label_smoothing_log_posterior(z, 1.0), r"label_smoothing must be in \[0, 1\), got 1.0"),
        (lambda z: focal_log_posterior(z, -1), "gamma must be a finite number ≥ 0, got -1"),
        (lambda z: confidence_penalty_log_posterior(z, -1), "beta must be a finite number ≥ 0, got -1"),
        (lambda z: labo_log_posterior(z[:, :1]), "the number of classes must be ≥ 2, got 1"),
        (
            lambda z: LaboLoss(weight=torch.ones(3)).log_posterior(z),
            r"weight must have the shape \(6,\) of the classes, got \(3,\)",
        ),
        (lambda z: distillation_log_posterior(z, z[:, :2]), "teacher must have the shape of the logits"),
    ],
)
def test_what_cannot_be_inverted_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(draw(3, 6))
