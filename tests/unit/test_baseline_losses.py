"""Confidence penalty, focal, anti-focal loss and distillation against the literal equations of their papers."""

import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labo_fairseq.losses import (
    anti_focal_terms,
    blockwise,
    confidence_penalty_terms,
    distillation_terms,
    focal_terms,
    labo_terms,
)


def draw(n, k, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64) * scale
    return logits.to(dtype), torch.randint(k, (n,), generator=generator)


def teacher_of(logits):
    """Probabilities that depend on the shape alone; every third class is impossible, unless that leaves none."""
    teacher = torch.randn(logits.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 3
    teacher[:, 2::3] = -math.inf
    return teacher.softmax(-1)


def distil(logits, target, alpha, **options):
    return distillation_terms(logits, target, teacher_of(logits), alpha, **options)


def distil_reference(logits, target, alpha):
    return reference.distillation(logits, target, teacher_of(logits), alpha)


#: the terms, the equation, and options in their order
LOSSES = {
    "confidence penalty": (confidence_penalty_terms, reference.confidence_penalty, (0.7,)),
    "focal": (focal_terms, reference.focal, (2.0,)),
    "anti-focal": (anti_focal_terms, reference.anti_focal, (0.5, 1.5)),
    "distillation": (distil, distil_reference, (0.3,)),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def check(name, logits, target, options=None, rtol=1e-9, atol=1e-10):
    """Value and gradient equal the equation's, nll and entropy too."""
    terms_of, equation, usual = LOSSES[name]
    options = usual if options is None else options
    z, y = logits.detach().clone().requires_grad_(), logits.detach().double().requires_grad_()
    terms, expected = terms_of(z, target, *options), equation(y, target, *options)
    torch.autograd.backward([terms.loss.sum(), expected.sum()])
    torch.testing.assert_close(terms.loss.double(), expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(z.grad.double(), y.grad, rtol=rtol, atol=atol)
    log_p = logits.double().log_softmax(-1)
    nll = -log_p.gather(-1, target[:, None]).squeeze(-1)
    torch.testing.assert_close(terms.nll.double(), nll, rtol=rtol, atol=atol)
    torch.testing.assert_close(terms.entropy.double(), reference.entropy(log_p), rtol=rtol, atol=atol)
    return terms


shapes = {"n": st.integers(0, 9), "k": st.integers(2, 300), "seed": st.integers(0, 10**6)}
scales = st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e3, 1e4])


@settings(max_examples=60, deadline=None)
@given(**shapes, scale=scales, beta=st.floats(0, 10))
def test_confidence_penalty_of_any_shape_magnitude_and_option(n, k, seed, scale, beta):
    check("confidence penalty", *draw(n, k, scale, seed), (beta,), rtol=1e-8, atol=1e-9)


# Where p_k rounds to 1, autograd makes 0·inf of the power of 1 − p_k that γ in (0, 1) gives: see the test below.
@settings(max_examples=60, deadline=None)
@given(**shapes, scale=scales, gamma=st.one_of(st.just(0.0), st.floats(1, 6)))
def test_focal_of_any_shape_magnitude_and_option(n, k, seed, scale, gamma):
    check("focal", *draw(n, k, scale, seed), (gamma,), rtol=1e-8, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(**shapes, scale=scales, alpha=st.floats(0, 5), gamma=st.floats(0, 6))
def test_anti_focal_of_any_shape_magnitude_and_option(n, k, seed, scale, alpha, gamma):
    check("anti-focal", *draw(n, k, scale, seed), (alpha, gamma), rtol=1e-8, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(**shapes, scale=scales, alpha=st.floats(0, 1))
def test_distillation_of_any_shape_magnitude_and_option(n, k, seed, scale, alpha):
    check("distillation", *draw(n, k, scale, seed), (alpha,), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
def test_focal_with_a_small_gamma(gamma):
    check("focal", *draw(40, 30), (gamma,), rtol=1e-8)
    z = torch.tensor([[1e4, 0.0], [60.0, 0.0], [-60.0, 0.0]], dtype=torch.float64, requires_grad=True)
    terms = focal_terms(z, torch.tensor([0, 0, 0]), gamma)
    terms.loss.sum().backward()
    assert terms.loss[0] == 0
    assert (z.grad[0] == 0).all()
    assert z.grad[1].abs().max() < 1e-2
    torch.testing.assert_close(z.grad[2], torch.tensor([-1.0, 1.0], dtype=torch.float64))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(name, dtype):
    inf = math.inf
    logits = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [5.0, -1e4, -inf], [0.0, 1e4, -inf]]
    target = torch.tensor([0, 1, 2, 0, 1])
    terms = check(name, torch.tensor(logits, dtype=dtype), target, rtol=1e-4, atol=1e-2)
    assert all(term.isfinite().all() for term in terms)


@pytest.mark.parametrize("name", ["confidence penalty", "focal", "anti-focal"])
@pytest.mark.parametrize("k", [3, 257, 4099])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_masked_classes_have_no_part(name, k, scale):
    logits, target = draw(7, k, scale)
    mask = torch.rand(7, k, generator=torch.Generator().manual_seed(1)) < 0.3
    logits[mask.scatter_(-1, target[:, None], False)] = -math.inf
    check(name, logits, target, rtol=1e-8, atol=1e-9)


@every_loss
def test_impossible_target_costs_what_cross_entropy_charges(name):
    terms_of, _, options = LOSSES[name]
    z = torch.tensor([[0.0, 1.0, -math.inf]], requires_grad=True)
    terms = terms_of(z, torch.tensor([2]), *options)
    assert terms.loss.item() == terms.nll.item() == math.inf
    terms.loss.sum().backward()
    assert z.grad.isfinite().all()


def test_what_has_no_mass_costs_nothing():
    """0·inf is 0: of the ground truth where α is 1, of the teacher where α is 0, of a class that it excludes."""
    z = torch.tensor([[0.0, -math.inf, 1.0]])
    impossible, possible = torch.tensor([1]), torch.tensor([0])
    on_masked, beside_masked = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.5, 0.0, 0.5]])
    assert distillation_terms(z, impossible, beside_masked, 1.0).loss.isfinite().all()
    assert distillation_terms(z, possible, on_masked, 0.0).loss.isfinite().all()
    assert distillation_terms(z, possible, on_masked, 0.5).loss.item() == math.inf


