"""--rdrop-alpha of every criterion: in this process against the equation, and in the real fairseq-train."""

import math

import pytest
import reference
import torch
from fairseq.logging import metrics
from fairseq_models import configuration, gradients, model_of
from fairseq_runs import (
    CONVOLUTIONAL,
    LABO,
    LSTM,
    TRANSFORMER,
    assert_same_parameters,
    parameters,
    run,
    train,
    train_command,
    two_workers,
)

from labo_fairseq.criterions.base import quantities
from labo_fairseq.criterions.confidence_penalty import ConfidencePenaltyConfig, ConfidencePenaltyCriterion
from labo_fairseq.criterions.distillation import KnowledgeDistillationConfig, KnowledgeDistillationCriterion
from labo_fairseq.criterions.focal import (
    AntiFocalLossConfig,
    AntiFocalLossCriterion,
    FocalLossConfig,
    FocalLossCriterion,
)
from labo_fairseq.criterions.labo import LaboConfig, LaboLabelSmoothedCrossEntropyCriterion
from labo_fairseq.criterions.passes import two_passes
from labo_fairseq.criterions.rdrop import RDropConfig, RDropCriterion

ALPHA = 5.0
CRITERIONS = {
    "labo": (LaboLabelSmoothedCrossEntropyCriterion, LaboConfig, {"smoothing_warmup_steps": 0}),
    "labo, fused": (
        *(LaboLabelSmoothedCrossEntropyCriterion, LaboConfig),
        {"smoothing_warmup_steps": 0, "fused_projection": True},
    ),
    "labo, in its warm-up": (LaboLabelSmoothedCrossEntropyCriterion, LaboConfig, {}),
    "rdrop": (RDropCriterion, RDropConfig, {}),
    "rdrop, fused": (RDropCriterion, RDropConfig, {"fused_projection": True}),
    "rdrop, cross-entropy": (RDropCriterion, RDropConfig, {"label_smoothing": 0.0}),
    "cp": (ConfidencePenaltyCriterion, ConfidencePenaltyConfig, {}),
    "fl": (FocalLossCriterion, FocalLossConfig, {}),
    "afl": (AntiFocalLossCriterion, AntiFocalLossConfig, {}),
    "kd": (KnowledgeDistillationCriterion, KnowledgeDistillationConfig, {}),
}
every_criterion = pytest.mark.parametrize("name", CRITERIONS)


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    smoothing = ("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1", "--lr", "0.01")
    train(data, folder, *smoothing, updates=3)
    return str(folder / "checkpoint_last.pt")


@pytest.fixture(scope="module")
def config(data):
    return configuration(data, *TRANSFORMER, "--dropout", "0.3")


@pytest.fixture
def model(task, config):
    """In training mode: with dropout."""
    return model_of(task, config)


@pytest.fixture
def build(task, teacher):
    def built(name, **chosen):
        criterion, config, options = CRITERIONS[name]
        if name == "kd":
            chosen["teacher_path"] = teacher
        made = criterion(config(**{"sentence_avg": False, "rdrop_alpha": ALPHA, **options, **chosen}), task)
        made.updates.num_updates = 0
        return made

    return built


def with_same_dropout(action):
    torch.manual_seed(7)
    return action()


@every_criterion
@pytest.mark.parametrize("prefix", [0, 2])
def test_loss_log_and_gradient_are_those_of_two_passes_and_their_divergence(build, task, model, batch, name, prefix):
    criterion = build(name, ignore_prefix_size=prefix, report_accuracy=True)
    plain = build(name, ignore_prefix_size=prefix, report_accuracy=True, rdrop_alpha=0.0)
    loss, size, log = with_same_dropout(lambda: criterion(model, batch))
    grads = gradients(model, loss)
    twice = two_passes(batch)
    doubled, _, doubled_log = with_same_dropout(lambda: plain(model, twice))
    kept = batch["target"][:, prefix:].ne(task.target_dictionary.pad())
    logits = with_same_dropout(lambda: model(**twice["net_input"]))[0][:, prefix:]
    one, other = (half[kept] for half in logits.chunk(2))
    divergence = reference.rdrop(one, other).sum()
    assert divergence > 0.01
    expected = doubled / 2 + ALPHA / 2 * divergence
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, theirs in zip(grads, gradients(model, expected)):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    assert log["rdrop_kl_loss"].item() == pytest.approx(divergence.item(), rel=1e-4)
    assert size == batch["ntokens"]
    assert log["counted_ntokens"] == log["total"] == kept.sum()
    assert log["n_correct"] == one.argmax(-1).eq(batch["target"][:, prefix:][kept]).sum()
    assert log["nsentences"] == 8
    for quantity in {"nll_loss", *criterion.watched} & doubled_log.keys():
        assert log[quantity].item() == pytest.approx(doubled_log[quantity].item() / 2, rel=1e-4), quantity
    with metrics.aggregate(new_root=True) as logged:
        criterion.reduce_metrics([log, log])
    in_bits = divergence.item() / kept.sum().item() / math.log(2)
    assert logged.get_smoothed_values()["rdrop_kl_loss"] == pytest.approx(in_bits, abs=1e-3)


