"""--fused-projection: the same training with the logits never whole, in this process and in the real fairseq-train."""

import logging

import pytest
import torch
from fairseq.distributed import ModuleProxyWrapper
from fairseq_models import configuration, gradients, model_of
from fairseq_runs import (
    CONVOLUTIONAL,
    LABO,
    LSTM,
    TRANSFORMER,
    assert_same_parameters,
    inner,
    parameters,
    run,
    train,
    train_command,
    two_workers,
)
from half_precision import skip_without_product

from labo_fairseq.criterions.labo import LaboConfig, LaboLabelSmoothedCrossEntropyCriterion
from labo_fairseq.losses import fused_linear

UNTIED = tuple(option for option in TRANSFORMER if option != "--share-all-embeddings")
# Rounding differs between the runs, and Adam makes whole steps of the rounding errors where the gradient is 0.
PLAIN = (*LABO, "--dropout", "0", "--optimizer", "sgd", "--lr", "0.5")
FUSED = ("--fused-projection",)
REFUSAL = "--fused-projection has no effect"


def assert_same_training(one, other):
    """The same updates, logged alike; what is rounded to three digits in the log may differ in the last one."""
    assert sorted(one) == sorted(other)
    for update, record in one.items():
        assert record.keys() == other[update].keys(), update
        for name in {"loss", "nll_loss", "alpha", "entropy", "p_star", "accuracy", "wpb"} & record.keys():
            assert other[update][name] == pytest.approx(record[name], abs=2e-3), (update, name)


