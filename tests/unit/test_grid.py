"""Experiment grids: which runs a file stands for, and what is said of a file that describes none."""

import re
from pathlib import Path

import pytest
import yaml

from labo_fairseq.cli_types import RUNS
from labo_fairseq.errors import UserError
from labo_fairseq.evaluation.runs import Evaluation, RunResult, TrainingCost
from labo_fairseq.experiments import kinds
from labo_fairseq.experiments.grid import load_grid
from labo_fairseq.experiments.scheduler import (
    _in_words,
    estimates,
    find_workers,
    only,
    report_command,
    show_plan,
    slurm_script,
    why_it_failed,
)
from labo_fairseq.files import configs

BLOCK = {"corpus": "bible", "directions": ["de-en"], "methods": ["ls", "labo"], "seeds": [1, 2]}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "mine.yaml"
        path.write_text(
            content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8"
        )
        return str(path)

    return write


@pytest.mark.parametrize(
    ("visible", "there", "names"),
    [(None, 1, ["0"]), (None, 2, ["0", "1"]), ("3", 1, ["3"]), ("5,7", 2, ["5", "7"]), ("", 0, [])],
)
def test_gpus_have_the_names_that_the_system_gives_them(monkeypatch, visible, there, names):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    workers = find_workers(None, 1)
    assert list(workers.gpus) == names
    assert [workers.environment(slot).get("CUDA_VISIBLE_DEVICES") for slot in range(workers.number)] == (
        names or [None]
    )


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        *(("table1", 108), ("table2", 9), ("multi30k", 84), ("bible", 21), ("tau", 22), ("multi30k8k", 62)),
        ("when", 27),
        *(("digits", 45), ("table3", 650), ("table5", 14), ("cifar10_small", 246), ("cifar100_small", 246)),
    ],
)
def test_shipped_grids(name, runs):
    grid = load_grid(name)
    assert len(grid.jobs) == runs
    folders = {job.folder(Path("runs")) for job in grid.jobs}
    assert len(folders) == runs, "two runs in one folder"
    assert all(job.hours.keys() == {"cpu", "gpu"} for job in grid.jobs), "no cost is written beside it"


def test_every_shipped_grid_is_tested():
    assert {path.stem for path in (configs() / "experiments").glob("*.yaml")} == {
        *("table1", "table2", "multi30k", "multi30k8k", "when", "bible", "tau"),
        *("table3", "table5", "cifar10_small", "cifar100_small", "digits"),
    }


def test_table_3_regularizes_each_network_as_its_authors_do():
    runs = [job for job in load_grid("table3").jobs if job.method == "tf_reg" and job.corpus == "cifar100"]
    names = ("alpha", "temperature", "weight")
    criteria = [(job.direction, job.subject.config("tf_reg", 1, job.settings)["criterion"]) for job in runs]
    assert {(network, *(criterion[name] for name in names)) for network, criterion in criteria} == {
        ("resnet18", 0.1, 20.0, 0.1),
        ("mobilenetv2", 0.95, 40.0, 0.0095),
    }


def test_multi30k_begins_with_what_matters_most():
    names = [f"{job.direction} {job.name}" for job in load_grid("multi30k").jobs[:6]]
    assert names == [f"de-en {method}-seed{seed}" for method in ("ls", "labo") for seed in (1, 2, 3)]


def test_product_of_everything(write):
    block = {**BLOCK, "methods": ["labo"], "settings": {"criterion.tau": [1.15, 1.25], "criterion.rho": [0.5, 0.7]}}
    grid = load_grid(write({"title": "Mine", "grid": [block]}))
    assert [job.name for job in grid.jobs][:4] == [
        *("labo-tau1.15-rho0.5-seed1", "labo-tau1.15-rho0.5-seed2"),
        *("labo-tau1.15-rho0.7-seed1", "labo-tau1.15-rho0.7-seed2"),
    ]
    assert (grid.name, grid.title, grid.baseline) == ("mine", "Mine", "labo-tau1.15-rho0.5")
    # 1.25 is the configuration's own, and needs no name
    assert grid.jobs[-1].settings == ("criterion.rho=0.7",)
    assert grid.jobs[0].arguments(Path("r")) == [
        *("run", "bible", "de-en", "--criterion", "labo", "--seed", "1", "--folder", "r"),
        *("--name", "labo-tau1.15-rho0.5-seed1", "criterion.tau=1.15", "criterion.rho=0.5"),
    ]


