"""The training methods for images, against the equations of their papers, written out in float64."""

import math

import pytest
import reference
import torch
from torch import nn
from torch.nn import functional as F

from labo_fairseq.errors import UserError
from labo_fairseq.images.methods import Batch, Context, build_method, find_method, method_defaults, method_names
from labo_fairseq.images.randomness import generator_at

N = 12


def cases():
    """Logits (N, K) and targets: random, with large values, all equal, nearly one-hot, two classes."""
    generator = generator_at("cases")
    for scale, classes in [(1.0, 10), (30.0, 10), (0.0, 7), (300.0, 5), (3.0, 2), (2.0, 100)]:
        logits = scale * torch.randn(N, classes, generator=generator, dtype=torch.float64)
        yield logits, torch.randint(classes, (N,), generator=generator)


CASES = list(cases())
every_case = pytest.mark.parametrize(("logits", "target"), CASES, ids=[f"case{number}" for number in range(len(CASES))])


def tiny(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes), nn.BatchNorm1d(classes))


def context(classes, **changes):
    values = {"classes": classes, "images": 40, "epochs": 10, "updates": 100, "build": lambda: tiny(classes)}
    return Context(**{**values, **changes})


def batch(target, update=50, epoch=5, **changes):
    values = {
        "images": torch.randn(len(target), 3, 2, 2, generator=generator_at("images")),
        "target": target,
        "indices": torch.arange(len(target)),
        "epoch": epoch,
        "update": update,
        "generator": generator_at("draws"),
    }
    return Batch(**{**values, **changes})


def agree(loss, expected, logits):
    """Values (N,) and gradients of two functions of the logits are the same."""
    results = []
    for function in (loss, expected):
        z = logits.detach().clone().requires_grad_()
        value = function(z)
        value.sum().backward()
        results.append((value.detach(), z.grad))
    for mine, literal in zip(*results):
        torch.testing.assert_close(mine, literal, rtol=1e-9, atol=1e-9)


def cross_entropy(z, target):
    return -z.log_softmax(-1)[torch.arange(len(z)), target]


def with_label(z, label):
    return -(label * z.log_softmax(-1)).sum(-1)


def divergence(p, q):
    """KL(p ‖ q) by logarithms of probabilities."""
    return (p.exp() * (p - q)).sum(-1)


@every_case
def test_base_and_label_smoothing(logits, target):
    classes = logits.size(-1)
    methods = {epsilon: build_method("ls", context(classes), {"epsilon": epsilon}) for epsilon in (0.0, 0.1, 0.9, 1.0)}
    for epsilon, method in methods.items():
        label = (1 - epsilon) * F.one_hot(target, classes).double() + epsilon / classes
        agree(lambda z: method.loss(z, target, None), lambda z: with_label(z, label), logits)  # noqa: B023
        # the identity of IMAGES.md
        penalty = lambda z: cross_entropy(z, target) + epsilon * (z[range(N), target] - z.mean(-1))  # noqa: B023, E731
        agree(lambda z: method.loss(z, target, None), penalty, logits)  # noqa: B023
    base = build_method("ce", context(classes), {})
    agree(lambda z: base.loss(z, target, None), lambda z: cross_entropy(z, target), logits)


@every_case
def test_the_losses_of_translation_serve_images(logits, target):
    classes = logits.size(-1)
    penalty = build_method("cp", context(classes), {"beta": 0.3})
    agree(lambda z: penalty.loss(z, target, None), lambda z: reference.confidence_penalty(z, target, 0.3), logits)
    focal = build_method("fl", context(classes), {"gamma": 2.0})
    moderate = logits.clamp(-15, 15)  # autograd through the literal power is not exact where 1 − p_k underflows
    agree(lambda z: focal.loss(z, target, None), lambda z: reference.focal(z, target, 2.0), moderate)


