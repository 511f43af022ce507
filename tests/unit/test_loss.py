"""The closed form against the literal equations of the paper."""

import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labo_fairseq.losses import LaboLoss, blockwise, labo_terms


def draw(n, k, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64) * scale
    return logits.to(dtype), torch.randint(k, (n,), generator=generator)


def check(logits, target, tau=1.25, alpha="adaptive", rho=0.5, rtol=1e-9, atol=1e-10):
    """Value and gradient of labo_terms equal the reference's."""
    z = logits.detach().clone().requires_grad_()
    terms = labo_terms(z, target, tau, alpha, rho)
    terms.loss.sum().backward()
    a = (
        reference.adaptive_alpha(logits, rho)
        if alpha == "adaptive"
        else torch.full(target.shape, float(alpha), dtype=torch.float64)
    )
    expected = reference.objective(logits, target, tau, a)
    torch.testing.assert_close(terms.alpha.double(), a, rtol=rtol, atol=atol)
    torch.testing.assert_close(terms.loss.double(), expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(z.grad.double(), reference.gradient(logits, target, tau, a), rtol=rtol, atol=atol)
    return terms


@pytest.mark.parametrize("alpha", ["adaptive", 0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("tau", [0.5, 1.0, 1.15, 1.25, 5.0])
def test_value_and_gradient_equal_the_equation(tau, alpha):
    check(*draw(17, 31), tau=tau, alpha=alpha)


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(0, 9),
    k=st.integers(2, 300),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e3, 1e4]),
    tau=st.floats(0.2, 20.0),
    rho=st.floats(0.5, 1.0),
    alpha=st.one_of(st.just("adaptive"), st.floats(0.0, 1.0)),
    seed=st.integers(0, 10**6),
)
def test_any_shape_magnitude_and_option(n, k, scale, tau, rho, alpha, seed):
    check(*draw(n, k, scale, seed), tau=tau, rho=rho, alpha=alpha, rtol=1e-8, atol=1e-9)


def test_blocks_cut_anywhere(monkeypatch):
    logits, target = draw(23, 40)
    whole = check(logits, target)
    monkeypatch.setattr(blockwise, "_BLOCK_ELEMENTS_PER_THREAD", 7 * 40)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for one, other in zip(whole, check(logits, target)):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("alpha", ["adaptive", 0.1])
def test_sums_are_float32_and_the_gradient_has_the_dtype_of_the_logits(dtype, rtol, alpha):
    logits, target = draw(33, 1000, dtype=dtype)
    z = logits.clone().requires_grad_()
    terms = labo_terms(z, target, alpha=alpha)
    assert terms.loss.dtype == torch.float32
    terms.loss.sum().backward()
    assert z.grad.dtype == dtype
    a = reference.adaptive_alpha(logits, 0.5) if alpha == "adaptive" else torch.full((33,), alpha, dtype=torch.float64)
    torch.testing.assert_close(terms.loss.double(), reference.objective(logits, target, 1.25, a), rtol=1e-5, atol=1e-4)
    expected = reference.gradient(logits, target, 1.25, a)
    torch.testing.assert_close(z.grad.double(), expected, rtol=rtol, atol=1e-6)


def test_fp16_gradient_is_scaled_before_it_is_rounded():
    logits, target = draw(4, 5000, scale=0.1, dtype=torch.float16)
    z = logits.clone().requires_grad_()
    (labo_terms(z, target).loss.sum() * 1024).backward()
    expected = 1024 * reference.gradient(logits, target, 1.25, reference.adaptive_alpha(logits, 0.5))
    torch.testing.assert_close(z.grad.double(), expected, rtol=2e-3, atol=1e-6)


def test_fp16_keeps_a_gradient_that_only_its_scale_brings_into_range():
    size = torch.tensor([1e-12, 1e-6, 1.0, 1e9, 0.0])

    def block(z, label, size, *, with_grad):
        return [size * z.square().sum(-1) / 2], size[:, None] * z if with_grad else None

    z = torch.linspace(-1, 1, 300).expand(5, 300).half().requires_grad_()
    rows = blockwise.Rows.of(z, torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.bool), size)
    (loss,) = blockwise.differentiable_terms(blockwise.BlockKernel(block, 1), rows)
    scale = torch.tensor([1e12, 1e6, 1.0, 1e-9, 1.0])
    (loss * scale).sum().backward()
    torch.testing.assert_close(z.grad, z.detach() * (size > 0)[:, None], rtol=2e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["sum", "mean", "weighted"])