@every_criterion
def test_validation_is_that_of_the_criterion_without_it(build, model, batch, name):
    expected = build(name, rdrop_alpha=0.0).eval()(model.eval(), batch)
    mine = build(name).eval()(model, batch)
    assert torch.equal(mine[0], expected[0])
    assert mine[1] == expected[1]
    assert mine[2] == expected[2]


@every_criterion
def test_the_loss_of_every_token_adds_up(build, model, batch, name):
    criterion = build(name)
    whole, _, _ = with_same_dropout(lambda: criterion(model, batch))
    tokens, _, _ = with_same_dropout(lambda: criterion(model, batch, reduce=False))
    assert tokens.shape == (batch["target"].numel(), 1)
    torch.testing.assert_close(tokens.sum(), whole)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_it_is_half_of_fairseqs_criterion(build, task, model, batch, epsilon):
    """Which adds up the losses of the two passes, as the paper does."""
    theirs = pytest.importorskip("fairseq.criterions.label_smoothed_cross_entropy_with_rdrop")
    fairseqs = theirs.RdropLabelSmoothedCrossEntropyCriterion(task, False, epsilon, rdrop_alpha=ALPHA)
    loss, size, log = with_same_dropout(lambda: build("rdrop", label_smoothing=epsilon)(model, batch))
    grads = gradients(model, loss)
    expected, expected_size, expected_log = with_same_dropout(  # it doubles the batch that it is given
        lambda: fairseqs(model, {**batch, "net_input": dict(batch["net_input"])})
    )
    assert size == expected_size
    assert 2 * loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert log["rdrop_kl_loss"].item() == pytest.approx(expected_log["rdrop_kl_loss"], rel=1e-4)
    for mine, other in zip(grads, gradients(model, expected)):
        torch.testing.assert_close(2 * mine, other, rtol=1e-3, atol=1e-4)


def test_the_teacher_is_asked_once(build, model, batch):
    criterion, asked = build("kd"), []
    criterion.teacher._models[0].register_forward_hook(lambda *_: asked.append(1))
    criterion(model, batch)
    assert asked == [1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["labo", "labo, fused", "labo, in its warm-up"])
def test_other_dtypes(build, model, batch, name, dtype):
    expected, _, _ = build(name)(model.eval(), batch)
    loss, _, _ = build(name)(model.to(dtype), batch)
    assert loss.item() == pytest.approx(expected.item(), rel=2e-2)
    assert all(grad.dtype == dtype and grad.isfinite().all() for grad in gradients(model, loss))


@pytest.mark.parametrize(("value", "shown"), [(-1.0, "-1.0"), (math.inf, "inf"), (math.nan, "nan")])
def test_a_weight_out_of_range(build, value, shown):
    with pytest.raises(SystemExit) as error:
        build("labo", rdrop_alpha=value)
    assert str(error.value) == f"labo: --rdrop-alpha must be a finite number ≥ 0, got {shown}"


def test_what_belongs_to_sentences_is_doubled_and_the_rest_is_kept():
    source, target = torch.arange(6).view(3, 2), torch.arange(3)[:, None]
    net_input = {
        **{"src_tokens": source, "lengths": (source[:, 0], None), "names": ["a", "b", "c"], "speaker": None},
        **{"more": {"features": [source, source]}, "scale": torch.tensor(2.0), "language": 4, "fast": True},
    }
    sample = {"net_input": net_input, "target": target, "ntokens": 3}
    twice = two_passes(sample)
    assert twice["ntokens"] == 3
    assert torch.equal(twice["target"], target.repeat(2, 1))
    mine = twice["net_input"]
    assert torch.equal(mine["src_tokens"], source.repeat(2, 1))
    assert torch.equal(mine["lengths"][0], source[:, 0].repeat(2))
    assert mine["lengths"][1] is None
    assert mine["names"] == ["a", "b", "c", "a", "b", "c"]
    assert all(torch.equal(part, source.repeat(2, 1)) for part in mine["more"]["features"])
    assert [mine[name] for name in ("speaker", "scale", "language", "fast")] == [None, 2.0, 4, True]
    assert len(sample["target"]) == len(net_input["src_tokens"]) == 3, "the batch that was given is left as it is"


