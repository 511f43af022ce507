"""Which posterior a checkpoint's configuration asks for, against the inverse of each method written out."""

import math
from types import SimpleNamespace

import pytest
import torch

from labo_fairseq import criterions  # noqa: F401  registers them
from labo_fairseq.criterions.posterior import log_posterior_of
from labo_fairseq.losses import cross_entropy_log_posterior
from labo_fairseq.losses.posterior import FLOOR

K = 7


@pytest.fixture(scope="module")
def p():
    logits = torch.randn(5, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return logits.softmax(dim=-1)


def entropy(p):
    return -(p * p.log()).sum(dim=-1, keepdim=True)


def smoothed(p, epsilon):
    """fairseq's label smoothing gives ε to the K − 1 other classes."""
    spread = epsilon * K / (K - 1)
    return (p - spread / K) / (1 - spread)


def labo(p, tau, alpha=None, rho=0.5):
    p_star = (p.log() / tau).softmax(dim=-1)
    alpha = 1 - rho * entropy(p) / math.log(K) if alpha is None else alpha
    return (p - alpha * p_star) / (1 - alpha)


def cp(p, beta):
    return p * (1 + beta * (p.log() + entropy(p)))


def focal(p, gamma):
    return p / ((1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * p.log())


def anti_focal(p, alpha, gamma):
    return p / ((1 + alpha * p) ** gamma + gamma * alpha * p * (1 + alpha * p) ** (gamma - 1) * p.log())


LABO = {"tau": 1.5, "alpha": "adaptive", "rho": 0.6, "label_smoothing": 0.1, "smoothing_warmup_steps": 100}
METHODS = {
    "cross_entropy": ({"_name": "cross_entropy"}, 0, lambda p: p),
    "ls": ({"_name": "label_smoothed_cross_entropy", "label_smoothing": 0.2}, 0, lambda p: smoothed(p, 0.2)),
    "labo": ({"_name": "labo", **LABO}, 101, lambda p: labo(p, 1.5, rho=0.6)),
    "its long name": (
        {"_name": "labo_label_smoothed_cross_entropy", **LABO, "alpha": "0.3"},
        101,
        lambda p: labo(p, 1.5, alpha=0.3),
    ),
    "labo without warm-up": (
        {"_name": "labo", **LABO, "smoothing_warmup_steps": 0},
        0,
        lambda p: labo(p, 1.5, rho=0.6),
    ),
    "labo at the end of its warm-up": ({"_name": "labo", **LABO}, 100, lambda p: smoothed(p, 0.1)),
    "cp": ({"_name": "confidence_penalty", "beta": 0.2}, 0, lambda p: cp(p, 0.2)),
    "focal": ({"_name": "focal_loss", "gamma": 1.5}, 0, lambda p: focal(p, 1.5)),
    "anti-focal": ({"_name": "anti_focal_loss", "alpha": 0.4, "gamma": 1.2}, 0, lambda p: anti_focal(p, 0.4, 1.2)),
}


@pytest.mark.parametrize("method", METHODS)
def test_posterior_of_every_method(p, method):
    options, updates, invert = METHODS[method]
    log_posterior = log_posterior_of(SimpleNamespace(**options), updates)
    y = invert(p).clamp(min=0)
    y = y / y.sum(dim=-1, keepdim=True)
    # all but cross-entropy keep a share of the prediction, so that nothing becomes impossible
    expected = y if method == "cross_entropy" else (1 - FLOOR) * y + FLOOR * p
    torch.testing.assert_close(log_posterior(p.log() + 3).exp(), expected, rtol=1e-9, atol=1e-12)


def test_no_mass_is_cross_entropy(p):
    """Which analyses know to leave out: it is what the model predicts."""
    for options in ({"_name": "cross_entropy"}, {"_name": "label_smoothed_cross_entropy", "label_smoothing": 0.0}):
        assert log_posterior_of(SimpleNamespace(**options), 10) is cross_entropy_log_posterior


@pytest.mark.parametrize("name", ["knowledge_distillation", "another_projects_loss"])
def test_none_where_logits_are_not_enough(name):
    assert log_posterior_of(SimpleNamespace(_name=name, alpha=0.5), 10) is None