def train_both(data, folder, *arguments, **kwargs):
    """The training without and with the option, and the folders of the two."""
    records = [
        train(data, folder / name, *arguments, *option, **kwargs) for name, option in (("whole", ()), ("fused", FUSED))
    ]
    assert_same_training(*records)
    assert_same_parameters(parameters(folder / "fused"), parameters(folder / "whole"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [TRANSFORMER, UNTIED], ids=["tied", "untied"])
def test_training_is_the_same(data, tmp_path, model):
    """In the warm-up, past it and in the validation."""
    train_both(data, tmp_path, *PLAIN, "--report-accuracy", model=model)


def test_update_freq(data, tmp_path):
    train_both(data, tmp_path, *PLAIN, "--update-freq", "3", updates=8)


@pytest.mark.parametrize("model", [TRANSFORMER, UNTIED], ids=["tied", "untied"])
def test_two_workers(data, tmp_path, model):
    one = train(data, tmp_path / "one", *PLAIN, "--update-freq", "2", model=model, updates=8)
    arguments = train_command(data, tmp_path / "two", *PLAIN, *FUSED, model=model, updates=8)
    assert_same_training(one, two_workers(arguments))
    assert_same_parameters(parameters(tmp_path / "two"), parameters(tmp_path / "one"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [LSTM, CONVOLUTIONAL], ids=["lstm", "convolutional"])
def test_other_models_train_as_without_it_and_say_so_once(data, tmp_path, model):
    train_both(data, tmp_path, *PLAIN, model=model, updates=8)
    done = run(*train_command(data, tmp_path / "again", *PLAIN, *FUSED, model=model, updates=8))
    assert sorted(inner(done.stdout)) == list(range(1, 9))
    assert done.stdout.count(REFUSAL) == 1


@pytest.fixture(scope="module", params=[TRANSFORMER, UNTIED], ids=["tied", "untied"])
def config(data, request):
    return configuration(data, *request.param, "--dropout", "0")


@pytest.fixture
def model(task, config):
    """In training mode, which the configuration leaves without dropout."""
    return model_of(task, config)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Many chunks a batch, the last one shorter; the subprocesses above have one."""
    monkeypatch.setattr(fused_linear, "_CHUNK_ELEMENTS", 0)
    monkeypatch.setattr(fused_linear, "_CHUNK_ROWS", 13)


def outcome(task, model, batch, fused, warming_up, reduce=True):
    """Loss, what is logged and the gradients of all parameters."""
    chosen = {"smoothing_warmup_steps": 10, "fused_projection": fused, "report_accuracy": True}
    criterion = LaboLabelSmoothedCrossEntropyCriterion(
        LaboConfig(sentence_avg=False, ignore_prefix_size=1, **chosen), task
    )
    criterion.updates.num_updates = 9 if warming_up else 10
    loss, _, log = criterion(model, batch, reduce)
    return loss.detach(), log, gradients(model, loss.sum())


@pytest.mark.parametrize("warming_up", [True, False])
@pytest.mark.parametrize("reduce", [True, False])
def test_loss_log_and_gradients_are_the_same(task, model, batch, warming_up, reduce):
    loss, log, grads = outcome(task, model, batch, True, warming_up, reduce)
    expected, expected_log, expected_grads = outcome(task, model, batch, False, warming_up, reduce)
    torch.testing.assert_close(loss, expected)
    assert log.keys() == expected_log.keys()
    for name in log:
        torch.testing.assert_close(torch.as_tensor(log[name]), torch.as_tensor(expected_log[name]), msg=name)
    for mine, other in zip(grads, expected_grads):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def assert_as_near(grads, others, exact):
    """``grads`` are as near to the exact ones as ``others`` of the same dtype, as one vector: small ones are noise."""
    mine, other, truth = (torch.cat([grad.double().flatten() for grad in one]) for one in (grads, others, exact))
    assert (mine - truth).norm() <= 0.01 * truth.norm() + (other - truth).norm()


@pytest.mark.parametrize("warming_up", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(task, model, batch, warming_up, dtype):
    skip_without_product(dtype)
    _, _, exact = outcome(task, model, batch, False, warming_up)
    loss, _, grads = outcome(task, model.to(dtype), batch, True, warming_up)
    expected, _, expected_grads = outcome(task, model, batch, False, warming_up)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert {grad.dtype for grad in grads} == {dtype}
    assert_as_near(grads, expected_grads, exact)


@pytest.mark.parametrize("warming_up", [True, False])
def test_autocast(task, model, batch, warming_up):
    _, _, exact = outcome(task, model, batch, False, warming_up)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, grads = outcome(task, model, batch, True, warming_up)
        expected, _, expected_grads = outcome(task, model, batch, False, warming_up)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert_as_near(grads, expected_grads, exact)


@pytest.fixture
def distributed(model, tmp_path):
    """``--ddp-backend pytorch_ddp`` as fairseq wraps it, which its command line refuses to do on a CPU."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield lambda **chosen: ModuleProxyWrapper(torch.nn.parallel.DistributedDataParallel(model, **chosen))
    torch.distributed.destroy_process_group()


def assert_distributed_is_the_same(task, model, batch, wrapped, warming_up):
    """Over two updates, because the first leaves DDP waiting if it missed a gradient."""
    expected, _, expected_grads = outcome(task, model, batch, False, warming_up)
    for _ in range(2):
        loss, _, grads = outcome(task, wrapped, batch, True, warming_up)
        torch.testing.assert_close(loss, expected)
        assert len(grads) == len(expected_grads)
        for mine, other in zip(grads, expected_grads):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("warming_up", [True, False])
def test_distributed_data_parallel(task, model, batch, distributed, warming_up, caplog):
    if hasattr(model.encoder.layers[0], "in_proj_weight"):
        pytest.skip("the encoder of this fairseq has unused parameters, which DDP must be told of")
    assert_distributed_is_the_same(task, model, batch, distributed(), warming_up)
    assert REFUSAL not in caplog.text


@pytest.mark.parametrize("warming_up", [True, False])
def test_ddp_that_looks_for_unused_parameters(task, model, batch, distributed, warming_up, caplog):
    """It does not see a projection made outside the model, unless the embedding shares its weight."""
    wrapped = distributed(find_unused_parameters=True)
    assert_distributed_is_the_same(task, model, batch, wrapped, warming_up)
    tied = model.decoder.output_projection.weight is model.decoder.embed_tokens.weight
    assert (REFUSAL in caplog.text) != tied


class Sharded(torch.nn.Module):
    """Wraps a model as one that keeps parameters in pieces would."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.decoder = module.decoder

    def forward(self, **arguments):
        return self.module(**arguments)

    def get_targets(self, sample, net_output):
        return self.module.get_targets(sample, net_output)

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        return self.module.get_normalized_probs(net_output, log_probs, sample)


def test_an_unknown_wrapper_is_left_alone(task, model, batch, caplog):
    with caplog.at_level(logging.WARNING):
        loss, _, _ = outcome(task, Sharded(model), batch, True, False)
    assert caplog.text.count(REFUSAL) == 1
    assert "Sharded" in caplog.text
    assert torch.equal(loss, outcome(task, model, batch, False, False)[0])


def test_a_projection_that_does_more_is_left_alone(task, model, batch, caplog):
    model.decoder.output_projection.register_forward_hook(lambda layer, given, output: output * 2)
    loss, _, _ = outcome(task, model, batch, True, False)
    assert "plain linear layer" in caplog.text
    assert torch.equal(loss, outcome(task, model, batch, False, False)[0])
