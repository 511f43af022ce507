"""What the modules take beside the options of LABO: weights, soft targets, z-loss, masked smoothing, the warm-up."""

import copy
import math

import pytest
import reference
import torch
from torch.nn import CrossEntropyLoss

from labo_fairseq.losses import (
    LaboLoss,
    LinearCrossEntropyLoss,
    LinearLaboLoss,
    blockwise,
    focal_terms,
    fused_linear,
    label_smoothing_log_posterior,
    rdrop_divergence,
)

N, K, D = 12, 7, 5


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_gradient_of_a_mean_is_made_once(monkeypatch, dtype):
    """The forward pass knows what the mean divides by; a factor afterwards is another pass, and as right."""
    multiplied = []
    rescale = blockwise.BlockKernel.rescale

    def noted(kernel, grad, scale, wanted, ignored):
        factor = wanted if scale is None else wanted / scale
        multiplied.append(not factor[~ignored].eq(1).all())
        rescale(kernel, grad, scale, wanted, ignored)

    monkeypatch.setattr(blockwise.BlockKernel, "rescale", noted)
    target = targets(N)

    def gradient(**options):
        logits = draw(N, K).to(dtype).requires_grad_()
        factor = options.pop("factor", 1)
        (LaboLoss(**options)(logits, target) * factor).backward()
        return logits.grad.double()

    kept = int(target.ne(-100).sum())
    expected = gradient(reduction="sum", factor=1 / kept)
    tolerance = {"rtol": 2 * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).tiny}
    torch.testing.assert_close(gradient(), expected, **tolerance)
    torch.testing.assert_close(gradient(factor=3), 3 * expected, rtol=4 * torch.finfo(dtype).eps, atol=0)
    # in float16 every row has a power of two of its own
    assert multiplied == [True, dtype == torch.float16, True]


@pytest.mark.parametrize("soft", [False, True])
def test_a_divisor_takes_the_place_of_the_tokens(soft):
    logits = draw(N, K)
    target = draw(N, K, seed=1).softmax(-1) if soft else targets(N)
    total = LaboLoss(reduction="sum")(logits, target)
    for divisor in (37, torch.tensor(37), torch.tensor(37.0)):
        torch.testing.assert_close(LaboLoss()(logits, target, divisor=divisor), total / 37)
    torch.testing.assert_close(LaboLoss()(logits, target, divisor=0), total)
    for reduction in ("sum", "none"):
        with pytest.raises(ValueError, match="divisor needs reduction='mean'"):
            LaboLoss(reduction=reduction)(logits, target, divisor=37)


@pytest.mark.parametrize("loss", [LinearLaboLoss, LinearCrossEntropyLoss])
def test_a_divisor_of_a_linear_loss_takes_the_place_of_the_tokens(loss):
    hidden, weight, target = draw(N, 4), draw(K, 4, seed=1), targets(N)
    total = loss(reduction="sum")(hidden, weight, target)
    for divisor in (37, torch.tensor(37)):
        torch.testing.assert_close(loss()(hidden, weight, target, divisor=divisor), total / 37)
    torch.testing.assert_close(loss()(hidden, weight, target, divisor=0), total)
    with pytest.raises(ValueError, match="divisor needs reduction='mean'"):
        loss(reduction="none")(hidden, weight, target, divisor=37)


def targets(*shape, ignore=True):
    target = torch.randint(K, shape, generator=torch.Generator().manual_seed(1))
    if ignore:
        target.view(-1)[::5] = -100
    return target


def assert_same(one, other, *inputs):
    """Values and gradients of two functions of the inputs, under a random direction where there are several values."""
    results = []
    for function in (one, other):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        value = function(*leaves)
        (value * draw(*value.shape, seed=9)).sum().backward()
        results.append([value.detach(), *(leaf.grad for leaf in leaves)])
    for mine, theirs in zip(*results):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0, 1.5, 1.0], dtype=torch.float64)