@every_loss
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_sums_are_float32_and_the_gradient_has_the_dtype_of_the_logits(name, dtype, rtol):
    terms_of, equation, options = LOSSES[name]
    logits, target = draw(33, 1000, dtype=dtype)
    z, y = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss, expected = terms_of(z, target, *options).loss, equation(y, target, *options)
    torch.autograd.backward([loss.sum(), expected.sum()])
    assert loss.dtype == torch.float32
    assert z.grad.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(z.grad.double(), y.grad, rtol=rtol, atol=1e-6)


@every_loss
def test_fp16_gradient_is_scaled_before_it_is_rounded(name):
    terms_of, equation, options = LOSSES[name]
    logits, target = draw(4, 5000, scale=0.1, dtype=torch.float16)
    z, y = logits.clone().requires_grad_(), logits.double().requires_grad_()
    (terms_of(z, target, *options).loss.sum() * 1024).backward()
    (equation(y, target, *options).sum() * 1024).backward()
    torch.testing.assert_close(z.grad.double(), y.grad, rtol=2e-3, atol=1e-6)


@every_loss
def test_every_token_may_have_a_weight_and_the_graph_be_used_twice(name):
    terms_of, equation, options = LOSSES[name]
    logits, target = draw(9, 40)
    weight = torch.arange(9.0, dtype=torch.float64)
    z, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = (weight * terms_of(z, target, *options).loss).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    (2 * weight * equation(y, target, *options)).sum().backward()
    torch.testing.assert_close(z.grad, y.grad)


