"""A method is a loss module, a criterion module and a YAML file: the recipe of docs/contributing.md, followed."""

import math
import shutil
import sys
from pathlib import Path

import pytest
from contributing import blocks
from fairseq_runs import run

import labo_fairseq
from labo_fairseq.files import configs
from labo_fairseq.reporting.training_log import read_curves


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A folder for PYTHONPATH: the package with PolyLoss."""
    root = tmp_path_factory.mktemp("extended")
    package = Path(labo_fairseq.__file__).parent
    shutil.copytree(package, root / "labo_fairseq", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(configs(), root / configs().relative_to(package.parent), dirs_exist_ok=True)
    loss, criterion = blocks("Add a method")
    (declaration,) = blocks("Add a method", "yaml")
    for path, content in (
        (root / "labo_fairseq" / "losses" / "poly.py", loss),
        (root / "labo_fairseq" / "criterions" / "poly.py", criterion),
        (root / configs().relative_to(package.parent) / "criterion" / "poly.yaml", declaration),
    ):
        assert not path.exists()
        path.write_text(content, encoding="utf-8")
    return root


@pytest.mark.once
def test_a_new_method_trains_and_is_reported(extended, multi30k, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(multi30k[0], folder)
    env = {"PYTHONPATH": str(extended)}

    def command(*arguments):
        done = run(sys.executable, "-m", "labo_fairseq", *arguments, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    command("run", "multi30k", "de-en", "--criterion", "poly", "--smoke", "--folder", folder)
    of_method = folder / "multi30k" / "de-en" / "poly-seed1-smoke"
    curves = read_curves(next(of_method.glob("**/train.log")))["train"]
    assert curves["miss"]
    for update, miss in curves["miss"].items():
        assert 0 < miss < 1
        assert curves["loss"][update] == pytest.approx(curves["nll_loss"][update] + miss / math.log(2), abs=5e-3)
    assert (of_method / "training.png").is_file()
    command("report", of_method, folder / "multi30k" / "de-en" / "labo-seed1-smoke", "--out", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for title in ("training: 1 − p(target)", "training: smoothing mass α", "training: entropy of p (bits)"):
        assert title in page
