"""Projection and loss in one, against the projection followed by the literal equations."""

import math

import pytest
import reference
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from half_precision import skip_without_product
from hypothesis import given, settings
from hypothesis import strategies as st

from labo_fairseq.losses import LaboLoss, LinearLaboLoss, fused_linear, labo_terms, linear_labo_terms
from labo_fairseq.losses.label_smoothing import smoothing_over_others


def draw(n, d, k, scale=1.0, seed=0, dtype=torch.float64):
    """Hidden states, weight, target and bias."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
        for shape in ((n, d), (k, d), (k,))
    )
    return hidden, weight, torch.randint(k, (n,), generator=generator), bias


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def check(hidden, weight, target, bias, tau=1.25, alpha="adaptive", token_weight=None, rtol=1e-9, atol=1e-9):
    """Terms and the three gradients equal those of the reference."""
    h, w, b = leaves(hidden, weight, bias)
    terms = linear_labo_terms(h, w, target, tau, alpha, bias=b)
    scale = torch.ones(target.shape).to(terms.loss) if token_weight is None else token_weight.to(terms.loss)
    (terms.loss * scale).sum().backward()
    x, y, z = leaves(hidden.double(), weight.double(), bias.double())
    logits = torch.nn.functional.linear(x, y, z)
    a = reference.adaptive_alpha(logits.detach(), 0.5)
    if alpha != "adaptive":
        a = torch.full_like(a, alpha)
    expected = reference.objective(logits, target, tau, a)
    (expected * scale.double()).sum().backward()
    torch.testing.assert_close(terms.loss.double(), expected, rtol=rtol, atol=atol)
    for mine, other in zip((h, w, b), (x, y, z)):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=rtol, atol=atol)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 9),
    d=st.integers(1, 7),
    k=st.integers(2, 90),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 10.0, 100.0]),
    tau=st.floats(0.2, 20.0),
    alpha=st.one_of(st.just("adaptive"), st.floats(0.0, 1.0)),
    seed=st.integers(0, 10**6),
)
def test_any_shape_magnitude_and_option(n, d, k, scale, tau, alpha, seed):
    check(*draw(n, d, k, scale, seed), tau=tau, alpha=alpha, rtol=1e-7, atol=1e-7)


@pytest.fixture
def small_chunks(monkeypatch):
    """Three rows at a time, so that nothing here fits one chunk, nor is a multiple of one."""
    monkeypatch.setattr(fused_linear, "_CHUNK_ELEMENTS", 0)
    monkeypatch.setattr(fused_linear, "_CHUNK_ROWS", 3)


@pytest.mark.parametrize("n", [0, 1, 3, 10])
def test_chunks_cut_anywhere(small_chunks, n):
    check(*draw(n, 5, 37))


@pytest.mark.parametrize(("device", "rows"), [("cpu", 838), ("meta", 3355)])
def test_chunks_of_a_gpu_are_larger(device, rows):
    hidden, weight = torch.empty(4000, 1, device=device), torch.empty(10_000, 1, device=device)
    chunks = [part for part, _ in fused_linear._chunks(hidden, weight, None)]
    assert chunks[0] == slice(0, rows)
    assert chunks[-1].stop == 4000


def test_without_bias(small_chunks):
    hidden, weight, target, _ = draw(7, 5, 11)
    terms = linear_labo_terms(hidden, weight, target)
    for mine, other in zip(terms, labo_terms(hidden @ weight.t(), target)):
        torch.testing.assert_close(mine, other)


def test_every_token_may_have_a_weight(small_chunks):
    check(*draw(7, 5, 11), token_weight=torch.arange(7.0))


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float32, 1e-4, 1e-5), (torch.bfloat16, 5e-2, 5e-2), (torch.float16, 1e-2, 1e-2)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_dtype(small_chunks, dtype, rtol, atol, weighted):
    skip_without_product(dtype)
    check(*draw(9, 6, 50, dtype=dtype), token_weight=torch.arange(9.0) if weighted else None, rtol=rtol, atol=atol)


def test_float16_gradient_is_scaled_before_it_is_rounded():
    skip_without_product(torch.float16)
    hidden, weight, target, _ = draw(4, 8, 5000, scale=0.1, dtype=torch.float16)
    h, w = leaves(hidden, weight)
    (linear_labo_terms(h, w, target).loss.sum() * 1024).backward()
    x, y = leaves(hidden.double(), weight.double())
    (labo_terms(x @ y.t(), target).loss.sum() * 1024).backward()
    torch.testing.assert_close(w.grad.double(), y.grad, rtol=5e-3, atol=1e-5)
    torch.testing.assert_close(h.grad.double(), x.grad, rtol=5e-3, atol=1e-3)


def test_autocast_multiplies_in_its_dtype():
    hidden, weight, target, bias = draw(9, 6, 50, dtype=torch.float32)
    h, w, b = leaves(hidden, weight, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_labo_terms(h, w, target, bias=b).loss
        logits = torch.nn.functional.linear(hidden, weight, bias)
        assert logits.dtype == torch.bfloat16
    loss.sum().backward()
    assert loss.dtype == h.grad.dtype == w.grad.dtype == b.grad.dtype == torch.float32
    torch.testing.assert_close(loss, labo_terms(logits, target).loss, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("k", [2, 37])
def test_uniform_smoothing_is_that_of_fairseq(small_chunks, epsilon, k):
    hidden, weight, target, bias = draw(10, 5, k)
    target[[2, 5]] = 1
    h, w, b = leaves(hidden, weight, bias)
    terms = fused_linear.linear_labo_terms_with(smoothing_over_others(epsilon, len(w)), h, w, target, 1, b)
    terms.loss.sum().backward()
    x, y, z = leaves(hidden, weight, bias)
    log_p = torch.nn.functional.linear(x, y, z).log_softmax(-1)
    expected, expected_nll = label_smoothed_nll_loss(log_p, target, epsilon, ignore_index=1)
    expected.backward()
    torch.testing.assert_close(terms.loss.sum(), expected)
    torch.testing.assert_close(terms.nll.sum(), expected_nll)
    for mine, other in zip((h, w, b), (x, y, z)):
        torch.testing.assert_close(mine.grad, other.grad)


def test_extreme_logits():
    hidden, weight, target, bias = draw(12, 5, 37, scale=60.0)
    bias[5:9] = -math.inf
    target.clamp_(max=4)
    check(hidden, weight, target, bias, rtol=1e-7, atol=1e-5)


def test_ignored_tokens_have_no_loss_and_no_gradient(small_chunks):
    hidden, weight, target, bias = draw(8, 5, 11)
    target[[1, 4, 5, 6, 7]] = -100
    h, w, b = leaves(hidden, weight, bias)
    loss = linear_labo_terms(h, w, target, bias=b).loss
    loss.sum().backward()
    kept = target != -100
    assert (loss[~kept] == 0).all()
    assert (h.grad[~kept] == 0).all()
    x, y, z = leaves(hidden[kept], weight, bias)
    linear_labo_terms(x, y, target[kept], bias=z).loss.sum().backward()
    for mine, other in zip((h.grad[kept], w.grad, b.grad), (x.grad, y.grad, z.grad)):
        torch.testing.assert_close(mine, other)


def test_strided_inputs():
    hidden, weight, target, bias = draw(10, 6, 37)
    check(hidden.t().contiguous().t(), weight.t().contiguous().t(), target, bias)
    check(torch.cat([hidden, hidden], -1)[:, ::2], torch.cat([weight, weight], -1)[:, ::2], target, bias)


def test_only_the_gradients_that_are_asked_for():
    hidden, weight, target, bias = draw(10, 6, 37)
    (w,) = leaves(weight)
    linear_labo_terms(hidden, w, target, bias=bias).loss.sum().backward()
    (h,) = leaves(hidden)
    linear_labo_terms(h, weight, target, bias=bias).loss.sum().backward()
    x, y, z = leaves(hidden, weight, bias)
    linear_labo_terms(x, y, target, bias=z).loss.sum().backward()
    torch.testing.assert_close(w.grad, y.grad)
    torch.testing.assert_close(h.grad, x.grad)


def test_the_graph_can_be_used_twice():
    hidden, weight, target, _ = draw(4, 5, 6)
    h, w = leaves(hidden, weight)
    loss = linear_labo_terms(h, w, target).loss
    loss.mean().backward(retain_graph=True)
    once = h.grad.clone(), w.grad.clone()
    loss.mean().backward()
    torch.testing.assert_close((h.grad, w.grad), (2 * once[0], 2 * once[1]))


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_gradients_of_views_may_be_written_to_between_two_uses(factor):
    hidden, weight, target, _ = draw(4, 5, 6)
    h, w = leaves(hidden, weight)
    loss = factor * linear_labo_terms(h.view(4, 5), w.view(6, 5), target).loss.sum()
    loss.backward(retain_graph=True)
    once = h.grad.clone(), w.grad.clone()
    h.grad.zero_()
    w.grad.zero_()
    loss.backward()
    torch.testing.assert_close((h.grad, w.grad), once)


def test_no_grad_gives_the_same_loss():
    hidden, weight, target, bias = draw(4, 5, 6)
    h, w = leaves(hidden, weight)
    with torch.no_grad():
        loss = linear_labo_terms(h, w, target, bias=bias).loss
    assert not loss.requires_grad
    torch.testing.assert_close(loss, labo_terms(hidden @ weight.t() + bias, target).loss)


def test_the_likeliest_class(small_chunks):
    hidden, weight, _, bias = draw(10, 5, 37)
    assert torch.equal(fused_linear.linear_argmax(hidden, weight, bias), (hidden @ weight.t() + bias).argmax(-1))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_module_is_labo_loss_of_the_projection(reduction):
    hidden, weight, target, bias = draw(12, 5, 11)
    target[3] = -100
    options = {"tau": 1.15, "alpha": 0.3, "reduction": reduction}
    mine = LinearLaboLoss(**options)(hidden.view(3, 4, 5), weight, target.view(3, 4), bias)
    expected = LaboLoss(**options)(hidden @ weight.t() + bias, target)
    torch.testing.assert_close(mine, expected.view(3, 4) if reduction == "none" else expected)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="hidden and target must be"):
        LinearLaboLoss()(torch.zeros(3, 4), torch.zeros(5, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="hidden, weight and target must be"):
        linear_labo_terms(torch.zeros(3, 4), torch.zeros(5, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="the number of classes must be ≥ 2, got 1"):
        linear_labo_terms(torch.zeros(3, 4), torch.zeros(1, 4), torch.zeros(3, dtype=torch.long))