@every_loss
def test_gradcheck(name):
    terms_of, _, options = LOSSES[name]
    logits, target = draw(5, 7)
    assert torch.autograd.gradcheck(lambda z: terms_of(z, target, *options).loss, (logits.requires_grad_(),))


@every_loss
def test_blocks_cut_anywhere(name, monkeypatch):
    logits, target = draw(23, 40)
    whole = check(name, logits, target)
    monkeypatch.setattr(blockwise, "_BLOCK_ELEMENTS_PER_THREAD", 7 * 40)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for one, other in zip(whole, check(name, logits, target)):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)


@every_loss
def test_ignored_tokens_have_no_loss_and_no_gradient_even_if_their_logits_are_nan(name):
    terms_of, _, options = LOSSES[name]
    logits, target = draw(6, 9)
    expected = terms_of(logits, target, *options)
    ignored = torch.tensor([False, True, False, False, True, False])
    z = logits.clone()
    z[1] = math.nan
    z.requires_grad_()
    terms = terms_of(z, target.masked_fill(ignored, 5), *options, ignore_index=5)
    terms.loss.sum().backward()
    ignored |= target == 5
    for mine, other in zip(terms, expected):
        assert (mine[ignored] == 0).all()
        torch.testing.assert_close(mine[~ignored], other[~ignored])
    assert (z.grad[ignored] == 0).all()
    assert (z.grad[~ignored] != 0).any(-1).all()


@every_loss
@pytest.mark.parametrize("n", [0, 3])
def test_nothing_but_padding_is_zero(name, n):
    terms_of, _, options = LOSSES[name]
    z = torch.randn(n, 4, requires_grad=True)
    loss = terms_of(z, torch.full((n,), -100), *options).loss
    loss.sum().backward()
    assert loss.shape == (n,)
    assert (loss == 0).all()
    assert (z.grad == 0).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("confidence penalty", (0.0,)),
        ("focal", (0.0,)),
        ("anti-focal", (0.5, 0.0)),
        ("anti-focal", (0.0, 2.0)),
        ("distillation", (0.0,)),
    ],
)
def test_without_its_weight_each_is_cross_entropy(name, options):
    logits, target = draw(20, 50, dtype=torch.float32)
    z, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = LOSSES[name][0](z, target, *options).loss.sum()
    expected = torch.nn.functional.cross_entropy(y, target, reduction="sum")
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward([loss, expected])
    torch.testing.assert_close(z.grad, y.grad)


def test_focal_weighs_down_what_anti_focal_weighs_up():
    """Of two tokens with the same nll, nothing changes; of an easy and a hard one, the shares move apart."""
    logits, target = draw(200, 10)
    nll = focal_terms(logits, target, 0.0).loss
    order = nll.argsort()
    focal, anti = (terms.loss / nll for terms in (focal_terms(logits, target), anti_focal_terms(logits, target)))
    assert (focal[order].diff() >= 0).all()
    assert (anti[order].diff() <= 0).all()
    assert (focal < 1).all()
    assert (anti > 1).all()


def test_distillation_is_minimal_and_0_where_the_student_is_the_teacher():
    logits, target = draw(8, 12)
    z = logits.clone().requires_grad_()
    loss = distillation_terms(z, target, logits.softmax(-1), 1.0).loss
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.grad, torch.zeros_like(z), rtol=0, atol=1e-12)


def value_and_gradient(loss_of, logits):
    z = logits.clone().requires_grad_()
    loss = loss_of(z)
    loss.sum().backward()
    return loss.detach(), z.grad


def equation_8(target, p_ls, alpha, beta):
    full = torch.full(target.shape, alpha, dtype=torch.float64)
    return lambda z: reference.general(z, target, p_ls, full, torch.full_like(full, beta))


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
def test_remark_2_distillation_is_the_general_objective_with_the_teachers_distribution(alpha):
    """Eq. 9: β is α, and the constant Θ(log K) is −α·log K."""
    logits, target = draw(11, 40)
    teacher = teacher_of(logits)
    loss, grad = value_and_gradient(lambda z: distillation_terms(z, target, teacher, alpha).loss, logits)
    expected, expected_grad = value_and_gradient(equation_8(target, teacher, alpha, beta=alpha), logits)
    torch.testing.assert_close(loss, expected - alpha * math.log(40), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.1, 3.0])