@every_case
def test_labo_smooths_evenly_first_and_optimally_then(logits, target):
    method = build_method("labo", context(logits.size(-1)), {"tau": 1.5, "warmup": 0.25, "epsilon": 0.2})
    alpha = reference.adaptive_alpha(logits, 0.5)
    before, after = batch(target, update=24), batch(target, update=25)
    smoothing = build_method("ls", context(logits.size(-1)), {"epsilon": 0.2})
    agree(lambda z: method.loss(z, target, before), lambda z: smoothing.loss(z, target, None), logits)
    agree(lambda z: method.loss(z, target, after), lambda z: reference.objective(z, target, 1.5, alpha), logits)
    fixed = build_method("labo", context(logits.size(-1)), {"tau": 4.0, "alpha": 0.2, "warmup": 0.0})
    agree(
        lambda z: fixed.loss(z, target, after),
        lambda z: reference.objective(z, target, 4.0, torch.full((N,), 0.2, dtype=torch.float64)),
        logits,
    )


@pytest.mark.parametrize("rho", [0.5, 1.0, None])
@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (10, {0.5: (0.735, 0.670, 0.537), 1.0: (0.845, 0.800, 0.702), None: (1.000, 1.000, 0.963)}),
        (100, {0.5: (0.588, 0.519, 0.415), 1.0: (0.739, 0.684, 0.597), None: (1.000, 0.999, 0.926)}),
        (1000, {0.5: (0.503, 0.444, 0.376), 1.0: (0.670, 0.619, 0.558), None: (1.000, 0.993, 0.909)}),
    ],
)
def test_the_fixed_points_of_labo(classes, expected, rho):
    """Where the gradient of one example vanishes, its other classes even; with α = 0.1 for ρ None."""
    options = {"warmup": 0.0, **({"alpha": 0.1} if rho is None else {"rho": rho})}
    target = torch.tensor([0])
    for tau, probability in zip((1.15, 1.25, 2.0), expected[rho]):
        method = build_method("labo", context(classes), {**options, "tau": tau})

        def slope(log_odds, method=method):
            z = torch.zeros(1, classes, dtype=torch.float64)
            z[0, 0] = log_odds
            z.requires_grad_()
            method.loss(z, target, batch(target)).sum().backward()
            return z.grad[0, 0].item()

        low, high = math.log(classes - 1) - 3, 40.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        actual = 1 / (1 + (classes - 1) * math.exp(-low))
        assert actual == pytest.approx(probability, abs=0.0006)


@every_case
def test_distillation(logits, target):
    classes = logits.size(-1)
    teacher = tiny(classes).double()
    images = batch(target)._replace(images=batch(target).images.double())
    method = build_method("kd", context(classes, teacher=teacher), {"alpha": 0.3, "temperature": 4.0})
    assert not method.teacher.training
    taught = teacher(images.images).detach().float().double()  # the teacher's logits are float32

    def literal(z):
        smooth = (taught / 4).log_softmax(-1)
        return 0.7 * cross_entropy(z, target) + 0.3 * 16 * divergence(smooth, (z / 4).log_softmax(-1))

    for mine, expected in zip(
        *(gradient_and_value(f, logits) for f in (lambda z: method.loss(z, target, images), literal))
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)
    assert not list(method.parameters())
    assert not method.state_dict()
    with pytest.raises(UserError, match=r"criterion\.teacher_path must name"):
        build_method("kd", context(classes), {})


def gradient_and_value(function, logits):
    z = logits.detach().clone().requires_grad_()
    value = function(z)
    value.sum().backward()
    return value.detach(), z.grad


@every_case
def test_class_wise_self_distillation(logits, target):
    partner = logits.flip(0).clone()
    method = build_method("cs_kd", context(logits.size(-1)), {"weight": 0.7, "temperature": 3.0})

    def literal(z):
        distance = divergence((partner / 3).log_softmax(-1), (z / 3).log_softmax(-1))
        return cross_entropy(z, target) + 0.7 * 9 * distance

    agree(lambda z: method.paired_loss(z, partner, target), literal, logits)


