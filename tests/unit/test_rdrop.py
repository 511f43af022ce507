"""R-Drop's divergence against the literal equation of its paper."""

import math

import pytest
import reference
import torch
from half_precision import skip_without_product
from hypothesis import given, settings
from hypothesis import strategies as st

from labo_fairseq.losses import (
    blockwise,
    focal_terms,
    fused_linear,
    label_smoothing_log_posterior,
    label_smoothing_terms,
    labo_terms,
    rdrop_divergence,
    rdrop_terms,
)
from labo_fairseq.losses.label_smoothing import smoothing_over_others
from labo_fairseq.losses.labo import LaboOptions, labo_terms_with
from labo_fairseq.losses.rdrop import linear_rdrop_terms


def draw(n, k, scale=3.0, seed=0, dtype=torch.float64):
    """Logits (2n, k) of two passes that resemble each other, and targets (n,)."""
    generator = torch.Generator().manual_seed(seed)
    one, noise = (torch.randn(n, k, generator=generator, dtype=torch.float64) * scale for _ in range(2))
    target = torch.randint(k, (n,), generator=generator)
    return torch.cat((one, one + noise / 4)).to(dtype), target


def literal(logits):
    return reference.rdrop(*logits.chunk(2))


def check(logits, target, rtol=1e-9, atol=1e-10):
    """Value and gradient equal the equation's."""
    z, y = logits.detach().clone().requires_grad_(), logits.detach().double().requires_grad_()
    mine, expected = rdrop_divergence(z, target), literal(y)
    torch.autograd.backward([mine.sum(), expected.sum()])
    torch.testing.assert_close(mine.double(), expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(z.grad.double(), y.grad, rtol=rtol, atol=atol)
    return mine


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 9),
    k=st.integers(2, 300),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e3, 1e4]),
)
def test_any_shape_and_magnitude(n, k, seed, scale):
    check(*draw(n, k, scale, seed), rtol=1e-8, atol=1e-8 * max(1, scale))


@settings(max_examples=40, deadline=None)
@given(k=st.integers(2, 60), seed=st.integers(0, 10**6), scale=st.sampled_from([1.0, 30.0, 1e4]))
def test_masked_classes_have_no_part(k, seed, scale):
    logits, target = draw(5, k, scale, seed)
    mask = torch.rand(5, k, generator=torch.Generator().manual_seed(seed)) < 0.4
    mask.scatter_(-1, target[:, None], False)
    kept = [literal(logits.view(2, 5, k)[:, row][:, ~mask[row]]) for row in range(5)]
    z = logits.masked_fill(mask.repeat(2, 1), -math.inf).requires_grad_()
    mine = rdrop_divergence(z, target)
    torch.testing.assert_close(mine, torch.cat(kept), rtol=1e-8, atol=1e-8 * scale)
    mine.sum().backward()
    assert z.grad.isfinite().all()
    assert (z.grad[mask.repeat(2, 1)] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_class_that_one_pass_excludes_makes_it_infinite(dtype):
    z = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, -math.inf], [0.0, 1.0, 2.0]], dtype=dtype)
    z.requires_grad_()
    mine = rdrop_divergence(z, torch.tensor([0, 0]))
    assert mine.tolist() == [math.inf, 0.0]
    mine.sum().backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(dtype):
    one = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [5.0, -1e4, 3.0]]
    other = [[-1e4, 1e4, 0.0], [-1e4, -1e4, -1e4], [0.0, 0.0, 1e4], [5.0, -1e4, 3.0]]
    mine = check(torch.tensor(one + other, dtype=dtype), torch.tensor([0, 1, 2, 0]), rtol=1e-4, atol=1e-2)
    assert mine.isfinite().all()
    assert mine[[1, 3]].tolist() == [0, 0]


def test_equal_passes_do_not_differ():
    logits, target = draw(8, 12)
    z = logits[:8].repeat(2, 1).requires_grad_()
    mine = rdrop_divergence(z, target)
    mine.sum().backward()
    assert (mine == 0).all()
    assert z.grad.abs().max() < 1e-15


