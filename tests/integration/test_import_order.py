"""The plugin and fairseq, imported in any order."""

import subprocess
import sys
from pathlib import Path

import pytest
from fairseq_runs import train_command

import labo_fairseq

REGISTERED = """
from fairseq import checkpoint_utils
from fairseq.criterions import CRITERION_REGISTRY
assert {"labo", "focal_loss"} <= CRITERION_REGISTRY.keys()
assert checkpoint_utils.load_checkpoint_to_cpu.__wrapped__, "checkpoints are read by the plugin"
"""


def python(code, *arguments, cwd=None):
    """The output of a program, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        cwd=cwd,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "imports",
    [
        "import fairseq, labo_fairseq",
        "import labo_fairseq.losses, fairseq",
        "import labo_fairseq.criterions",
        "import labo_fairseq\nfrom fairseq.models.transformer import TransformerModel",
    ],
)
def test_any_order_registers_the_criterions(imports):
    python(imports + REGISTERED)


def test_the_losses_alone_do_not_import_fairseq():
    python("import sys, labo_fairseq.losses\nassert not any(name.split('.')[0] == 'fairseq' for name in sys.modules)")


def test_the_losses_are_imported_when_they_are_asked_for():
    python("""
import sys, labo_fairseq
assert {"LaboLoss", "LinearLaboLoss"} <= set(dir(labo_fairseq))
assert not {"torch", "fairseq"} & set(sys.modules)
from labo_fairseq import LaboLoss
from labo_fairseq.losses import LaboLoss as same
assert LaboLoss is same
assert "fairseq" not in sys.modules
try:
    labo_fairseq.NoLoss
except AttributeError:
    pass
else:
    raise AssertionError
""")


def test_losses_where_there_is_no_fairseq():
    code = """
import sys
import labo_fairseq.losses
sys.path[:] = [sys.path[0]]
try:
    import fairseq
except ImportError:
    print("no fairseq")
"""
    package = Path(labo_fairseq.__file__).parents[1]
    assert python(code, cwd=package).splitlines() == ["no fairseq"]


def test_through_a_link_as_where_the_command_says(tmp_path):
    """``--user-dir`` may name the folder otherwise than the import did."""
    package = Path(labo_fairseq.__file__).resolve().parent
    (tmp_path / "linked").symlink_to(package.parent)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "linked")!r})
import labo_fairseq.losses
assert "linked" in labo_fairseq.__file__
from argparse import Namespace
from fairseq import utils
utils.import_user_module(Namespace(user_dir={str(package)!r}))
"""
    python(code + REGISTERED)


def test_train_and_load_from_python_after_the_losses(data, tmp_path):
    code = """
import sys
from labo_fairseq.losses import LaboLoss
from fairseq_cli.train import cli_main
cli_main()
from fairseq.models.transformer import TransformerModel
folder, data = sys.argv[sys.argv.index("--save-dir") + 1], sys.argv[1]
model = TransformerModel.from_pretrained(folder, "checkpoint_last.pt", data)
print("translated:", model.translate("In the beginning", beam=1, max_len_b=5))
"""
    _, *options = train_command(data, tmp_path, "--criterion", "labo", "--max-tokens", "9000", updates=1)
    assert "translated: " in python(code, *options)