def test_the_partner_passes_in_training_mode_and_without_gradient():
    target = torch.randint(5, (N,), generator=generator_at(0))
    model, method = tiny(5), build_method("cs_kd", context(5), {})
    partner = torch.randn(N, 3, 2, 2, generator=generator_at("partner"), requires_grad=True)
    loss, logits = method(model, batch(target, partner=partner))
    assert int(model[2].num_batches_tracked) == 2
    loss.backward()
    assert partner.grad is None
    assert logits.shape == (N, 5)
    with pytest.raises(ValueError, match="no partner"):
        method(model, batch(target))


@every_case
def test_teacher_free_regularization_in_both_forms(logits, target):
    classes = logits.size(-1)
    design = torch.full((classes, classes), 0.01 / (classes - 1), dtype=torch.float64).fill_diagonal_(0.99)[target]
    coded = build_method("tf_reg", context(classes), {"alpha": 0.3, "temperature": 20.0, "weight": 0.2})
    published = build_method("tf_reg", context(classes), {"form": "published", "alpha": 0.3, "temperature": 20.0})

    def as_coded(z):
        distance = divergence((design / 20).log_softmax(-1), z.log_softmax(-1))
        return 0.7 * cross_entropy(z, target) + 0.2 * distance

    def as_published(z):
        distance = divergence((design.log() / 20).log_softmax(-1), (z / 20).log_softmax(-1))
        return 0.7 * cross_entropy(z, target) + 0.3 * distance

    for method, literal in ((coded, as_coded), (published, as_published)):
        results = [gradient_and_value(f, logits) for f in (lambda z: method.loss(z, target, None), literal)]  # noqa: B023
        for mine, expected in zip(*results):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)  # the label is float32


@pytest.mark.parametrize(
    ("alpha", "temperature", "weight", "factor", "epsilon"),
    [(0.1, 20.0, 0.1, 1.00, 0.10), (0.95, 40.0, 0.0095, 0.0595, 0.16)],
)
def test_teacher_free_regularization_as_coded_is_label_smoothing(alpha, temperature, weight, factor, epsilon):
    """The authors' settings for ResNet18 and MobileNetV2 on CIFAR-100."""
    logits, target = CASES[-1]
    options = {"alpha": alpha, "temperature": temperature, "weight": weight}
    method = build_method("tf_reg", context(100), options)
    share = weight / (1 - alpha + weight)  # of the virtual teacher, which is all but even
    excess = math.exp(0.99 / temperature) / (math.exp(0.99 / temperature) + 99 * math.exp(0.01 / 99 / temperature))
    smoothing = build_method("ls", context(100), {"epsilon": share * (1 - excess) * 100 / 99})
    _, mine = gradient_and_value(lambda z: method.loss(z, target, None), logits)
    _, theirs = gradient_and_value(lambda z: smoothing.loss(z, target, None), logits)
    torch.testing.assert_close(mine, (1 - alpha + weight) * theirs, rtol=1e-4, atol=1e-7)
    assert 1 - alpha + weight == pytest.approx(factor, abs=0.005)
    assert smoothing.epsilon == pytest.approx(epsilon, abs=0.005)


@every_case
def test_beta_smoothing(logits, target):
    classes = logits.size(-1)
    method = build_method("beta_ls", context(classes), {"alpha": 0.6, "beta": 3.0})
    average = logits.flip(1).clone()
    masses = []
    # the largest draw for the image whose truth is the most probable
    ranks = average.softmax(-1)[range(N), target].argsort().argsort()
    draws = torch.rand(N, generator=generator_at("draws")).double().pow(1 / 3).sort().values
    masses = draws[ranks]

    def literal(z):
        label = ((1 - masses) / (classes - 1))[:, None].repeat(1, classes)
        label[range(N), target] = masses
        return 0.4 * cross_entropy(z, target) + 0.6 * with_label(z, label)

    results = [
        gradient_and_value(f, logits) for f in (lambda z: method.ranked_loss(z, average, batch(target)), literal)
    ]
    for mine, expected in zip(*results):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)  # the draws are float32