def test_what_cannot_be_doubled_is_named_in_one_line(build, model, batch):
    time_first = {**batch["net_input"], "src_lengths": batch["net_input"]["src_tokens"].t()}
    with pytest.raises(SystemExit) as error:
        build("labo")(model, {**batch, "net_input": time_first})
    shape = tuple(time_first["src_lengths"].shape)
    assert str(error.value) == (
        f"labo: --rdrop-alpha needs every batch twice, and src_lengths of shape {shape} does not begin with the "
        "dimension of its 8 sentences: leave the option out for this task"
    )


def test_the_criterion_rdrop_has_no_warmup(build):
    with pytest.raises(SystemExit, match="rdrop: --smoothing-warmup-steps must be 0, for this criterion is label smoo"):
        build("rdrop", smoothing_warmup_steps=9)


def test_a_task_that_calls_the_model_itself_is_refused_in_one_line(build, model, batch):
    with pytest.raises(SystemExit, match="--rdrop-alpha needs every batch twice, and this task calls the model by"):
        build("labo").compute_loss(model, model(**batch["net_input"]), batch)


def test_reports_know_what_it_logs():
    assert "rdrop_kl_loss" in quantities({"_name": "focal_loss", "rdrop_alpha": 5.0})
    assert "rdrop_kl_loss" not in quantities({"_name": "focal_loss", "rdrop_alpha": 0.0})
    assert "rdrop_kl_loss" not in quantities({"_name": "label_smoothed_cross_entropy"})


RDROP = ("--rdrop-alpha", "5")


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, train(data, folder, *LABO, *RDROP)


def test_it_is_logged_in_the_warmup_and_past_it(uninterrupted):
    _, records = uninterrupted
    assert all(record["rdrop_kl_loss"] > 0 for record in records.values())
    assert [update for update, record in records.items() if "alpha" in record] == [7, 8, 9, 10]


def test_an_interrupted_training_resumes_exactly(data, tmp_path, uninterrupted):
    """In the warm-up and past it."""
    folder, expected = uninterrupted
    records = {}
    for updates in (4, 8, 10):
        records.update(train(data, tmp_path, *LABO, *RDROP, updates=updates))
    assert [record["loss"] for record in records.values()] == [record["loss"] for record in expected.values()]
    assert_same_parameters(parameters(tmp_path), parameters(folder))


STILL = (*LABO, *RDROP, "--dropout", "0", "--optimizer", "sgd", "--lr", "0.5")


@pytest.mark.parametrize("fused", [(), ("--fused-projection",)], ids=["whole", "fused"])
def test_without_dropout_it_is_the_training_without_it(data, tmp_path, fused):
    """With several micro-batches an update: sizes are those of one pass."""
    options = (*STILL, "--update-freq", "2", "--report-accuracy")
    mine = train(data, tmp_path / "mine", *options, *fused, updates=8)
    expected = train(data, tmp_path / "plain", *options, "--rdrop-alpha", "0", updates=8)
    for update, record in expected.items():
        assert mine[update].pop("rdrop_kl_loss") == 0
        assert mine[update].keys() == record.keys()
        for name in {"loss", "nll_loss", "alpha", "entropy", "accuracy", "wpb", "total"} & record.keys():
            assert mine[update][name] == pytest.approx(record[name], abs=2e-3), (update, name)
    assert_same_parameters(parameters(tmp_path / "mine"), parameters(tmp_path / "plain"), rtol=1e-4, atol=1e-5)


def test_two_workers(data, tmp_path):
    train(data, tmp_path / "one", *STILL, "--update-freq", "2", updates=8)
    two_workers(train_command(data, tmp_path / "two", *STILL, updates=8))
    assert_same_parameters(parameters(tmp_path / "two"), parameters(tmp_path / "one"), rtol=1e-4, atol=1e-5)


def test_a_model_of_another_kind(data, tmp_path):
    records = train(data, tmp_path, "--criterion", "rdrop", model=CONVOLUTIONAL, updates=2)
    assert all(record["rdrop_kl_loss"] > 0 for record in records.values())


def test_a_model_that_wants_its_sentences_sorted_is_refused_in_one_line(data, tmp_path):
    done = run(*train_command(data, tmp_path, "--criterion", "rdrop", model=LSTM, updates=1))
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("rdrop: --rdrop-alpha needs every batch twice, and the LSTM in the")


def test_a_wrong_weight_ends_a_training_in_one_line(data, tmp_path):
    done = run(*train_command(data, tmp_path, "--criterion", "focal_loss", "--rdrop-alpha", "-2", updates=1))
    assert done.returncode != 0
    last = done.stdout.splitlines()[-1]
    assert last == "focal_loss: --rdrop-alpha must be a finite number ≥ 0, got -2.0"
    assert "Traceback" not in done.stdout