def test_a_run_that_two_blocks_name_is_one(write):
    grid = load_grid(write({"grid": [{**BLOCK, "hours": {"cpu": 1}}, {**BLOCK, "seeds": [2, 3]}]}))
    names = [f"{method}-seed{seed}" for seeds in ((1, 2), (3,)) for method in ("ls", "labo") for seed in seeds]
    assert [job.name for job in grid.jobs] == names


def test_smoke_runs_are_reported_apart(write):
    name = write({"title": "Mine", "grid": [BLOCK]})
    grid = load_grid(name, smoke=True)
    assert (grid.name, grid.title) == ("mine-smoke", "Mine (smoke test, meaningless scores)")
    assert {job.name for job in grid.jobs} == {f"{job.name}-smoke" for job in load_grid(name).jobs}


def test_the_hint_at_the_end_reports_the_runs_that_were_made():
    assert report_command("tau", RUNS, False) == "labo-fairseq experiment report tau"
    command = report_command("my grid.yaml", Path("all runs"), True)
    assert command == "labo-fairseq experiment report 'my grid.yaml' --folder 'all runs' --smoke"


def test_teachers_come_first_and_are_found(write):
    student = {**BLOCK, "methods": ["kd"], "teachers": ["ls", "labo"]}
    grid = load_grid(write({"grid": [student, BLOCK]}), smoke=True)
    assert [job.method for job in grid.jobs] == ["ls", "ls", "labo", "labo", "kd", "kd"]
    checkpoint = "checkpoints/checkpoint_last.pt"
    assert grid.jobs[-1].arguments(Path("r"))[-1] == "criterion.teacher_path=" + ":".join(
        f"r/bible/de-en/{method}-seed2-smoke/{checkpoint}" for method in ("ls", "labo")
    )


IMAGES = {"dataset": "digits", "networks": ["resnet18"], "methods": ["ls", "labo"], "seeds": [1, 2]}


def test_a_grid_of_images(write):
    settings = {"network.width": [8], "criterion.alpha": [0.1, 0.5]}
    student = {**IMAGES, "methods": ["kd"], "teachers": ["ce"], "teacher_network": "resnet50", "settings": settings}
    taught = {**IMAGES, "networks": ["resnet50"], "methods": ["ce"], "settings": {"network.width": [8]}}
    grid = load_grid(write({"grid": [IMAGES, student, taught]}))
    assert grid.kind is kinds.IMAGES
    assert [job.name for job in grid.jobs if job.teachers] == [
        f"kd-width8{alpha}-seed{seed}" for alpha in ("-alpha0.1", "") for seed in (1, 2)
    ]
    assert grid.jobs[-1].arguments(Path("r")) == [
        *("run", "digits", "resnet18", "--criterion", "kd", "--seed", "2", "--folder", "r", "--name"),
        *("kd-width8-seed2", "network.width=8"),
        "criterion.teacher_path=r/digits/resnet50/ce-width8-seed2/checkpoints/checkpoint_best.pt",
    ]
    assert grid.jobs[0].folder(Path("r")) == Path("r/digits/resnet18/ls-seed1")


def test_methods_may_have_settings_of_their_own(write):
    methods = {"ls": None, "labo": {"criterion.tau": [1.15, 1.25]}, "ce": {}}
    block = {**BLOCK, "directions": ["de-en"], "seeds": [1], "methods": methods}
    grid = load_grid(write({"grid": [block]}))
    assert [job.name for job in grid.jobs] == ["ls-seed1", "labo-tau1.15-seed1", "labo-seed1", "ce-seed1"]
    rates = {"optimization.lr": [[0.001], [0.002]]}
    block = {
        **block,
        "methods": {"labo": {"criterion.tau": [1.15, 1.5]}, "kd": {}},
        "teachers": ["ce"],
        "settings": rates,
    }
    taught = {**BLOCK, "directions": ["de-en"], "seeds": [1], "methods": ["ce"], "settings": rates}
    grid = load_grid(write({"grid": [block, taught]}))
    names = [job.name for job in grid.jobs]
    assert names[:2] == ["labo-optimization.lr[0.001]-tau1.15-seed1", "labo-optimization.lr[0.001]-tau1.5-seed1"]
    students = [job for job in grid.jobs if job.teachers]
    assert [(job.name, job.teachers[0].name) for job in students] == [
        (f"kd-optimization.lr[{rate}]-seed1", f"ce-optimization.lr[{rate}]-seed1") for rate in (0.001, 0.002)
    ]