def test_the_draws_of_beta_smoothing_are_of_beta():
    """Beta(β, 1) has mean β/(β+1) and variance β/((β+1)²(β+2))."""
    target = torch.zeros(20_000, dtype=torch.long)
    method = build_method("beta_ls", context(2), {"alpha": 1.0, "beta": 3.0})
    # with these logits the loss is 1 − b: CE of the truth is 0, of the other class 1e9
    logits = torch.tensor([[0.0, -1.0]]).repeat(len(target), 1)
    offset = -logits.log_softmax(-1)[0, 0]
    masses = 1 - (method.ranked_loss(logits, logits, batch(target)) - offset)
    assert float(masses.mean()) == pytest.approx(3 / 4, abs=0.005)
    assert float(masses.var()) == pytest.approx(3 / (16 * 5), abs=0.002)


def test_the_moving_average_of_beta_smoothing():
    torch.manual_seed(0)
    model = tiny(5)
    method = build_method("beta_ls", context(5), {"decay": 0.9})
    start = [weight.clone() for weight in method.average.parameters()]
    assert not torch.equal(start[0], next(model.parameters()))  # its own random start
    assert not any(weight.requires_grad for weight in method.parameters())
    expected = start
    for update in range(1, 15):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator_at(update)))
        method.after_update(model, update)
        decay = min(1 - 1 / (update + 1), 0.9)
        expected = [decay * mean + (1 - decay) * weight for mean, weight in zip(expected, model.parameters())]
    for mine, literal in zip(method.average.parameters(), expected):
        torch.testing.assert_close(mine, literal)
    before = int(method.average[2].num_batches_tracked)
    method(model, batch(torch.arange(5).repeat(2)))
    assert int(method.average[2].num_batches_tracked) == before + 1  # in training mode


def with_random_table(name, classes, options):
    """A method whose table of all other classes is 0 at first, and then what a training might make of it."""
    method = build_method(name, context(classes), options).double()
    assert torch.equal(method.table, torch.zeros(classes, classes - 1, dtype=torch.float64))
    with torch.no_grad():
        method.table.copy_(torch.randn(method.table.shape, generator=generator_at("table"), dtype=torch.float64))
    return method


