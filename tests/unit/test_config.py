"""The configurations: composed from parts, the paper's settings, the same updates on any number of workers."""

import sys

import pytest
import yaml
from fairseq_runs import command, run
from hypothesis import given
from hypothesis import strategies as st

from hydra_plugins.labo_fairseq.primary_config import read_primary_config
from labo_fairseq.checkpoints import load_checkpoint
from labo_fairseq.data.corpora.declaration import load_declaration
from labo_fairseq.data.prepared_corpus import Prepared
from labo_fairseq.data.types import DEFAULT_SCORING
from labo_fairseq.errors import UserError
from labo_fairseq.experiments.config import check_with_fairseq, for_machines, for_workers
from labo_fairseq.experiments.machines import Machines
from labo_fairseq.experiments.recipes import available, compose
from labo_fairseq.files import configs, methods, shipped_corpora
from labo_fairseq.subprocesses import USER_DIR

LABO = command("labo-fairseq")


def configuration(name):
    """A parameter: on both Pythons for one direction of a corpus, for the others differ in their languages alone."""
    _, direction, _ = name.split("_")
    return pytest.param(name, marks=[] if direction in ("de-en", "multilingual") else [pytest.mark.once])


def test_every_experiment_has_a_configuration_for_every_method():
    corpora = map(load_declaration, shipped_corpora())
    setups = {f"{corpus.name}_{direction}" for corpus in corpora for direction in corpus.directions}
    assert set(available()) == {f"{setup}_{method}" for setup in setups for method in methods()}
    assert {"ce", "labo", "ls"} <= set(methods())


@pytest.mark.parametrize("name", [configuration(name) for name in available()])
def test_settings_are_the_papers(name):
    """Section 4.1 and appendix F, but for corpora that the paper has not."""
    corpus, direction, method = name.split("_")
    config = compose(name)
    check_with_fairseq(config)  # which compose() leaves out where nothing is changed
    criterion = config["criterion"]
    if method in ("ce", "ls", "labo"):
        assert criterion["label_smoothing"] == (0.0 if method == "ce" else 0.1)
    assert config["optimizer"]["adam_betas"] == "(0.9, 0.98)"
    if method == "labo":
        assert criterion["tau"] == 1.25
        assert criterion["smoothing_warmup_steps"] == {
            "wmt14": 10000,
            "multi30k": 1000,
            "bible": 1000,
            "multi30k8k": 250,
            "multi30k2k": 60,
            "multi30k8k-short": 60,
        }.get(corpus, 5000)
    if direction != "multilingual":
        assert f"{config['task']['source_lang']}-{config['task']['target_lang']}" == direction
    if corpus == "bible" or corpus.startswith(("multi30k8k", "multi30k2k")):
        return
    assert config["dataset"]["max_tokens"] == 4096
    assert config["model"]["dropout"] == 0.3
    assert config["optimizer"]["weight_decay"] == 1e-4
    assert config["lr_scheduler"] == {"_name": "inverse_sqrt", "warmup_updates": 1000, "warmup_init_lr": 1e-7}
    lr, epochs = {"wmt14": (7e-4, 50), "multi30k": (5e-3, 20)}.get(corpus, (5e-4, 150))
    assert (config["optimization"]["lr"], config["optimization"]["max_epoch"]) == ([lr], epochs)
    best = "accuracy" if direction == "multilingual" else "bleu"
    assert config["checkpoint"]["best_checkpoint_metric"] == best
    assert config["checkpoint"]["maximize_best_checkpoint_metric"]


def test_fairseq_is_left_out_where_nothing_is_changed():
    program = """import sys
from labo_fairseq import cli
from labo_fairseq.experiments.recipes import find, run_config
assert run_config(find("multi30k", "de-en"), "labo", 3, {}, smoke=True)["common"]["seed"] == 3
sys.exit("fairseq" in sys.modules)"""
    for overrides, status in (([], 0), (["criterion.tau=2"], 1)):
        done = run(sys.executable, "-c", program.format(overrides))
        assert done.returncode == status, done.stdout


