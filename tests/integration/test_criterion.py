"""The criterion in this process: against fairseq's, masking, dtypes, options."""

import math

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq_models import configuration, gradients, model_of
from fairseq_runs import TRANSFORMER
from half_precision import skip_without_product

from labo_fairseq.criterions.labo import LaboConfig, LaboLabelSmoothedCrossEntropyCriterion
from labo_fairseq.losses import labo_terms


@pytest.fixture(scope="module")
def config(data):
    return configuration(data, *TRANSFORMER)


@pytest.fixture
def model(task, config):
    """In evaluation mode: no dropout."""
    return model_of(task, config).eval()


def build(task, **chosen):
    return LaboLabelSmoothedCrossEntropyCriterion(LaboConfig(**{"sentence_avg": False, **chosen}), task)


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("reduce", [True, False])
def test_warmup_is_fairseqs_criterion_to_the_last_bit(task, model, batch, prefix, reduce):
    criterion = build(task, smoothing_warmup_steps=10, ignore_prefix_size=prefix, report_accuracy=True)
    criterion.updates.num_updates = 9
    theirs = LabelSmoothedCrossEntropyCriterion(task, False, 0.1, prefix, True)
    mine_loss, mine_size, mine_log = criterion(model, batch, reduce)
    loss, size, log = theirs(model, batch, reduce)
    assert torch.equal(mine_loss, loss)
    assert mine_size == size
    assert mine_log.keys() == {*log, "counted_ntokens"}
    assert mine_log["n_correct"] == log["n_correct"]
    for mine, other in zip(gradients(model, mine_loss.sum()), gradients(model, loss.sum())):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("prefix", [0, 2])
def test_padding_and_prefix_are_masked(task, model, batch, prefix):
    """The loss is the sum over the tokens one would pick by hand; accuracy and nll are fairseq's."""
    criterion = build(task, smoothing_warmup_steps=0, ignore_prefix_size=prefix, report_accuracy=True)
    loss, _, log = criterion(model, batch)
    with torch.no_grad():
        logits = model(**batch["net_input"])[0]
    target = batch["target"]
    assert target.eq(task.target_dictionary.pad()).any()
    expected = tokens = correct = nll = 0
    for row in range(target.size(0)):
        for column in range(prefix, target.size(1)):
            if target[row, column] != task.target_dictionary.pad():
                z = logits[row, column][None].double()
                terms = labo_terms(z, target[row, column][None])
                expected, nll = expected + terms.loss.item(), nll + terms.nll.item()
                correct += int(z.argmax() == target[row, column])
                tokens += 1
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert log["nll_loss"].item() == pytest.approx(nll, rel=1e-5)
    assert (log["counted_ntokens"], log["total"], log["n_correct"]) == (tokens, tokens, correct)


def test_not_reduced_sums_to_reduced(task, model, batch):
    criterion = build(task)
    losses, _, log = criterion(model, batch, reduce=False)
    total, _, total_log = criterion(model, batch)
    assert losses.shape == (batch["target"].numel(), 1)
    assert losses.sum().item() == pytest.approx(total.item())
    assert log["nll_loss"].sum().item() == pytest.approx(total_log["nll_loss"].item())


def test_sentence_average(task, model, batch):
    assert build(task, sentence_avg=True)(model, batch)[1] == batch["target"].size(0)
    assert build(task)(model, batch)[1] == batch["ntokens"]


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)]
)
def test_every_dtype_gives_the_same_loss(task, model, batch, dtype, rtol):
    skip_without_product(dtype)
    criterion = build(task)
    expected = criterion(model.double(), batch)[0].item()
    loss, _, log = criterion(model.to(dtype), batch)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.item() == pytest.approx(expected, rel=rtol)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model, loss))
    assert all(torch.isfinite(torch.as_tensor(value)) for value in log.values())


def test_autocast(task, model, batch):
    criterion = build(task)
    expected = criterion(model, batch)[0].item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = criterion(model, batch)[0]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=5e-2)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model, loss))


def test_batch_of_padding_alone(task, model, batch):
    batch["target"].fill_(task.target_dictionary.pad())
    loss, _, log = build(task)(model, batch)
    assert loss.item() == 0
    assert log["counted_ntokens"] == 0
    assert all((gradient == 0).all() for gradient in gradients(model, loss))


def test_logging_outputs_can_be_summed(task, model, batch):
    """Summed over two workers, they give the means over all tokens."""
    from fairseq.logging import metrics

    criterion = build(task)
    assert criterion.logging_outputs_can_be_summed()
    log = criterion(model, batch)[2]
    summed = {name: 2 * value for name, value in log.items()}
    with metrics.aggregate(new_root=True) as one:
        criterion.reduce_metrics([log, log])
    with metrics.aggregate(new_root=True) as other:
        criterion.reduce_metrics([summed])
    values = one.get_smoothed_values()
    assert values == other.get_smoothed_values()
    assert values["alpha"] == pytest.approx(float(log["alpha"] / log["counted_ntokens"]), abs=1e-3)
    assert {"loss", "nll_loss", "ppl", "alpha", "entropy", "p_star"} <= values.keys()