def objective(logits, label, alpha="adaptive", tau=1.25, rho=0.5, z_loss=0.0, support=None):
    """The equation for each token, literally, with distributions as labels; α and P* are constants."""
    k = logits.size(-1)
    support = torch.ones(k, dtype=torch.bool) if support is None else support
    log_p = logits.log_softmax(-1)
    with torch.no_grad():
        a = reference.adaptive_alpha(logits, rho) if alpha == "adaptive" else torch.full_like(logits[:, 0], alpha)
        p_star = (log_p / tau).masked_fill(~support, -math.inf).softmax(-1)
        smoothed = (1 - a[:, None]) * label + a[:, None] * p_star
        divergence = reference.divergence(p_star, -math.log(support.sum()))
    return -reference.times(smoothed, log_p).sum(-1) + a * tau * divergence + z_loss * logits.logsumexp(-1) ** 2


@pytest.mark.parametrize("weight", [None, torch.rand(200)])
def test_targets_are_bytes_as_those_of_cross_entropy_may_be(weight):
    """156 is −100 to uint8, and a tensor indexed by bytes is masked by them."""
    logits, target = torch.randn(3, 200), torch.tensor([156, 3, 7], dtype=torch.uint8)
    expected = CrossEntropyLoss(weight)(logits, target)
    eye, linear = torch.eye(200), LinearCrossEntropyLoss(weight)
    torch.testing.assert_close(LaboLoss(alpha=0.0, weight=weight)(logits, target), expected)
    torch.testing.assert_close(linear(logits, eye, target), expected)
    torch.testing.assert_close(rdrop_divergence(logits.repeat(2, 1), target), torch.zeros(3))
    torch.testing.assert_close(focal_terms(logits, target), focal_terms(logits, target.long()))


@pytest.mark.parametrize(
    "terms", [focal_terms, lambda z, target: fused_linear.linear_labo_terms(z, torch.eye(K), target)]
)
def test_fractions_are_no_class_indices(terms):
    with pytest.raises(ValueError, match=r"target must be class indices, got torch\.float32"):
        terms(torch.randn(3, K), torch.tensor([1.5, 0.0, 2.0]))


@reductions
@pytest.mark.parametrize("shape", [(N, K), (4, K, 3)])
def test_class_weights_are_those_of_cross_entropy(reduction, shape):
    target = targets(shape[0], *shape[2:])
    theirs = CrossEntropyLoss(weight=WEIGHT, reduction=reduction)
    mine = LaboLoss(alpha=0.0, weight=WEIGHT, reduction=reduction)
    assert_same(lambda z: mine(z, target), lambda z: theirs(z, target), draw(*shape))


@reductions
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("shape", [(K,), (N, K), (4, K, 3)])
def test_soft_targets_are_those_of_cross_entropy(reduction, weight, shape):
    dim = 0 if len(shape) == 1 else 1
    target = draw(*shape, seed=3).softmax(dim)
    theirs = CrossEntropyLoss(weight=weight, reduction=reduction)
    mine = LaboLoss(alpha=0.0, weight=weight, reduction=reduction)
    assert_same(lambda z: mine(z, target), lambda z: theirs(z, target), draw(*shape))


@pytest.mark.parametrize("alpha", ["adaptive", 0.3, 1.0])
def test_soft_targets_have_the_place_of_the_one_hot_label(alpha):
    label = draw(N, K, seed=3).softmax(-1)
    label[0] = torch.eye(K, dtype=torch.float64)[2]
    mine = LaboLoss(alpha=alpha, reduction="none")
    assert_same(lambda z: mine(z, label), lambda z: objective(z, label, alpha), draw(N, K))


def test_one_hot_labels_are_class_indices():
    target = targets(N, ignore=False)
    label = torch.eye(K, dtype=torch.float64)[target]
    for options in ({}, {"weight": WEIGHT, "z_loss": 0.1}, {"warmup_steps": 1}):
        loss = LaboLoss(reduction="none", **options)
        assert_same(lambda z, loss=loss: loss(z, label), lambda z, loss=loss: loss(z, target), draw(N, K))