def test_remarks_1_and_2_label_smoothing_is_the_general_objective_with_the_uniform_distribution(beta):
    """Whatever β is, for KL(U‖U) is 0; and it is distillation from a teacher that knows nothing, less α·log K."""
    logits, target = draw(11, 40)
    uniform = torch.full((11, 40), 1 / 40, dtype=torch.float64)
    smoothing = {"label_smoothing": 0.1, "reduction": "none"}
    loss, grad = value_and_gradient(lambda z: torch.nn.functional.cross_entropy(z, target, **smoothing), logits)
    expected, expected_grad = value_and_gradient(equation_8(target, uniform, 0.1, beta), logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, expected_grad)
    distilled, distilled_grad = value_and_gradient(lambda z: distillation_terms(z, target, uniform, 0.1).loss, logits)
    torch.testing.assert_close(distilled, loss - 0.1 * math.log(40))
    torch.testing.assert_close(distilled_grad, grad)


def test_labo_is_distillation_from_the_optimal_distribution():
    """Both are Eq. 8: with P* as the teacher the gradients agree, and the values but for the weight of the KL."""
    logits, target = draw(11, 40)
    alpha, tau = 0.3, 1.25
    p_star = (logits / tau).softmax(-1)
    loss, grad = value_and_gradient(lambda z: labo_terms(z, target, tau, alpha).loss, logits)
    distilled, distilled_grad = value_and_gradient(lambda z: distillation_terms(z, target, p_star, alpha).loss, logits)
    torch.testing.assert_close(grad, distilled_grad)
    rest = alpha * tau * reference.divergence(p_star, -math.log(40)) - alpha * (p_star * p_star.log()).sum(-1)
    torch.testing.assert_close(loss, distilled + rest)


@pytest.mark.parametrize(
    ("terms_of", "options", "message"),
    [
        (confidence_penalty_terms, {"beta": -0.1}, "beta must be a finite number ≥ 0, got -0.1"),
        (confidence_penalty_terms, {"beta": math.nan}, "beta must be a finite number ≥ 0, got nan"),
        (focal_terms, {"gamma": -1}, "gamma must be a finite number ≥ 0, got -1"),
        (focal_terms, {"gamma": math.inf}, "gamma must be a finite number ≥ 0, got inf"),
        (anti_focal_terms, {"alpha": -1}, "alpha must be a finite number ≥ 0, got -1"),
        (anti_focal_terms, {"gamma": -1}, "gamma must be a finite number ≥ 0, got -1"),
        (distil, {"alpha": 1.1}, r"alpha must be in \[0, 1\], got 1.1"),
        (distil, {"alpha": math.nan}, r"alpha must be in \[0, 1\], got nan"),
    ],
)
def test_an_option_out_of_range_is_named(terms_of, options, message):
    with pytest.raises(ValueError, match=message):
        terms_of(*draw(3, 4), **options)


@every_loss
def test_shapes_that_do_not_fit_are_named(name):
    terms_of, _, options = LOSSES[name]
    with pytest.raises(ValueError, match="logits and target must be"):
        terms_of(torch.zeros(3, 4), torch.zeros(4, dtype=torch.long), *options)
    with pytest.raises(ValueError, match="the number of classes must be ≥ 2, got 1"):
        terms_of(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long), *options)


def test_a_teacher_of_another_vocabulary_is_named():
    logits, target = draw(3, 4)
    with pytest.raises(ValueError, match=r"teacher must have the shape of the logits \(3, 4\), got \(3, 5\)"):
        distillation_terms(logits, target, torch.full((3, 5), 0.2))