def test_only_evaluated_means_past_the_warmup(task):
    criterion = build(task, smoothing_warmup_steps=10)
    assert not criterion.warming_up
    criterion.updates.num_updates = 9
    assert criterion.warming_up
    criterion.updates.num_updates = 10
    assert not criterion.warming_up


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("tau", 0.0, "--tau must be a finite number > 0, got 0.0"),
        ("tau", float("inf"), "--tau must be a finite number > 0, got inf"),
        ("alpha", "1.5", "--alpha must be 'adaptive' or a number in [0, 1], got 1.5"),
        ("alpha", "often", "--alpha must be 'adaptive' or a number in [0, 1], got often"),
        ("rho", 0.4, "--rho must be in [0.5, 1], got 0.4"),
        ("label_smoothing", 1.0, "--label-smoothing must be in [0, 1), got 1.0"),
        ("smoothing_warmup_steps", -1, "--smoothing-warmup-steps must be ≥ 0, got -1"),
        ("ignore_prefix_size", -1, "--ignore-prefix-size must be ≥ 0, got -1"),
    ],
)
def test_options_out_of_range(task, option, value, message):
    with pytest.raises(SystemExit) as error:
        build(task, **{option: value})
    assert str(error.value).startswith(f"labo: {message}")
    assert "\n" not in str(error.value)


def logged(criterion, *logging_outputs):
    """What is logged of the batches of a training or a validation."""
    from fairseq.logging import metrics

    with metrics.aggregate(new_root=True) as meters:
        for logging_output in logging_outputs:
            criterion.reduce_metrics([logging_output])
    return meters.get_smoothed_values()


@pytest.mark.parametrize("warmup", [0, 10])
def test_everything_logged_is_a_mean_over_the_counted_tokens(task, model, batch, warmup):
    """With an ignored prefix, too; the gradient is divided by what fairseq divides it by."""
    criterion = build(task, smoothing_warmup_steps=warmup, ignore_prefix_size=2, report_accuracy=True)
    criterion.updates.num_updates = 0
    loss, sample_size, log = criterion(model, batch)
    pad = task.target_dictionary.pad()
    counted = batch["target"][:, 2:].ne(pad)
    n = int(counted.sum())
    assert 0 < n < sample_size == batch["ntokens"]
    with torch.no_grad():
        log_p = model(**batch["net_input"])[0].double().log_softmax(-1)[:, 2:][counted]
    nll = -log_p.gather(-1, batch["target"][:, 2:][counted][:, None]).mean().item() / math.log(2)
    values = logged(criterion, log)
    assert values["loss"] == pytest.approx(loss.item() / n / math.log(2), abs=1e-3)
    assert values["nll_loss"] == pytest.approx(nll, abs=1e-3)
    assert values["ppl"] == pytest.approx(2**nll, abs=0.02 * 2**nll)
    assert values["accuracy"] == pytest.approx(100 * log["n_correct"] / n, abs=1e-3)
    if not warmup:
        entropy = -(log_p.exp() * log_p).sum(-1).mean().item() / math.log(2)
        assert values["entropy"] == pytest.approx(entropy, abs=1e-3)


def test_loss_over_sentences_stays_so(task, model, batch):
    criterion = build(task, sentence_avg=True, ignore_prefix_size=2)
    loss, sample_size, log = criterion(model, batch)
    assert sample_size == batch["target"].size(0)
    assert logged(criterion, log)["loss"] == pytest.approx(loss.item() / sample_size / math.log(2), abs=1e-3)


@pytest.mark.parametrize("warmup", [0, 100])
def test_a_prefix_as_long_as_every_sentence_ends_the_training(task, model, batch, warmup):
    criterion = build(task, smoothing_warmup_steps=warmup, ignore_prefix_size=1000)
    criterion.updates.num_updates = 0
    for _ in range(19):
        assert criterion(model, batch)[0] == 0
    with pytest.raises(SystemExit) as error:
        criterion(model, batch)
    assert str(error.value) == (
        "labo: no target token of the first 20 batches is left to learn from: --ignore-prefix-size 1000 must be less "
        "than the length of the target sentences"
    )


def test_a_few_short_sentences_do_not_end_it(task, model, batch):
    criterion = build(task, ignore_prefix_size=2)
    short = {**batch, "target": batch["target"].clone()}
    short["target"][:, 2:] = task.target_dictionary.pad()
    for _ in range(19):
        criterion(model, short)
    log = criterion(model, batch)[2]
    empty = [criterion(model, short)[2] for _ in range(40)]
    assert logged(criterion, *empty, log) == logged(criterion, log)


@pytest.mark.parametrize("warmup", [0, 100])
def test_a_set_of_which_nothing_is_left_ends_its_validation(task, model, batch, warmup):
    criterion = build(task, smoothing_warmup_steps=warmup, ignore_prefix_size=1000).eval()
    criterion.updates.num_updates = 0
    log = criterion(model, batch)[2]
    with pytest.raises(SystemExit, match="labo: no target token of this set is left to validate on"):
        logged(criterion, log)
    assert "ppl" in logged(criterion, log, build(task).eval()(model, batch)[2])
