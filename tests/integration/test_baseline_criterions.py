"""The baselines' criterions in this process and in the real fairseq-train: masking, warm-up, teachers, checkpoints."""

import math
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from fairseq import checkpoint_utils
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from fairseq_models import configuration, gradients, model_of, task_of
from fairseq_runs import (
    LSTM,
    TRANSFORMER,
    assert_same_parameters,
    command,
    parameters,
    run,
    train,
    train_command,
)

from labo_fairseq.criterions.confidence_penalty import ConfidencePenaltyConfig, ConfidencePenaltyCriterion
from labo_fairseq.criterions.distillation import KnowledgeDistillationConfig, KnowledgeDistillationCriterion
from labo_fairseq.criterions.focal import (
    AntiFocalLossConfig,
    AntiFocalLossCriterion,
    FocalLossConfig,
    FocalLossCriterion,
)
from labo_fairseq.data.preprocess import Recipe, prepare
from labo_fairseq.files import configs
from labo_fairseq.losses import anti_focal_terms, confidence_penalty_terms, distillation_terms, focal_terms
from labo_fairseq.subprocesses import USER_DIR

TEACHER = (
    *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1", "--lr", "0.01"),
    *("--source-lang", "de", "--target-lang", "en"),
)
#: the class, its options, one that is none of the defaults, and the loss with that one
CRITERIONS = {
    "confidence_penalty": (
        *(ConfidencePenaltyCriterion, ConfidencePenaltyConfig, {"beta": 0.4}),
        lambda z, target, teacher: confidence_penalty_terms(z, target, 0.4),
    ),
    "focal_loss": (
        *(FocalLossCriterion, FocalLossConfig, {"gamma": 1.5}),
        lambda z, target, teacher: focal_terms(z, target, 1.5),
    ),
    "anti_focal_loss": (
        *(AntiFocalLossCriterion, AntiFocalLossConfig, {"alpha": 1.0, "gamma": 2.0}),
        lambda z, target, teacher: anti_focal_terms(z, target, 1.0, 2.0),
    ),
    "knowledge_distillation": (
        *(KnowledgeDistillationCriterion, KnowledgeDistillationConfig, {"alpha": 0.3}),
        lambda z, target, teacher: distillation_terms(z, target, teacher, 0.3),
    ),
}
every_criterion = pytest.mark.parametrize("name", CRITERIONS)