def test_the_passes_may_be_exchanged():
    logits, target = draw(8, 12)
    exchanged = torch.cat(logits.chunk(2)[::-1])
    torch.testing.assert_close(rdrop_divergence(logits, target), rdrop_divergence(exchanged, target))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_sums_are_float32_and_the_gradient_has_the_dtype_of_the_logits(dtype, rtol):
    logits, target = draw(33, 1000, dtype=dtype)
    z, y = logits.clone().requires_grad_(), logits.double().requires_grad_()
    mine, expected = rdrop_divergence(z, target), literal(y)
    (mine.sum() * 1024).backward()
    (expected.sum() * 1024).backward()
    assert mine.dtype == torch.float32
    assert z.grad.dtype == dtype
    torch.testing.assert_close(mine.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(z.grad.double(), y.grad, rtol=rtol, atol=1e-4)


def test_every_token_may_have_a_weight_and_the_graph_be_used_twice():
    logits, target = draw(9, 40)
    weight = torch.arange(9.0, dtype=torch.float64)
    z, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    mine = (weight * rdrop_divergence(z, target)).sum()
    mine.backward(retain_graph=True)
    mine.backward()
    (2 * weight * literal(y)).sum().backward()
    torch.testing.assert_close(z.grad, y.grad)


def test_blocks_cut_anywhere(monkeypatch):
    logits, target = draw(23, 40)
    whole = check(logits, target)
    for rows in (1, 7, 8):
        monkeypatch.setattr(blockwise, "_BLOCK_ELEMENTS_PER_THREAD", rows * 40)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        torch.testing.assert_close(whole, check(logits, target), rtol=1e-14, atol=1e-14)


def test_ignored_tokens_have_no_divergence_and_no_gradient_even_if_their_logits_are_nan():
    logits, target = draw(6, 9)
    expected = rdrop_divergence(logits, target)
    ignored = torch.tensor([False, True, False, False, True, False])
    z = logits.clone()
    z[1] = z[10] = math.nan
    z.requires_grad_()
    mine = rdrop_divergence(z, target.masked_fill(ignored, -100))
    mine.sum().backward()
    assert (mine[ignored] == 0).all()
    torch.testing.assert_close(mine[~ignored], expected[~ignored])
    assert (z.grad[ignored.repeat(2)] == 0).all()
    assert (z.grad[~ignored.repeat(2)] != 0).any(-1).all()


def test_gradcheck():
    logits, target = draw(5, 7)
    target[1] = -100
    assert torch.autograd.gradcheck(lambda z: rdrop_divergence(z, target), (logits.requires_grad_(),))


def test_second_derivatives_are_those_of_the_equation():
    logits, target = draw(3, 5)
    assert torch.autograd.gradgradcheck(lambda z: rdrop_divergence(z, target), (logits.clone().requires_grad_(),))
    mine, expected = (
        torch.autograd.functional.hessian(lambda z, of=of: of(z).sum(), logits)
        for of in (lambda z: rdrop_divergence(z, target), literal)
    )
    torch.testing.assert_close(mine, expected)
    logits[:, 3] = -math.inf
    hessian = torch.autograd.functional.hessian(lambda z: rdrop_divergence(z, target).sum(), logits)
    assert hessian.isfinite().all()


@pytest.mark.skipif(not hasattr(torch, "func"), reason="this torch has no torch.func")
def test_torch_func_and_compile():
    logits, target = draw(3, 5)
    y = logits.clone().requires_grad_()
    literal(y).sum().backward()
    torch.testing.assert_close(torch.func.grad(lambda z: rdrop_divergence(z, target).sum())(logits), y.grad)
    direction = torch.linspace(-1, 1, 30, dtype=torch.float64).view(6, 5)
    _, change = torch.func.jvp(lambda z: rdrop_divergence(z, target), (logits,), (direction,))
    torch.testing.assert_close(change, (y.grad * direction).sum(-1).view(2, 3).sum(0))
    if hasattr(getattr(torch, "compiler", None), "is_compiling"):
        z = logits.clone().requires_grad_()
        compiled = torch.compile(lambda z: rdrop_divergence(z, target), fullgraph=True, backend="aot_eager")
        compiled(z).sum().backward()
        torch.testing.assert_close(z.grad, y.grad)


@pytest.mark.parametrize(
    ("shape", "targets", "message"),
    [((5, 3), 2, "logits"), ((4, 3, 2), 2, "logits"), ((4, 1), 2, "the number of classes must be ≥ 2, got 1")],
)
def test_shapes_that_do_not_fit(shape, targets, message):
    with pytest.raises(ValueError, match=message):
        rdrop_divergence(torch.zeros(shape), torch.zeros(targets, dtype=torch.long))


@pytest.mark.parametrize("over_others", [True, False])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.9])
def test_label_smoothing_terms_are_those_of_its_equation(epsilon, over_others):
    """Of fairseq's, which spares the target, and of PyTorch's."""
    logits, target = draw(6, 9)
    target = target.repeat(2)
    target[3] = -100
    z, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    mine = label_smoothing_terms(z, target, epsilon, over_others)
    log_p, kept, others = y.log_softmax(-1), target != -100, 8 if over_others else 9
    of_target = 1 - epsilon + (0 if over_others else epsilon / 9)
    label = torch.full_like(log_p, epsilon / others).scatter(-1, target.clamp(min=0)[:, None], of_target)
    expected = -(label * log_p).sum(-1)[kept]
    torch.autograd.backward([mine.loss.sum(), expected.sum()])
    torch.testing.assert_close(mine.loss[kept], expected)
    torch.testing.assert_close(z.grad, y.grad)


