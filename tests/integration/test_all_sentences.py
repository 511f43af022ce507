"""fairseq's commands see every sentence of every set, whatever the size of the set and of its batches."""

import contextlib
import io
import re
import sys

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset, TokenBlockDataset, data_utils
from fairseq_runs import command, inner, run, train_here, validations

from labo_fairseq.subprocesses import USER_DIR

FIVE = 5  # lines


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("size", [0, 1, 5, 8, 9, 34, 100])
@pytest.mark.parametrize("limits", [{"max_tokens": 60}, {"max_tokens": 5000}, {"max_sentences": 10}])
def test_batches_hold_every_index_once(size, multiple, limits):
    rng = np.random.default_rng(size)
    lengths = np.sort(rng.integers(1, 12, size))
    indices = rng.permutation(size)
    batches = data_utils.batch_by_size(
        indices, lambda i: lengths[i], num_tokens_vec=lengths, required_batch_size_multiple=multiple, **limits
    )
    assert [index for batch in batches for index in batch] == indices.tolist()
    for batch in batches:
        assert 0 < len(batch) <= limits.get("max_sentences", size)
        assert len(batch) < multiple or len(batch) % multiple == 0


def sentences_of(lengths, dictionary):
    return [torch.tensor([*range(4, 4 + length), dictionary.eos()]) for length in lengths]


def test_one_sentence_a_sample():
    """``--sample-break-mode eos``, for which fairseq asks numpy for a name that it no longer has."""
    dictionary = Dictionary()
    lengths = np.array([3, 1, 5])
    sentences = sentences_of(lengths, dictionary)
    blocks = TokenBlockDataset(
        sentences, lengths + 1, 512, pad=dictionary.pad(), eos=dictionary.eos(), break_mode="eos"
    )
    assert [block.tolist() for block in blocks] == [sentence.tolist() for sentence in sentences]


def test_buckets_of_lengths():
    """``--num-batch-buckets``, for which fairseq gives numpy an argument under a former name as well."""
    dictionary = Dictionary()
    for number in range(10):
        dictionary.add_symbol(str(number))
    lengths = np.array([2, 9, 4, 3, 8, 5])
    sentences = sentences_of(lengths, dictionary)
    pairs = LanguagePairDataset(
        *(sentences, lengths + 1, dictionary, sentences, lengths + 1, dictionary), num_buckets=2
    )
    batches = pairs.batch_by_size(pairs.ordered_indices(), max_tokens=40, required_batch_size_multiple=1)
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    for batch in batches:
        padded = pairs.collater([pairs[index] for index in batch])["net_input"]["src_tokens"]
        tokens = padded.ne(dictionary.pad()).sum(1)
        assert sorted(tokens.tolist()) == sorted((lengths[batch] + 1).tolist())


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A model, and the log of its training of one epoch, in which nothing is left over by 8 in no set."""
    folder = tmp_path_factory.mktemp("trained")
    log = train_here(data, folder, "--criterion", "labo", "--max-tokens", "6000", "--max-epoch", "1")
    return folder / "checkpoint_last.pt", log


@pytest.fixture(scope="module")
def five(data, tmp_path_factory):
    """The first five lines of a set, prepared as validation and test set."""
    folder = tmp_path_factory.mktemp("five")
    for language in ("de", "en"):
        lines = data.subwords("test", language).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"five.{language}").write_text("".join(lines[:FIVE]), encoding="utf-8")
    dictionary = data.binarized / "dict.de.txt"
    done = run(
        *(command("fairseq-preprocess"), "--source-lang", "de", "--target-lang", "en", "--destdir", folder / "bin"),
        *("--validpref", folder / "five", "--testpref", folder / "five"),
        *("--srcdict", dictionary, "--tgtdict", dictionary),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return folder / "bin"


def fairseq(name, *options):
    """The output of a command of fairseq, run in this process."""
    module = __import__(f"fairseq_cli.{name}", fromlist=["cli_main"])
    output, given = io.StringIO(), sys.argv
    sys.argv = [f"fairseq-{name}", *map(str, options), "--user-dir", USER_DIR, "--max-tokens", "2000"]
    try:
        with contextlib.redirect_stdout(output):
            module.cli_main()
    finally:
        sys.argv = given
    return output.getvalue()


def size_of(data, name):
    return len(data.raw(name, "en").read_text(encoding="utf-8").splitlines())


def test_training(data, trained):
    sentences = sum(record["bsz"] for record in inner(trained[1]).values())
    assert sentences == size_of(data, "train")
    assert sentences % 8 != 0


def nll(output):
    return float(re.findall(r'"valid_nll_loss": "([^"]+)"', output)[-1])


def test_validation(data, trained):
    """In training and by itself, and in batches of any size, it says the same."""
    checkpoint, log = trained
    options = ("--path", checkpoint, "--task", "translation", "--log-format", "json")
    values = [
        nll(fairseq("validate", data.binarized, *options, "--required-batch-size-multiple", multiple))
        for multiple in (1, 8)
    ]
    assert size_of(data, "valid") % 8 != 0
    assert values[0] == pytest.approx(values[1], abs=2e-3)
    assert validations(log)[-1]["nll_loss"] == pytest.approx(values[0], abs=2e-3)


@pytest.mark.parametrize("subset", ["valid", "test"])
def test_generation(data, trained, subset):
    output = fairseq(
        *("generate", data.binarized, "--path", trained[0], "--gen-subset", subset, "--beam", "1", "--max-len-b", "3")
    )
    numbers = sorted(int(number) for number in re.findall(r"^H-(\d+)\t", output, re.MULTILINE))
    assert numbers == list(range(size_of(data, subset)))


def test_five_lines(trained, five):
    output = fairseq("generate", five, "--path", trained[0], "--beam", "1", "--max-len-b", "3")
    assert len(re.findall(r"^H-(\d+)\t", output, re.MULTILINE)) == FIVE
    assert nll(fairseq("validate", five, "--path", trained[0], "--task", "translation", "--log-format", "json")) > 0