def test_overrides():
    config = compose("multi30k_de-en_labo", ["criterion.tau=1.15", "criterion.alpha=adaptive", "optimization.lr=[0.1]"])
    assert (config["criterion"]["tau"], config["criterion"]["alpha"]) == (1.15, "adaptive")
    assert config["optimization"]["lr"] == [0.1]


def test_a_whole_part():
    config = compose("multi30k_de-en_ls", ["model=transformer_base", "model.dropout=0.5"])
    assert (config["model"]["encoder"]["ffn_embed_dim"], config["model"]["dropout"]) == (2048, 0.5)
    assert config["criterion"]["_name"] == "label_smoothed_cross_entropy"


@pytest.mark.parametrize("setting", ["model=huge", "schedule=nothing"])
def test_a_part_that_is_not_there(setting):
    with pytest.raises(UserError, match="do not fit") as refused:
        compose("multi30k_de-en_labo", [setting])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("setting", ["criterion.tau", "=3", "--tau"])
def test_an_override_that_is_none(setting):
    with pytest.raises(UserError, match=r"invalid override .*: expected KEY=VALUE"):
        compose("multi30k_de-en_labo", [setting])


def test_unknown_configuration():
    with pytest.raises(UserError, match=r"no configuration 'x': join a corpus \(bible, .*\), a direction and one of "):
        compose("x")


@given(tokens=st.integers(1000, 8192), frequency=st.integers(1, 16), workers=st.integers(1, 24))
def test_an_update_sees_as_many_tokens_on_any_number_of_workers(tokens, frequency, workers):
    config = {"dataset": {"max_tokens": tokens, "x": 1}, "optimization": {"update_freq": [frequency], "y": 2}}
    if workers > 1 and tokens * frequency / workers < 256:
        with pytest.raises(UserError, match=f"{workers} workers would get"):
            for_workers(config, workers)
        return
    shared = for_workers(config, workers)
    per_gpu, (times,) = shared["dataset"]["max_tokens"], shared["optimization"]["update_freq"]
    total = per_gpu * times * workers
    assert total <= tokens * frequency < total + times * workers
    assert per_gpu <= tokens, "what fits one GPU fits each of several"
    assert (shared["dataset"]["x"], shared["optimization"]["y"]) == (1, 2)
    assert shared["distributed_training"]["distributed_world_size"] == workers


def test_one_worker_changes_nothing():
    config = compose("wmt14_en-de_labo")
    assert for_workers(config, 1) == config


def test_without_a_gpu_the_cpu_is_used():
    fitted = for_machines(compose("multi30k_de-en_ls"), Machines(gpus=0))
    assert fitted["common"]["cpu"]
    assert fitted["distributed_training"]["distributed_world_size"] == 1