def test_any_scale_of_the_gradient(dtype, form):
    """What reaches the logits is the gradient of whatever is made of the losses of the tokens."""
    logits, target = draw(9, 400, dtype=dtype)
    z = logits.clone().requires_grad_()
    loss = labo_terms(z, target).loss
    weight = {"sum": torch.ones(9), "mean": torch.full((9,), 1 / 9), "weighted": torch.arange(9.0)}[form].to(loss)
    (weight * loss).sum().backward()
    expected = weight.double()[:, None] * reference.gradient(
        logits, target, 1.25, reference.adaptive_alpha(logits, 0.5)
    )
    rtol = {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 1e-2)
    torch.testing.assert_close(z.grad.double(), expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.3, 1.25, 1e4])
@pytest.mark.parametrize("alpha", ["adaptive", 0.1, 1.0])
def test_extreme_logits_stay_finite(dtype, tau, alpha):
    logits = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [5.0, -math.inf, 3.0], [0.0, 1e4, -math.inf]]
    logits, target = torch.tensor(logits, dtype=dtype), torch.tensor([0, 1, 2, 0, 1])
    terms = check(logits, target, tau=tau, alpha=alpha, rtol=1e-4, atol=1e-2)
    assert all(term.isfinite().all() for term in terms)


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("k", [2, 3, 257, 4099])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_masked_classes_have_no_part(n, k, scale):
    """Logits of −inf: value and gradient of the other classes are as if K counted them and nothing else did."""
    logits, target = draw(n, k, scale)
    mask = torch.rand(n, k, generator=torch.Generator().manual_seed(1)) < 0.3
    logits[mask.scatter_(-1, target[:, None], False)] = -math.inf
    check(logits, target, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("tau", [20.0, 1e3, 1e4, 1e6, 1e12])
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e3, 1e5])
def test_large_tau_keeps_its_digits_in_float32(tau, scale):
    logits, target = draw(40, 5000, scale=scale, dtype=torch.float32)
    logits[::2, 1::3] = -math.inf
    target[::2] = 0
    terms = labo_terms(logits, target, tau, 0.1)
    expected = labo_terms(logits.double(), target, tau, 0.1)
    torch.testing.assert_close(terms.loss.double(), expected.loss, rtol=2e-6, atol=2e-6)
    check(logits.double(), target, tau, 0.1, rtol=1e-8, atol=1e-8 + 1e-15 * tau)


def test_impossible_target_costs_what_cross_entropy_charges():
    logits = torch.tensor([[0.0, -math.inf, 1.0]])
    terms = labo_terms(logits, torch.tensor([1]), alpha=0.5)
    assert terms.loss.item() == math.inf
    assert labo_terms(logits, torch.tensor([1]), alpha=1.0).loss.isfinite().all()


def test_two_classes():
    check(*draw(50, 2))


def test_gradcheck_with_alpha_held():
    logits, target = draw(5, 7)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: labo_terms(z, target, 1.15, 0.3).loss, (logits,))


def test_p_star_minimises_the_objective():
    """Theorem 1: any other smoothing distribution gives a larger R(P) of Eq. 8."""
    logits, target = draw(6, 11)
    alpha, tau = 0.4, 1.25
    best = labo_terms(logits, target, tau, alpha).loss
    log_p = logits.log_softmax(-1)
    for seed in range(50):
        other = torch.randn(6, 11, generator=torch.Generator().manual_seed(seed)).double()
        near = (logits / tau + 0.1 * other).softmax(-1)
        label = (1 - alpha) * torch.nn.functional.one_hot(target, 11) + alpha * near
        value = -(label * log_p).sum(-1) + alpha * tau * (near * (11 * near).log()).sum(-1)
        assert (value > best).all()


def test_large_tau_is_label_smoothing():
    """Remark 3: the objective tends to Szegedy's label smoothing, Eq. 1."""
    logits, target = draw(20, 50)
    z = logits.clone().requires_grad_()
    smoothed = torch.nn.functional.cross_entropy(z, target, label_smoothing=0.1, reduction="none")
    smoothed.sum().backward()
    distances = []
    for tau in (1e2, 1e4, 1e6):
        y = logits.clone().requires_grad_()
        loss = labo_terms(y, target, tau, 0.1).loss
        loss.sum().backward()
        distances.append(((loss - smoothed).abs().max() + (y.grad - z.grad).abs().max()).item())
    assert distances[0] > 10 * distances[1] > 100 * distances[2]
    assert distances[2] < 1e-5


def test_tau_one_alpha_zero_is_cross_entropy():
    logits, target = draw(20, 50, dtype=torch.float32)
    z, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = LaboLoss(tau=1.0, alpha=0)(z, target), torch.nn.CrossEntropyLoss()(y, target)
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward([loss, expected])
    torch.testing.assert_close(z.grad, y.grad)