@every_case
def test_knowledge_refined_smoothing(logits, target):
    method = with_random_table("kr_ls", logits.size(-1), {"alpha": 0.5})
    z, table = logits.clone().requires_grad_(), method.table.detach().clone().requires_grad_()
    network = refined = 0
    for row, k in zip(z, target.tolist()):
        p = torch.cat([row[:k], row[k + 1 :]]).log_softmax(0)
        q = table[k].log_softmax(0)
        network = network - row.log_softmax(0)[k] + 0.5 * divergence(p, q.detach())
        refined = refined + 0.5 * divergence(q, p.detach())
    (network + refined).backward()
    mine = logits.clone().requires_grad_()
    loss = method.loss(mine, target, None)
    loss.sum().backward()
    torch.testing.assert_close(loss.sum().detach(), (network + refined).detach())
    torch.testing.assert_close(mine.grad, z.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(method.table.grad, table.grad, rtol=1e-9, atol=1e-9)
    assert method.parameter_group() == {"params": [method.table], "momentum": 0.0, "weight_decay": 0.0}


@every_case
def test_label_smoothing_plus_plus(logits, target):
    method = with_random_table("lspp", logits.size(-1), {"alpha": 0.2})
    z, table = logits.clone().requires_grad_(), method.table.detach().clone().requires_grad_()
    network = learned = 0
    for row, k in zip(z, target.tolist()):
        wrong = 0.2 * table[k].softmax(0)
        label = torch.cat([wrong[:k], torch.tensor([0.8], dtype=torch.float64), wrong[k:]])
        network = network - (label.detach() * row.log_softmax(0)).sum() / 2
        learned = learned - (row.detach().softmax(0) * (label + 1e-6).log()).sum() / 2
    (network + learned).backward()
    mine = logits.clone().requires_grad_()
    loss = method.loss(mine, target, None)
    loss.sum().backward()
    torch.testing.assert_close(loss.sum().detach(), (network + learned).detach())
    torch.testing.assert_close(mine.grad, z.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(method.table.grad, table.grad, rtol=1e-9, atol=1e-9)
    assert method.parameter_group() == {"params": [method.table], "weight_decay": 0.0}


@every_case
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_zipfs_smoothing(logits, target, power):
    method = build_method("zipf", context(logits.size(-1)), {"weight": 0.3, "power": power})

    def literal(z):
        terms = []
        for row, k in zip(z, target.tolist()):
            wrong = [j for j in range(len(row)) if j != k]
            ranks = [1 + int((row.detach() > row.detach()[j]).sum()) for j in wrong]
            q = torch.tensor([rank**-power for rank in ranks], dtype=torch.float64)
            q = q / q.sum()
            terms.append((q * (q.log() - row[wrong].log_softmax(0))).sum())
        return cross_entropy(z, target) + 0.3 * torch.stack(terms)

    agree(lambda z: method.loss(z, target, None), literal, logits)


@every_case
def test_max_suppression(logits, target):
    method = build_method("maxsup", context(logits.size(-1)), {})
    for update, weight in ((0, 0.1), (99, 0.2), (33, 0.1 + 0.1 / 3)):
        step = batch(target, update=update)
        agree(
            lambda z: method.loss(z, target, step),  # noqa: B023
            lambda z: cross_entropy(z, target) + weight * (z.amax(-1) - z.mean(-1)),  # noqa: B023
            logits,
        )


def test_online_smoothing_takes_the_labels_of_the_last_epoch():
    classes = 4
    method = build_method("ols", context(classes), {}).double()
    table = torch.full((classes, classes), 0.25, dtype=torch.float64)
    for epoch in range(3):
        seen = []
        for step in range(3):
            logits = 2 * torch.randn(N, classes, generator=generator_at(epoch, step), dtype=torch.float64)
            target = torch.randint(classes - 1, (N,), generator=generator_at(epoch, step, "t"))
            agree_table = table.clone()
            z = logits.clone().requires_grad_()
            loss = method.loss(z, target, None)
            expected = 0.5 * cross_entropy(logits, target) + 0.5 * with_label(logits, agree_table[target])
            torch.testing.assert_close(loss.detach(), expected)
            seen += [(k, p) for k, p in zip(target.tolist(), logits.softmax(-1)) if int(p.argmax()) == k]
        for k in range(classes):
            right = [p for label, p in seen if label == k]
            if right:
                table[k] = torch.stack(right).mean(0)
        method.end_epoch()
        torch.testing.assert_close(method.labels, table)
    assert torch.equal(method.labels[3], torch.full((4,), 0.25, dtype=torch.float64))  # a class without images


def test_progressive_self_distillation_remembers_every_image():
    classes = 6
    method = build_method("ps_kd", context(classes), {"alpha": 0.8}).double()
    memory = {}
    for epoch in range(4):
        order = torch.randperm(40, generator=generator_at(epoch))
        for indices in order.split(10):
            logits = 3 * torch.randn(10, classes, generator=generator_at(epoch, int(indices[0])), dtype=torch.float64)
            target = indices % classes
            step = batch(target, epoch=epoch, indices=indices)
            mass = 0.8 * (epoch + 1) / 10 if epoch else 0.0
            label = torch.stack(
                [
                    (1 - mass) * F.one_hot(k, classes).double() + mass * memory.get(i, torch.zeros(classes))
                    for i, k in zip(indices.tolist(), target)
                ]
            )
            mine = gradient_and_value(lambda z: method.loss(z, target, step), logits)  # noqa: B023

            theirs = gradient_and_value(lambda z: with_label(z, label), logits)  # noqa: B023
            for got, expected in zip(mine, theirs):
                torch.testing.assert_close(got, expected)
            method.predictions[indices] = logits.softmax(-1)
            memory.update(zip(indices.tolist(), logits.softmax(-1)))


@pytest.mark.parametrize("name", [name for name in method_names() if find_method(name).mixable])
@every_case
def test_the_loss_of_mixed_images_is_that_of_the_mixed_label(name, logits, target):
    """For LABO: the general objective with a soft label, written out."""
    classes = logits.size(-1)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    options = {"warmup": 0.0} if name == "labo" else {}
    method = build_method(name, context(classes, teacher=teacher), options)
    other, share = target.roll(1), torch.linspace(0, 1, N, dtype=torch.float64)
    step = batch(target, other=other, share=share)
    label = (
        share[:, None] * F.one_hot(target, classes).double() + (1 - share)[:, None] * F.one_hot(other, classes).double()
    )
    z = logits.float()
    model = type("Fixed", (nn.Module,), {"forward": lambda self, images: z})()
    loss, _ = method(model, step)
    every = torch.stack([method.loss(z, torch.full((N,), k), step) for k in range(classes)], dim=1).double()
    torch.testing.assert_close(loss.double(), (label * every).sum(1).mean(), rtol=1e-5, atol=1e-5)
    if name == "labo":
        log_p = logits.float().double().log_softmax(-1)
        p_star = (logits.float().double() / 1.25).softmax(-1)
        alpha = reference.adaptive_alpha(logits.float(), 0.5)
        smoothed = (1 - alpha)[:, None] * label + alpha[:, None] * p_star
        literal = -(smoothed * log_p).sum(1) + alpha * 1.25 * reference.divergence(p_star, -math.log(classes))
        torch.testing.assert_close(loss.double(), literal.mean(), rtol=1e-5, atol=1e-5)


def test_methods_that_are_not_linear_in_the_label_are_not_mixed():
    mixable = {name for name in method_names() if find_method(name).mixable}
    assert mixable == {"ce", "ls", "cp", "labo", "kd", "tf_reg", "maxsup"}


def test_methods_are_found_by_themselves_with_their_options():
    expected = {"ce", "ls", "kd", "cs_kd", "tf_reg", "beta_ls", "kr_ls", "labo", "cp", "fl", "maxsup", "ols", "ps_kd"}
    assert set(method_names()) == {*expected, "lspp", "zipf"}
    assert method_defaults("labo") == {"tau": 1.25, "alpha": "adaptive", "rho": 0.5, "warmup": 0.05, "epsilon": 0.1}
    assert method_defaults("ce") == {}
    with pytest.raises(UserError, match="no method 'lab' for images: choose from"):
        find_method("lab")
    with pytest.raises(UserError, match=r"ls has no option criterion\.tau: it has epsilon"):
        build_method("ls", context(3), {"tau": 1.0})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *(("ls", "epsilon", value) for value in (-0.1, 1.1, math.nan, "x", True)),
        *(("labo", "tau", 0), ("labo", "alpha", 2), ("labo", "alpha", "x"), ("labo", "rho", 0.4)),
        *(("labo", "warmup", 1.5), ("cp", "beta", -1), ("fl", "gamma", math.inf), ("cs_kd", "temperature", 0)),
        *(("tf_reg", "form", "x"), ("tf_reg", "weight", -1), ("beta_ls", "beta", 0), ("kr_ls", "alpha", -1)),
        *(("maxsup", "first", -1), ("ols", "alpha", 2), ("ps_kd", "alpha", 2), ("beta_ls", "decay", 2)),
        *(("lspp", "alpha", 2), ("zipf", "weight", -1), ("zipf", "power", "x")),
    ],
)
def test_an_option_out_of_range_is_named(name, option, value):
    with pytest.raises(UserError, match=rf"criterion\.{option}") as caught:
        build_method(name, context(3), {option: value})
    assert "\n" not in str(caught.value)