@pytest.fixture(scope="module")
def teachers(data, tmp_path_factory):
    """Checkpoints of a Transformer and of an LSTM."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, model in (("transformer", TRANSFORMER), ("lstm", LSTM)):
        train(data, folder / name, *TEACHER, updates=3, model=model)
    return [str(folder / name / "checkpoint_last.pt") for name in ("transformer", "lstm")]


@pytest.fixture(scope="module")
def config(data):
    return configuration(data, *TRANSFORMER)


@pytest.fixture
def model(task, config):
    """In evaluation mode: no dropout."""
    return model_of(task, config).eval()


@pytest.fixture
def build(task, teachers):
    """The criterion of a name, with its options; a student has both teachers unless it is told otherwise."""

    def built(name, **chosen):
        criterion, config, _, _ = CRITERIONS[name]
        if name == "knowledge_distillation":
            chosen = {"teacher_path": ":".join(teachers), **chosen}
        return criterion(config(sentence_avg=False, **chosen), task)

    return built


def teacher_probabilities(task, teachers, batch):
    """Their mean, the models loaded and asked one by one."""
    distributions = []
    for path in teachers:
        (model,), _ = checkpoint_utils.load_model_ensemble([path], task=task)
        with torch.no_grad():
            distributions.append(model.eval()(**batch["net_input"])[0].double().softmax(-1))
    return sum(distributions) / len(distributions)


@every_criterion
@pytest.mark.parametrize("prefix", [0, 2])
def test_the_loss_is_the_sum_over_the_tokens_that_one_would_pick_by_hand(
    build, task, model, batch, teachers, name, prefix
):
    _, _, chosen, terms_of = CRITERIONS[name]
    criterion = build(name, ignore_prefix_size=prefix, report_accuracy=True, **chosen)
    loss, size, log = criterion(model, batch)
    assert size == batch["ntokens"]
    kept = batch["target"].ne(task.target_dictionary.pad())
    assert not kept.all()
    kept[:, :prefix] = False
    with torch.no_grad():
        z, target = model(**batch["net_input"])[0][kept].double(), batch["target"][kept]
    terms = terms_of(z, target, teacher_probabilities(task, teachers, batch)[kept])
    for mine, expected in ((loss, terms.loss), (log["nll_loss"], terms.nll), (log["entropy"], terms.entropy)):
        assert mine.item() == pytest.approx(expected.sum().item(), rel=1e-5)
    correct = z.argmax(-1).eq(target).sum()
    assert (log["counted_ntokens"], log["total"], log["n_correct"]) == (len(target), len(target), correct)
    with metrics.aggregate(new_root=True) as logged:
        criterion.reduce_metrics([log, log])
    bits = terms.entropy.mean().item() / math.log(2)
    assert logged.get_smoothed_values()["entropy"] == pytest.approx(bits, abs=1e-3)


@every_criterion
def test_gradients_of_micro_batches_add_up(build, task, model, name):
    criterion, dataset = build(name), task.dataset("valid")

    def gradients_of(sentences):
        batch = dataset.collater([dataset[number] for number in sentences])
        return gradients(model, criterion(model, batch)[0])

    for one, first, second in zip(gradients_of(range(8)), gradients_of(range(3)), gradients_of(range(3, 8))):
        torch.testing.assert_close(one, first + second, rtol=1e-4, atol=1e-4)


@every_criterion
def test_the_warmup_is_fairseqs_label_smoothing(build, task, model, batch, name):
    criterion = build(name, label_smoothing=0.2, smoothing_warmup_steps=10)
    criterion.updates.num_updates = 9
    loss, _, log = criterion(model, batch)
    expected, _, expected_log = LabelSmoothedCrossEntropyCriterion(task, False, 0.2)(model, batch)
    assert torch.equal(loss, expected)
    assert log.keys() == {*expected_log, "counted_ntokens"}
    criterion.updates.num_updates = 10
    assert not torch.equal(criterion(model, batch)[0], expected)


@every_criterion
def test_without_options_there_is_no_warmup(build, name):
    criterion = build(name)
    criterion.updates.num_updates = 0
    assert not criterion.warming_up


@every_criterion
def test_options_of_the_command_line_arrive(data, name):
    _, _, chosen, _ = CRITERIONS[name]
    given = {**chosen, "smoothing_warmup_steps": 7, "label_smoothing": 0.2}
    if name == "knowledge_distillation":
        given["teacher_path"] = "a.pt:b.pt"
    words = [word for option, value in given.items() for word in ("--" + option.replace("_", "-"), str(value))]
    config = configuration(data, *TRANSFORMER, "--criterion", name, *words).criterion
    assert {option: config[option] for option in given} == given


@pytest.mark.parametrize("file", ["cp", "fl", "afl", "kd"])
def test_the_configurations_name_the_defaults(file):
    written = yaml.safe_load((configs() / f"criterion/{file}.yaml").read_text(encoding="utf-8"))["criterion"]
    _, config, chosen, _ = CRITERIONS[written.pop("_name")]
    assert written.pop("report_accuracy")
    assert {option: written[option] for option in chosen} == {option: getattr(config(), option) for option in chosen}
    assert written.keys() - chosen.keys() == ({"teacher_path"} if file == "kd" else set())


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("confidence_penalty", "beta", -1.0, "--beta must be a finite number ≥ 0, got -1.0"),
        ("focal_loss", "gamma", -1.0, "--gamma must be a finite number ≥ 0, got -1.0"),
        ("anti_focal_loss", "alpha", -1.0, "--alpha must be a finite number ≥ 0, got -1.0"),
        ("anti_focal_loss", "gamma", float("nan"), "--gamma must be a finite number ≥ 0, got nan"),
        ("knowledge_distillation", "alpha", 1.5, "--alpha must be in [0, 1], got 1.5"),
        ("knowledge_distillation", "teacher_path", None, "--teacher-path is missing: it must name a checkpoint, or "),
        ("focal_loss", "smoothing_warmup_steps", -1, "--smoothing-warmup-steps must be ≥ 0, got -1"),
        ("focal_loss", "label_smoothing", 1.0, "--label-smoothing must be in [0, 1), got 1.0"),
    ],
)
def test_options_out_of_range(build, name, option, value, message):
    assert_refused(lambda: build(name, **{option: value}), f"{name}: {message}")


def assert_refused(action, message):
    """With one line that begins so."""
    with pytest.raises(SystemExit) as error:
        action()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_teacher_that_cannot_be_loaded_is_named(build, tmp_path, teachers):
    def refused(path, message):
        build_it = partial(build, "knowledge_distillation", teacher_path=f"{teachers[0]}:{path}")
        assert_refused(build_it, f"knowledge_distillation: --teacher-path {path}: {message}")

    refused(tmp_path / "none.pt", "there is no such file")
    refused(tmp_path, "there is no such file")
    contents = {
        "text.pt": b"a text\nof two lines\n",
        "empty.pt": b"",
        "cut.pt": Path(teachers[0]).read_bytes()[:5000],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        build_it = partial(build, "knowledge_distillation", teacher_path=str(tmp_path / name))
        message = f"knowledge_distillation: --teacher-path {tmp_path / name} cannot be read as a checkpoint"
        assert_refused(build_it, message)
    for name, content in (("tensor.pt", torch.zeros(3)), ("other.pt", {"model": {}})):
        torch.save(content, tmp_path / name)
        refused(tmp_path / name, "it cannot be loaded as a checkpoint of fairseq (")


def test_a_teacher_with_another_vocabulary_is_refused(corpus, teachers, tmp_path):
    other = prepare(corpus, Recipe("600 verses", "de", "en", bpe_operations=100), tmp_path / "data")
    task = task_of(configuration(other, *TRANSFORMER))
    chosen = KnowledgeDistillationConfig(sentence_avg=False, teacher_path=teachers[0])
    message = f"knowledge_distillation: --teacher-path {teachers[0]}: it was trained with dictionaries of another size"
    assert_refused(lambda: KnowledgeDistillationCriterion(chosen, task), message)


def test_a_teacher_of_the_other_direction_is_refused(data, teachers):
    """With a joint vocabulary nothing else would tell; it is known of a teacher whose training named the languages."""
    task = task_of(configuration(data, *TRANSFORMER, "--source-lang", "en", "--target-lang", "de"))
    chosen = KnowledgeDistillationConfig(sentence_avg=False, teacher_path=teachers[0])
    message = f"knowledge_distillation: --teacher-path {teachers[0]}: its source-lang is de, not en"
    assert_refused(lambda: KnowledgeDistillationCriterion(chosen, task), message)


def test_the_teacher_is_no_part_of_the_criterion(build, model, batch):
    """fairseq would train its parameters, save them, and set it to training mode."""
    criterion = build("knowledge_distillation")
    expected = criterion(model, batch)[0]
    assert list(criterion.modules()) == [criterion]
    assert not criterion.state_dict()
    criterion.train()
    loss = criterion(model, batch)[0]
    assert torch.equal(loss, expected)
    loss.backward()
    for teacher in criterion.teacher._models:
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-6), (torch.bfloat16, 5e-2)])
def test_the_teacher_follows_the_dtype_of_the_student(build, model, batch, dtype, rtol):
    criterion = build("knowledge_distillation")
    expected = criterion(model, batch)[0].item()
    loss = criterion(model.to(dtype), batch)[0]
    assert {p.dtype for teacher in criterion.teacher._models for p in teacher.parameters()} == {dtype}
    assert loss.item() == pytest.approx(expected, rel=rtol)
    assert all(gradient.isfinite().all() for gradient in gradients(model, loss))


def test_validation_bleu_is_that_of_the_student(data, teachers):
    """fairseq's task translates with the model that was built last."""
    config = configuration(data, *TRANSFORMER, "--eval-bleu", "--eval-bleu-args", '{"beam": 1}')
    task = task_of(config)
    student = model_of(task, config)
    KnowledgeDistillationCriterion(KnowledgeDistillationConfig(sentence_avg=False, teacher_path=teachers[0]), task)
    assert task.sequence_generator.model.single_model is student