@reductions
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("fused", [False, True])
def test_token_weights(reduction, weight, fused):
    """Each loss by its weight; the mean by their sum. The weights may have a gradient themselves."""
    logits, target = draw(N, K), targets(N)
    token_weight = draw(N, seed=4).abs()
    kept = target != -100
    factor = kept * (1.0 if weight is None else weight[target.clamp(min=0)])
    label = torch.eye(K, dtype=torch.float64)[target.clamp(min=0)]

    def expected(z, w):
        loss = objective(z, label) * factor * w
        return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / (factor * w).sum()}[reduction]

    if fused:
        loss = LinearLaboLoss(weight=weight, reduction=reduction)
        identity = torch.eye(K, dtype=torch.float64)
        assert_same(lambda z, w: loss(z, identity, target, None, w), expected, logits, token_weight)
        constant = token_weight
        assert_same(lambda z: loss(z, identity, target, None, constant), lambda z: expected(z, constant), logits)
    else:
        loss = LaboLoss(weight=weight, reduction=reduction)
        assert_same(lambda z, w: loss(z, target, w), expected, logits, token_weight)


def test_a_token_weight_of_0_is_an_ignored_token():
    logits, target = draw(N, K), targets(N, ignore=False)
    kept = torch.arange(N) % 3 > 0
    loss = LaboLoss()
    ignored = target.masked_fill(~kept, -100)
    assert_same(lambda z: loss(z, target, kept.double()), lambda z: loss(z, ignored), logits)
    assert loss(logits, target, torch.zeros(N)).item() == 0


@reductions
def test_nothing_is_ignored_where_the_index_is_none(reduction):
    logits, target = draw(N, K), targets(N, ignore=False)
    mine, usual = LaboLoss(ignore_index=None, reduction=reduction), LaboLoss(reduction=reduction)
    assert_same(lambda z: mine(z, target), lambda z: usual(z, target), logits)
    fused = LinearLaboLoss(ignore_index=None, reduction=reduction)
    weight = draw(K, K, seed=2)
    assert_same(lambda z: fused(z, weight, target), lambda z: usual(z @ weight.t(), target), logits)