@pytest.mark.parametrize("over_others", [True, False])
def test_label_smoothing_and_its_inverse_mean_the_same(over_others):
    """Where p minimizes the mean of the loss over y, the posterior of p is y; and the defaults of both fit."""
    y = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    p = 0.8 * y + (0.1 * (1 - y) if over_others else 0.2 / 3)
    z = p.log().repeat(3, 1).requires_grad_()
    named = {"over_others": True} if over_others else {}
    (label_smoothing_terms(z, torch.arange(3), 0.2, **named).loss * y).sum().backward()
    torch.testing.assert_close(z.grad.sum(dim=0), torch.zeros(3, dtype=torch.float64))
    posterior = label_smoothing_log_posterior(p.log(), 0.2, **named)
    torch.testing.assert_close(posterior.exp(), 0.99 * y + 0.01 * p)


def test_the_objective_is_half_of_the_papers():
    """Eq. 3 and 4 of Wu et al. (2021) add up the cross-entropies of the passes, where R has their mean."""
    logits, target = draw(6, 9)
    z, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    mine, divergence = rdrop_terms(labo_terms(z, target.repeat(2), alpha=0), z, target, 5.0)
    nll = torch.nn.functional.cross_entropy(y, target.repeat(2), reduction="none").view(2, 6).sum(0)
    expected = nll + 5.0 * literal(y)
    torch.autograd.backward([2 * mine.loss.sum(), expected.sum()])
    torch.testing.assert_close(2 * mine.loss, expected)
    torch.testing.assert_close(z.grad, y.grad)
    torch.testing.assert_close(divergence, literal(logits))
    torch.testing.assert_close(2 * mine.nll, nll)


def test_without_weight_or_with_equal_passes_it_is_the_loss_itself():
    logits, target = draw(6, 9)
    twice = logits[:6].repeat(2, 1)
    expected = focal_terms(logits[:6], target)
    for z, alpha in ((twice, 5.0), (twice, 0.0)):
        mine, _ = rdrop_terms(focal_terms(z, target.repeat(2)), z, target, alpha)
        for one, other in zip(mine, expected):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("options", [LaboOptions(), LaboOptions(1.5, 0.3), smoothing_over_others(0.1, 11)])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.float16, 1e-2)])
@pytest.mark.parametrize("rows", [1, 13, 1000])
def test_fused_with_the_projection_all_is_the_same(monkeypatch, options, dtype, rtol, rows):
    """Cut into chunks anywhere but between the two rows of a token; a weight of each token projects again."""
    skip_without_product(dtype)
    monkeypatch.setattr(fused_linear, "_CHUNK_ELEMENTS", 0)
    monkeypatch.setattr(fused_linear, "_CHUNK_ROWS", max(2, rows))
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(11, (17,), generator=generator)
    target[::5] = -100
    leaves = [torch.randn(shape, generator=generator).to(dtype) for shape in ((34, 4), (11, 4), (11,))]
    for weights in (torch.ones(17), torch.arange(17.0)):
        outcomes = []
        for fused in (True, False):
            hidden, weight, bias = (
                leaf.to(dtype if fused else torch.float64).requires_grad_() for leaf in map(torch.clone, leaves)
            )
            if fused:
                terms, divergence = linear_rdrop_terms(options, 5.0, hidden, weight, target, -100, bias)
            else:
                z = torch.nn.functional.linear(hidden, weight, bias)
                own = labo_terms_with(options, z, target.repeat(2), -100)
                terms, divergence = rdrop_terms(own, z, target, 5.0)
            (terms.loss * weights).sum().backward()
            outcomes.append([*terms, divergence, hidden.grad, weight.grad, bias.grad])
        for mine, expected in zip(*outcomes):
            torch.testing.assert_close(mine.double(), expected, rtol=rtol, atol=10 * rtol)


def test_second_derivatives_of_the_fused_loss():
    generator = torch.Generator().manual_seed(5)
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((6, 3), (5, 3), (5,))]
    target = torch.tensor([0, -100, 2])

    def loss(hidden, weight, bias):
        return linear_rdrop_terms(LaboOptions(1.5, 0.3), 2.0, hidden, weight, target, bias=bias)[0].loss

    leaves = [tensor.requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)


def test_a_weight_out_of_range():
    with pytest.raises(ValueError, match="alpha must be a finite number ≥ 0, got -1"):
        rdrop_terms(
            focal_terms(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)),
            torch.zeros(4, 3),
            torch.zeros(2, dtype=torch.long),
            -1,
        )


def test_no_token_has_no_loss():
    """As where --ignore-prefix-size takes all that a batch has."""
    hidden, weight = (torch.zeros(rows, 4, requires_grad=True) for rows in (0, 5))
    terms, divergence = linear_rdrop_terms(LaboOptions(), 5.0, hidden, weight, torch.zeros(0, dtype=torch.long))
    (terms.loss.sum() + divergence.sum()).backward()
    assert terms.loss.shape == divergence.shape == (0,)
    assert hidden.grad.shape == (0, 4)
    assert not weight.grad.any()
