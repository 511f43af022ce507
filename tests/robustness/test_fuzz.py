"""Ten thousand random cases of the loss against the literal equation in float64."""

import math
import random

import pytest
import reference
import torch

from labo_fairseq.losses import labo_terms, linear_labo_terms

#: dtype → cases, and the relative error of its numbers
CASES = {torch.float64: (4000, 2**-52), torch.float32: (3000, 2**-23), torch.bfloat16: (1000, 2**-8)}
CASES[torch.float16] = (1000, 2**-11)


def draw(rng, dtype):
    """Logits (N, K), targets and options: any size, magnitude and shape of the distribution."""
    n, k = rng.randint(0, 6), rng.choice([2, 3, rng.randint(4, 64), rng.randint(65, 400)])
    scale = 10 ** rng.uniform(-4, 3.5)
    logits = torch.randn(n, k, dtype=torch.float64) * scale
    if rng.random() < 0.2:  # one class alone, far above or below all others
        logits[:, rng.randrange(k)] += rng.choice([-1, 1]) * 10 ** rng.uniform(0, 4)
    if rng.random() < 0.1:  # ties
        logits = logits.round()
    logits = (logits + rng.choice([0, 0, rng.uniform(-100, 100)])).to(dtype)
    target = torch.randint(k, (n,))
    if rng.random() < 0.15 and k > 2:  # a class that is not to be had
        impossible = rng.randrange(k)
        logits[:, impossible] = -math.inf
        target = torch.where(target == impossible, (target + 1) % k, target)
    alpha = "adaptive" if rng.random() < 0.6 else rng.choice([0.0, 1.0, rng.random()])
    return logits, target, 10 ** rng.uniform(-0.7, 2), alpha, rng.uniform(0.5, 1)


def expected(logits, target, tau, alpha, rho):
    """Loss and gradient in float64."""
    adaptive = alpha == "adaptive"
    a = reference.adaptive_alpha(logits, rho) if adaptive else torch.full(target.shape, alpha, dtype=torch.float64)
    return reference.objective(logits, target, tau, a), reference.gradient(logits, target, tau, a)


def assert_equal(actual, truth, error, what):
    bad = (actual.double() - truth).abs() > error
    assert not bad.any(), f"{what}: {actual.double()[bad]} instead of {truth[bad]}"


@pytest.mark.parametrize("dtype", CASES, ids=str)
def test_labo(dtype):
    cases, epsilon = CASES[dtype]
    rng = random.Random(str(dtype))
    torch.manual_seed(rng.randrange(2**32))
    sums = min(epsilon, 2**-23)  # what is added up has float32 at least
    for case in range(cases):
        logits, target, tau, alpha, rho = draw(rng, dtype)
        loss, gradient = expected(logits, target, tau, alpha, rho)
        z = logits.clone().requires_grad_()
        terms = labo_terms(z, target, tau, alpha, rho)
        terms.loss.sum().backward()
        name = f"case {case}: {tuple(logits.shape)}, tau {tau}, alpha {alpha}, rho {rho}"
        # a loss is a difference of numbers as large as the largest logit; its exponents make errors of their size
        largest = logits.double().masked_fill(logits.isinf(), 0).abs().amax(-1) if len(logits) else loss
        size = 16 + largest * max(1, 1 / tau)
        assert_equal(terms.loss, loss, 16 * sums * (size * (1 + tau) + loss.abs()), name)
        rounding = epsilon * gradient.abs() + 16 * sums * size[:, None] + torch.finfo(dtype).tiny
        assert_equal(z.grad, gradient, rounding, f"gradient of {name}")


def test_fused():
    rng = random.Random("fused")
    torch.manual_seed(1)
    for case in range(1000):
        logits, target, tau, alpha, rho = draw(rng, torch.float64)
        weight = torch.where(logits.isinf(), -1e4, logits).T.contiguous()
        identity = torch.eye(len(target), dtype=torch.float64)
        loss, gradient = expected(weight.T, target, tau, alpha, rho)
        hidden, w = identity.requires_grad_(), weight.requires_grad_()
        terms = linear_labo_terms(hidden, w, target, tau, alpha, rho)
        terms.loss.sum().backward()
        torch.testing.assert_close(terms.loss, loss, rtol=1e-9, atol=1e-9, msg=f"case {case}")
        torch.testing.assert_close(w.grad.T, gradient, rtol=1e-8, atol=1e-9, msg=f"case {case}")