@pytest.mark.parametrize("alpha", ["adaptive", 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_z_loss(alpha, dtype):
    target = targets(N, ignore=False)
    label = torch.eye(K, dtype=torch.float64)[target]
    logits = (draw(N, K) + 3).to(dtype)
    z, y = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = LaboLoss(alpha=alpha, z_loss=0.02, reduction="none")(z, target)
    expected = objective(y, label, alpha, z_loss=0.02)
    torch.autograd.backward([loss.sum(), expected.sum()])
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(z.grad.double(), y.grad, rtol=tolerance, atol=tolerance / 10)
    wide = LaboLoss(alpha=alpha, z_loss=0.02, reduction="none")
    assert torch.autograd.gradgradcheck(lambda z: wide(z, target), (draw(N, K).requires_grad_(),))


SUPPORT = torch.tensor([True, False, True, True, False, False, True])


@pytest.mark.parametrize("alpha", ["adaptive", 0.3, 1.0])
@pytest.mark.parametrize("tau", [0.5, 1.25, 50.0])
@pytest.mark.parametrize("fused", [False, True])
def test_masked_smoothing(alpha, tau, fused):
    """P* is 0 for words that only the source language has, and log K counts the others."""
    target = targets(N, ignore=False)
    label = torch.eye(K, dtype=torch.float64)[target]
    logits = draw(N, K)
    logits[:, 1] += 5  # the likeliest class is none of the target language
    if fused:
        module, identity = LinearLaboLoss(tau, alpha, reduction="none", smoothing_support=SUPPORT), torch.eye(K)
        loss = lambda z: module(z, identity.double(), target)  # noqa: E731
    else:
        module = LaboLoss(tau, alpha, reduction="none", smoothing_support=SUPPORT)
        loss = lambda z: module(z, target)  # noqa: E731
    assert_same(loss, lambda z: objective(z, label, alpha, tau, support=SUPPORT), logits)
    assert torch.autograd.gradgradcheck(loss, (logits[:].requires_grad_(),))


def test_smoothing_that_may_reach_all_classes_is_the_usual_one():
    target, every = targets(N), torch.ones(K, dtype=torch.bool)
    for options in ({}, {"tau": 1e4, "alpha": 0.1}, {"warmup_steps": 1}):
        masked, usual = LaboLoss(smoothing_support=every, **options), LaboLoss(**options)
        assert_same(lambda z, m=masked: m(z, target), lambda z, m=usual: m(z, target), draw(N, K))


def test_masked_label_smoothing_gives_its_mass_to_the_target_language_alone():
    """Chen et al. (2022): ε over the words of the target language, in the warm-up and fused."""
    target = targets(N, ignore=False)
    label = 0.9 * torch.eye(K, dtype=torch.float64)[target] + 0.1 * SUPPORT.double() / SUPPORT.sum()
    theirs = CrossEntropyLoss()
    warming = LaboLoss(warmup_steps=1, smoothing_support=SUPPORT)
    assert_same(lambda z: warming(z, target), lambda z: theirs(z, label), draw(N, K))
    fused = LinearCrossEntropyLoss(label_smoothing=0.1, smoothing_support=SUPPORT)
    identity = torch.eye(K, dtype=torch.float64)
    assert_same(lambda z: fused(z, identity, target), lambda z: theirs(z, label), draw(N, K))


@reductions
@pytest.mark.parametrize("chunk", [3, 100])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_fused_cross_entropy_is_that_of_pytorch(reduction, chunk, label_smoothing, monkeypatch):
    monkeypatch.setattr(fused_linear, "_CHUNK_ELEMENTS", 0)
    monkeypatch.setattr(fused_linear, "_CHUNK_ROWS", chunk)
    target = targets(3, 4)
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    mine, theirs = LinearCrossEntropyLoss(**options), CrossEntropyLoss(**options)

    def expected(hidden, weight, bias):
        return theirs((hidden @ weight.t() + bias).movedim(-1, 1), target)

    inputs = (draw(3, 4, D), draw(K, D, seed=2), draw(K, seed=3))
    assert_same(lambda h, w, b: mine(h, w, target, b), expected, *inputs)


@reductions
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("chunk", [3, 100])
def test_every_reduction_of_the_fused_loss_has_all_gradients(reduction, weight, chunk, monkeypatch):
    monkeypatch.setattr(fused_linear, "_CHUNK_ELEMENTS", 0)
    monkeypatch.setattr(fused_linear, "_CHUNK_ROWS", chunk)
    target = targets(3, 4)
    options = {"reduction": reduction, "weight": weight, "z_loss": 0.01}
    mine, theirs = LinearLaboLoss(**options), LaboLoss(**options)

    def expected(hidden, weight, bias):
        return theirs((hidden @ weight.t() + bias).movedim(-1, 1), target)

    inputs = (draw(3, 4, D), draw(K, D, seed=2), draw(K, seed=3))
    assert_same(lambda h, w, b: mine(h, w, target, b), expected, *inputs)


@pytest.mark.parametrize("kind", [LaboLoss, LinearLaboLoss])
def test_the_warm_up_is_label_smoothing(kind):
    logits, target = draw(N, K), targets(N)
    loss = kind(tau=1.15, label_smoothing=0.2)
    loss.warmup_steps = 2
    assert loss.warming_up, "as if it had been made so"

    def value(module, z):
        return module(z, torch.eye(K, dtype=torch.float64), target) if kind is LinearLaboLoss else module(z, target)

    for number in range(4):
        expected = CrossEntropyLoss(label_smoothing=0.2) if number < 2 else LaboLoss(tau=1.15)
        assert_same(lambda z: value(loss, z), lambda z, e=expected: e(z, target), logits)
        loss.step()
    loss.set_updates(1)
    assert_same(lambda z: value(loss, z), lambda z: CrossEntropyLoss(label_smoothing=0.2)(z, target), logits)


@pytest.mark.parametrize("name", ["tau", "alpha", "rho", "label_smoothing"])
def test_an_option_is_not_set_where_that_would_change_nothing(name):
    with pytest.raises(AttributeError, match=name):
        setattr(LaboLoss(), name, 0.5)


@pytest.mark.parametrize("updates", range(4))
def test_the_posterior_is_that_of_the_updates_that_were_made(updates):
    logits, loss = draw(N, K), LaboLoss(tau=1.15, warmup_steps=2, label_smoothing=0.2)
    loss.set_updates(updates)
    smoothing, labo = label_smoothing_log_posterior(logits, 0.2), LaboLoss(tau=1.15).log_posterior(logits)
    torch.testing.assert_close(loss.log_posterior(logits), labo if updates > 2 else smoothing)


def test_the_warm_up_is_saved(tmp_path):
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(2, 3), "loss": LaboLoss(warmup_steps=5, weight=WEIGHT)})
    for _ in range(3):
        model["loss"].step()
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other = torch.nn.ModuleDict({"layer": torch.nn.Linear(2, 3), "loss": LaboLoss(warmup_steps=5, weight=0 * WEIGHT)})
    state = torch.load(tmp_path / "state.pt")
    other.load_state_dict(state)
    assert other["loss"].updates == 3
    assert other["loss"].warming_up
    assert torch.equal(other["loss"].weight, WEIGHT)
    other["loss"].step()
    other["loss"].step()
    assert not other["loss"].warming_up
    assert copy.deepcopy(other["loss"]).updates == 5
    with pytest.raises(RuntimeError, match=r"Missing key.*loss\.updates"):
        other.load_state_dict({key: value for key, value in state.items() if key != "loss.updates"})
    assert list(LaboLoss().state_dict()) == []
    with pytest.raises(RuntimeError, match=r"Unexpected key.*loss\.more"):
        other.load_state_dict({**state, "loss.more": torch.ones(1)})