@pytest.mark.parametrize(
    ("generation", "default"), [(6, {}), (7, {"fp16": True}), (8, {"bf16": True}), (9, {"bf16": True})]
)
def test_a_precision_of_ones_own_takes_the_place_of_the_fastest(monkeypatch, generation, default):
    """fairseq cannot train in two of them at once; false asks for none."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda number: (generation, 0))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    machines = Machines(gpus=1)
    kinds = ("fp16", "memory_efficient_fp16", "amp", "bf16", "memory_efficient_bf16")

    def precision(*settings):
        common = for_machines(compose("multi30k_de-en_ls", settings), machines)["common"]
        return {name: common[name] for name in kinds if name in common}

    assert precision() == default
    for kind in kinds:
        for value in (True, False):
            assert precision(f"common.{kind}={str(value).lower()}") == {kind: value}


def test_more_gpus_than_there_are():
    with pytest.raises(UserError, match="1000 GPUs were asked for"):
        Machines(gpus=1000)


@pytest.fixture
def prepared(tmp_path):
    """A folder that holds a prepared corpus, as far as a configuration looks."""
    Prepared(tmp_path / "data").write_metadata({}, {}, [], DEFAULT_SCORING)
    return tmp_path / "data"


@pytest.mark.parametrize("folder", [".", "bin"])
def test_config_is_printed_whole(prepared, tmp_path, folder):
    (prepared / "bin").mkdir()
    where = ("--data", prepared / folder, "--save-dir", tmp_path / "save")
    options = (*where, "--distributed-world-size", "4", "--precision", "bf16")
    done = run(LABO, "config", "wmt14_en-de_labo", "criterion.rho=0.7", *options)
    assert done.returncode == 0
    config = yaml.safe_load(done.stdout)
    assert config["task"]["data"] == str(prepared / "bin")
    assert config["checkpoint"]["save_dir"] == str(tmp_path / "save")
    assert (config["optimization"]["update_freq"], config["dataset"]["max_tokens"]) == ([2], 4096)
    assert config["common"]["bf16"]
    assert config["criterion"]["rho"] == 0.7


@pytest.mark.parametrize(
    ("method", "warmup"), [([], 1000), (["criterion=ls", "~criterion.smoothing_warmup_steps"], None)]
)
def test_the_files_serve_fairseq_hydra_train_as_they_are(data, tmp_path, method, warmup):
    groups = ("task=last_checkpoint", "model=transformer_tiny", "optimizer=adam_polynomial", "schedule=demo")
    done = run(
        *(command("fairseq-hydra-train"), "--config-dir", configs(), "--config-name", "training", *groups, *method),
        *(
            "task.source_lang=de",
            "task.target_lang=en",
            f"common.user_dir={USER_DIR}",
            f"task.data={data.binarized.resolve()}",
        ),
        *("common.cpu=true", "common.log_interval=1", "optimization.max_update=2", "dataset.max_tokens=600"),
        *("checkpoint.save_dir=save", f"hydra.run.dir={tmp_path}", "dataset.disable_validation=true"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    saved = load_checkpoint(tmp_path / "save" / "checkpoint_last.pt")["cfg"]["criterion"]
    assert saved.get("smoothing_warmup_steps") == warmup


@pytest.mark.parametrize("first", [True, False], ids=["before the options", "behind them"])
def test_settings_may_stand_on_either_side_of_the_options(prepared, tmp_path, first):
    options = ["--data", prepared, "--save-dir", tmp_path / "save"]
    setting = ["criterion.rho=0.7"]
    done = run(LABO, "config", "wmt14_en-de_labo", *(setting + options if first else options + setting))
    assert done.returncode == 0, done.stdout
    assert yaml.safe_load(done.stdout)["criterion"]["rho"] == 0.7


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        ("", "criterion=labo", ["labo"]),
        ("", "+criterion=labo,ce criterions=kd", ["labo", "ce"]),
        ("defaults: [{criterion: labo}]", "", ["labo"]),
        ("defaults:\n- _self_\n- criterion: 'labo'\n- model: x", "", ["labo"]),
        ("defaults: [{override /criterion@criterion: labo}, criterion/ce]", "criterion=kd", ["kd", "labo", "ce"]),
        ("defaults: [{criterion: [labo, ce]}]\nx: ${y}", "", ["labo", "ce"]),
        ("- criterion: labo", "", []),
        ("defaults: [", "", []),
    ],
)
@pytest.mark.parametrize("name", ["mine", "labo_tau1.15", "labo_tau1.15.yaml"])
def test_criterions_that_a_hydra_configuration_asks_for(tmp_path, file, options, expected, name):
    (tmp_path / (name if name.endswith(".yaml") else f"{name}.yaml")).write_text(file, encoding="utf-8")
    for place in (("--config-dir", str(tmp_path)), ("-cp", str(tmp_path)), ()):
        config = read_primary_config([*options.split(), *place, "--config-name", name], tmp_path)
        assert list(config.asked_for("criterion")) == expected