def test_numbers_are_those_of_the_command_line(write):
    """PyYAML reads 1e-3 as a word."""
    content = """
        grid:
          - corpus: bible
            directions: [de-en]
            methods: [ls]
            seeds: [1]
            settings: {optimization.lr: [[1e-3], [2E-3]]}
    """
    written = load_grid(write(content)).jobs
    plain = load_grid(
        write(
            {"grid": [{**BLOCK, "methods": ["ls"], "seeds": [1], "settings": {"optimization.lr": [[0.001], [0.002]]}}]}
        )
    ).jobs
    assert [job.name for job in written] == [job.name for job in plain]
    assert [job.settings for job in written] == [("optimization.lr=[0.001]",), ("optimization.lr=[0.002]",)]


def test_hours_count_the_passes_of_a_method_and_its_teacher(write):
    block = {**IMAGES, "dataset": "cifar100", "methods": ["ce", "cs_kd", "kd"], "teachers": ["ce"], "seeds": [1]}
    taught = {**block, "networks": ["resnext29"], "methods": ["ce"]}
    del taught["teachers"]
    grid = load_grid(write({"grid": [{**block, "teacher_network": "resnext29"}, taught]}))
    hours = {(job.direction, job.method): job.hours["cpu"] for job in grid.jobs}
    assert hours["resnet18", "ce"] == 140
    assert hours["resnet18", "cs_kd"] == pytest.approx(140 * 4 / 3)
    assert hours["resnet18", "kd"] == pytest.approx(140 + hours["resnext29", "ce"] / 3)


def test_the_cost_of_the_digits_is_the_sum_of_its_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    grid = load_grid("digits")
    show_plan(grid, tmp_path, find_workers(2, 1))
    printed = capsys.readouterr().out
    total = sum(job.hours["cpu"] for job in grid.jobs)
    hours, half = _in_words(total), _in_words(total / 2)
    assert f"estimate: {hours} of training (as declared for one CPU core); {half} with 2" in printed
    assert "45 runs, 0 done" in printed


def test_finished_runs_scale_what_is_declared(write):
    """A method of twice the passes is not expected to take what the one that is finished took."""
    block = {**IMAGES, "dataset": "cifar100", "networks": ["resnet18", "mobilenetv2"], "methods": ["ce", "cs_kd"]}
    first, *others = load_grid(write({"grid": [{**block, "seeds": [1]}]})).jobs
    training = TrainingCost(seconds=first.hours["cpu"] / 10 * 3600, peak_memory_mib=1)
    results = {first: RunResult({}, {}, training, Evaluation("x", {})), **dict.fromkeys(others)}
    expected = estimates(results, "cpu")
    for job in results:
        scale = 10 if job.direction == "resnet18" else 1
        assert expected[job] == (pytest.approx(job.hours["cpu"] / scale), job.direction == "resnet18")
    shared = estimates(dict.fromkeys(results), "gpu", gpus_per_run=4)
    assert all(shared[job] == (job.hours["gpu"] / 4, False) for job in results)