def test_the_options_cannot_be_changed_behind_its_back():
    with pytest.raises(AttributeError):
        LaboLoss().tau = 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LaboLoss(warmup_steps=-1), "warmup_steps must be an integer ≥ 0, got -1"),
        (lambda: LaboLoss(warmup_steps=0.05), "warmup_steps must be an integer ≥ 0, got 0.05"),
        (lambda: LaboLoss(label_smoothing=1.0), r"label_smoothing must be in \[0, 1\), got 1.0"),
        (lambda: LinearCrossEntropyLoss(label_smoothing=-0.1), r"label_smoothing must be in \[0, 1\), got -0.1"),
        (lambda: LaboLoss(z_loss=-1), "z_loss must be a finite number ≥ 0, got -1"),
        (lambda: LaboLoss(weight=torch.ones(2, 2)), r"weight must have the shape \(K,\), got \(2, 2\)"),
        (lambda: LaboLoss(smoothing_support=torch.ones(K)), "must be .K,., torch.bool"),
        (lambda: LaboLoss(smoothing_support=torch.zeros(K, dtype=torch.bool)), "must hold at least one class"),
        (
            lambda: LaboLoss(weight=torch.ones(3))(draw(N, K), targets(N)),
            r"weight must have the shape \(7,\) of the classes, got \(3,\)",
        ),
        (
            lambda: LaboLoss(smoothing_support=SUPPORT[:2])(draw(N, K), targets(N)),
            r"smoothing_support must have the shape \(7,\)",
        ),
        (lambda: LaboLoss()(draw(N, K), targets(N), torch.ones(3)), "token_weight"),
        (lambda: LaboLoss()(draw(N, K), draw(N, K), torch.ones(3)), "token_weight"),
        (lambda: LaboLoss()(draw(N, K), draw(N, 3)), "logits and target must be"),
        (lambda: LaboLoss()(draw(N, K), draw(N, K).requires_grad_()), "detach"),
        (lambda: LinearLaboLoss()(draw(N, D), draw(K, D), draw(N, K)), "LaboLoss of the logits"),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