def translate(data, checkpoint):
    """fairseq-generate, which must translate all of the validation set."""
    done = run(
        *(command("fairseq-generate"), data.binarized, "--user-dir", USER_DIR, "--path", checkpoint),
        *("--beam", "2", "--max-len-b", "10", "--gen-subset", "valid", "--required-batch-size-multiple", "1"),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    lines = data.raw("valid", "en").read_text(encoding="utf-8").splitlines()
    assert len(re.findall(r"^H-\d+\t", done.stdout, re.MULTILINE)) == len(lines)


@pytest.mark.parametrize("name", ["confidence_penalty", "focal_loss", "anti_focal_loss"])
def test_training_and_translation(data, tmp_path, name):
    """The warm-up counts updates, of two micro-batches each; what is watched is logged from there on."""
    options = ("--criterion", name, "--smoothing-warmup-steps", "2", "--update-freq", "2", "--report-accuracy")
    records = train(data, tmp_path, *options, updates=4)
    assert [update for update in records if "entropy" in records[update]] == [3, 4]
    assert {"loss", "nll_loss", "ppl", "accuracy"} <= records[4].keys()
    translate(data, tmp_path / "checkpoint_last.pt")


def test_a_student_trains_resumes_and_translates_where_the_teachers_are_gone(data, tmp_path, teachers):
    mine = [tmp_path / f"teacher{number}.pt" for number in range(2)]
    for copy, path in zip(mine, teachers):
        shutil.copy(path, copy)
    options = ("--criterion", "knowledge_distillation", "--teacher-path", ":".join(map(str, mine)))
    whole = train(data, tmp_path / "whole", *options, updates=4)
    resumed = {**train(data, tmp_path / "parts", *options, updates=2)}
    resumed.update(train(data, tmp_path / "parts", *options, updates=4))
    assert [record["loss"] for record in resumed.values()] == [record["loss"] for record in whole.values()]
    assert_same_parameters(parameters(tmp_path / "parts"), parameters(tmp_path / "whole"))
    for path in mine:
        path.unlink()
    checkpoint = tmp_path / "whole" / "checkpoint_last.pt"
    state, of_teacher = (checkpoint_utils.load_checkpoint_to_cpu(str(path)) for path in (checkpoint, teachers[0]))
    assert state.keys() == of_teacher.keys()
    assert not state.get("criterion")
    assert state["model"].keys() == of_teacher["model"].keys()
    sizes = [len(checkpoint["last_optimizer_state"]["state"]) for checkpoint in (state, of_teacher)]
    assert sizes[0] == sizes[1], "the optimizer has the parameters of the student alone"
    translate(data, checkpoint)
    done = run(*train_command(data, tmp_path / "none", *options, updates=1))
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == f"knowledge_distillation: --teacher-path {mine[0]}: there is no such file"
    assert "Traceback" not in done.stdout