def test_ignored_tokens_have_no_loss_and_no_gradient_even_if_their_logits_are_nan():
    logits, target = draw(6, 9)
    target[[1, 4]] = -100
    logits[1] = math.nan
    z = logits.clone().requires_grad_()
    terms = labo_terms(z, target)
    terms.loss.sum().backward()
    assert all((term[[1, 4]] == 0).all() for term in terms)
    assert (z.grad[[1, 4]] == 0).all()
    kept = target != -100
    y = logits[kept].clone().requires_grad_()
    expected = labo_terms(y, target[kept])
    expected.loss.sum().backward()
    torch.testing.assert_close(terms.loss[kept], expected.loss)
    torch.testing.assert_close(z.grad[kept], y.grad)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_nothing_but_padding_is_zero(n):
    logits = torch.randn(n, 4, requires_grad=True)
    loss = LaboLoss()(logits, torch.full((n,), -100))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(8,), (5, 8), (5, 8, 3), (2, 8, 3, 4)])
def test_shapes_are_those_of_cross_entropy(shape, reduction):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(shape, generator=generator)
    target = torch.randint(8, shape[:0] if len(shape) == 1 else (shape[0], *shape[2:]), generator=generator)
    loss = LaboLoss(alpha=0.0, reduction=reduction)(logits, target)
    torch.testing.assert_close(loss, torch.nn.CrossEntropyLoss(reduction=reduction)(logits, target))


def test_strided_logits():
    logits, target = draw(12, 30)
    check(logits.t().contiguous().t(), target)
    check(torch.cat([logits, logits], -1)[:, ::2], target)


def test_the_graph_can_be_used_twice():
    logits, target = draw(4, 6)
    logits.requires_grad_()
    loss = labo_terms(logits, target).loss.sum()
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    loss.backward()
    torch.testing.assert_close(logits.grad, 2 * once)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_the_gradient_of_a_view_may_be_written_to_between_two_uses(weight):
    """The leaf's gradient then is a view of what the loss returned: the loss must not have kept that."""
    logits, target = draw(4, 6, dtype=torch.float32)
    logits.requires_grad_()
    loss = weight * labo_terms(logits.view(4, 6), target).loss.sum()
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    logits.grad.zero_()
    loss.backward(retain_graph=True)
    torch.testing.assert_close(logits.grad, once)
    loss.backward()
    torch.testing.assert_close(logits.grad, 2 * once)


def test_logits_may_be_written_to_after_the_loss():
    logits, target = draw(4, 6)
    z = logits.clone().requires_grad_()
    expected = reference.gradient(logits, target, 1.25, reference.adaptive_alpha(logits, 0.5))
    y = z * 1
    loss = labo_terms(y, target).loss.sum()
    torch.testing.assert_close(y.detach(), logits, rtol=0, atol=0)
    y.detach().zero_()
    loss.backward()
    torch.testing.assert_close(z.grad, expected)


@pytest.mark.parametrize("evaluation", ["no_grad", "no gradient required"])
def test_an_evaluation_makes_no_gradient(monkeypatch, evaluation):
    logits, target = draw(4, 6)
    given, reduce = [], blockwise.BlockKernel.reduce

    def spy(kernel, rows, grad=None, *others):
        given.append(grad)
        return reduce(kernel, rows, grad, *others)

    monkeypatch.setattr(blockwise.BlockKernel, "reduce", spy)
    expected = labo_terms(logits.clone().requires_grad_(), target).loss.detach()
    logits.requires_grad_(evaluation == "no_grad")
    with torch.set_grad_enabled(evaluation != "no_grad"):
        assert torch.equal(labo_terms(logits, target).loss, expected)
    assert [grad is None for grad in given] == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, "tau must be a finite number > 0, got 0"),
        ({"tau": math.inf}, "tau must be a finite number > 0, got inf"),
        ({"tau": math.nan}, "tau must be a finite number > 0, got nan"),
        ({"rho": 0.4}, r"rho must be in \[0.5, 1\], got 0.4"),
        ({"alpha": 1.1}, r"alpha must be 'adaptive' or a number in \[0, 1\], got 1.1"),
        ({"alpha": "none"}, r"alpha must be 'adaptive' or a number in \[0, 1\], got none"),
        ({"reduction": "avg"}, "reduction must be 'mean', 'sum' or 'none', got 'avg'"),
    ],
)
def test_an_option_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        LaboLoss(**options)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="logits and target must be"):
        LaboLoss()(torch.zeros(3, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="the number of classes must be ≥ 2, got 1"):
        LaboLoss()(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