def test_smoke_runs_are_not_expected_to_take_the_hours_of_real_ones(write, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    show_plan(load_grid(write({"grid": [BLOCK]}), smoke=True), tmp_path, find_workers(2, 1))
    printed = capsys.readouterr().out
    assert not re.search(r"\d h\b", printed)
    assert "no estimate for 4 of them: no smoke run on their corpus is finished here" in printed


@pytest.mark.parametrize(
    ("status", "output", "reason"),
    [
        (-9, "train:  40%|####", "killed (SIGKILL), possibly out of memory; see {log}"),
        (-15, "", "killed (SIGTERM); see {log}"),
        (-40, "", "killed (signal 40); see {log}"),
        (1, "10%\r20%\nlabo-fairseq run: no such file\n", "no such file"),
        (1, "ValueError: x\n\n", "ValueError: x"),
        (3, "", "ended with status 3"),
    ],
)
def test_a_failed_run_is_reported_with_its_reason(tmp_path, status, output, reason):
    log = tmp_path / "log"
    log.write_text(output, encoding="utf-8")
    assert why_it_failed(status, log) == reason.format(log=log)


def test_slurm_script_submits_every_run_once_and_teachers_first(write):
    student = {**BLOCK, "methods": ["kd"], "teachers": ["ls"]}
    name = write({"grid": [student, BLOCK]})
    grid = load_grid(name)
    script = slurm_script(grid, name, Path("my runs"), 2)
    assert "--array=0-3 " in script
    assert "--array=4-5 --dependency=" in script
    assert "--gpus=2" in script
    assert only(grid, 4).jobs == grid.jobs[4:5]
    with pytest.raises(UserError, match="mine has no run 6: they go from 0 to 5"):
        only(grid, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is no YAML: while parsing"),
        ("", "None is no set of KEY: VALUE"),
        ({"grid": []}, "grid must be a list of at least one"),
        ({"runs": [BLOCK]}, "unknown key runs: choose from baseline, grid, title"),
        ({"title": "x"}, "no grid"),
        (BLOCK, "corpus, directions, methods, seeds must stand in the items of the list below grid:, not beside it"),
        ({"grid": [BLOCK], "seeds": [1]}, "seeds must stand in the items of the list below grid:"),
        ({"grid": [{**BLOCK, "color": "red"}]}, "block 1 of the grid: unknown key color"),
        ({"grid": [BLOCK, {"corpus": "bible"}]}, "block 2 of the grid: no directions, methods, seeds"),
        ({"grid": [{**BLOCK, "corpus": "opus"}]}, "unknown corpus 'opus'"),
        ({"grid": [{**BLOCK, "directions": ["de-xx"]}]}, "bible has no direction 'de-xx'"),
        ({"grid": [{**BLOCK, "methods": ["sgd"]}]}, "unknown method 'sgd': choose from "),
        ({"grid": [{**BLOCK, "seeds": ["one"]}]}, "a seed must be an integer from 0 to 4294967295, got 'one'"),
        ({"grid": [{**BLOCK, "seeds": 1}]}, "seeds must be a list"),
        ({"grid": [{**BLOCK, "settings": ["criterion.tau=1"]}]}, "settings must be KEY"),
        ({"grid": [{**BLOCK, "methods": ["kd"]}]}, "method kd needs teachers"),
        ({"grid": [{**BLOCK, "methods": {}}]}, "methods must be a list of at least one"),
        ({"grid": [{**BLOCK, "methods": {"ls": [0.1]}}]}, "the settings of ls must be KEY: [VALUE, ...]"),
        (
            {"grid": [{**BLOCK, "methods": {"labo": {"criterion.tau": [2]}}, "settings": {"criterion.tau": [3]}}]},
            "criterion.tau stands in settings and in those of labo",
        ),
        ({"grid": [{**BLOCK, "teachers": ["ls"]}]}, "method ls takes no teachers"),
        ({"grid": [{**BLOCK, "methods": ["kd"], "teachers": ["ls"]}]}, "the teachers ls-seed1, ls-seed2 are no runs"),
        ({"grid": [BLOCK, IMAGES]}, "a grid must hold either corpora or data sets of images: write two grids"),
        ({"grid": [{**IMAGES, "corpus": "bible"}]}, "block 1 of the grid: unknown key dataset"),
        ({"grid": [{**IMAGES, "networks": ["resnet19"]}]}, "unknown network 'resnet19'"),
        ({"grid": [{**IMAGES, "dataset": "digit"}]}, "unknown data set 'digit'"),
        ({"grid": [{**IMAGES, "methods": ["afl"]}]}, "unknown method 'afl': choose from "),
        ({"grid": [{**IMAGES, "methods": ["kd"]}]}, "method kd needs teachers"),
        ({"grid": [{**IMAGES, "settings": {"criterion.tua": [1]}}]}, "unknown setting criterion.tua"),
        ({"grid": [BLOCK], "baseline": "ce"}, "the baseline 'ce' is none of its methods: choose from ls, labo"),
        (
            {"grid": [{**BLOCK, "settings": {"optimization.max_update": [9]}}], "baseline": "ls"},
            "the baseline 'ls' is none of its methods: choose from ls-optimization.max_update9",
        ),
    ],
)
def test_a_file_that_describes_no_grid(write, content, message):
    with pytest.raises(UserError) as refused:
        load_grid(write(content))
    assert "mine.yaml" in str(refused.value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_grid_of_the_documentation(write):
    page = (configs().parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    jobs = load_grid(write(example)).jobs
    assert len(jobs) == 6
    assert {job.variant for job in jobs} == {"ls", "labo-tau1.15", "labo"}


def test_no_such_grid():
    with pytest.raises(
        UserError, match=r"no experiment 'x': name a YAML file, or one of bible, cifar100_small, cifar10_small, digits"
    ):
        load_grid("x")
