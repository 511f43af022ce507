"""Corpora: fetched once and verified, split without leaks, prepared whole or not at all."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
from fairseq_runs import command, run, train_command
from sacremoses import MosesDetokenizer

from labo_fairseq.data import archives
from labo_fairseq.data.binarize import binarize
from labo_fairseq.data.corpora import split_by_group
from labo_fairseq.data.corpora.declaration import CleaningRule
from labo_fairseq.data.corpora.readers import read_bible
from labo_fairseq.data.moses import tokenize
from labo_fairseq.data.parallel_map import mapped
from labo_fairseq.data.preprocess import Recipe, prepare
from labo_fairseq.errors import UserError
from labo_fairseq.files import atomic_directory, atomic_write, locked, read_lines, write_lines
from labo_fairseq.subprocesses import run_fairseq

ROOT = Path(__file__).resolve().parents[2]


def test_bible_is_aligned(bible):
    assert len(bible) == 31102
    assert bible[1, 1, 1] == (
        "Im Anfang schuf Gott den Himmel und die Erde.",
        "In the beginning God created the heaven and the earth.",
    )
    assert all(side.strip() and "\n" not in side for pair in bible.values() for side in pair)


def test_unknown_language(tmp_path):
    with pytest.raises(UserError, match="no language 'xx': choose from de, en, fr"):
        read_bible(tmp_path, "de", "xx")


def by_chapter(verses):
    return [(verse[:2], pair) for verse, pair in verses.items()]


def test_no_chapter_is_in_two_splits(bible):
    splits = split_by_group(by_chapter(bible), 20, 40)
    assert sum(map(len, splits.values())) == len(bible)
    where = {}
    # a verse's text can occur in several chapters: follow the order, which the split keeps
    iterators = {split: iter(pairs) for split, pairs in splits.items()}
    upcoming = {split: next(pairs, None) for split, pairs in iterators.items()}
    for verse, pair in bible.items():
        candidates = [split for split in upcoming if upcoming[split] is pair]
        assert len(candidates) == 1
        assert where.setdefault(verse[:2], candidates[0]) == candidates[0]
        upcoming[candidates[0]] = next(iterators[candidates[0]], None)
    chapters = list(where.values())
    assert (chapters.count("valid"), chapters.count("test")) == (20, 40)
    assert splits == split_by_group(by_chapter(bible), 20, 40)
    assert splits != split_by_group(by_chapter(bible), 20, 40, seed=2)


def test_too_few_chapters(bible):
    with pytest.raises(UserError, match="2 chapters cannot give 1 \\+ 1 and a training set"):
        split_by_group([pair for pair in by_chapter(bible) if pair[0] in ((1, 1), (1, 2))], 1, 1, what="chapters")


def fake_pip(monkeypatch, content):
    """A package index that serves ``content`` as a.whl, or nothing."""

    def download(command, **_):
        assert "--only-binary=:all:" in command
        if content is not None:
            with open(f"{command[command.index('--dest') + 1]}/a.whl", "wb") as file:
                file.write(content)
        return subprocess.CompletedProcess(command, 0 if content is not None else 1)

    monkeypatch.setattr(archives.subprocess, "run", download)


def test_fetched_once_and_verified(tmp_path, monkeypatch):
    sha256 = hashlib.sha256(b"right").hexdigest()
    fake_pip(monkeypatch, b"right")
    assert archives.fetch_wheel("a==1", "a.whl", sha256, tmp_path / "cache").read_bytes() == b"right"
    fake_pip(monkeypatch, None)
    assert archives.fetch_wheel("a==1", "a.whl", sha256, tmp_path / "cache").read_bytes() == b"right"


@pytest.mark.parametrize(("content", "message"), [(b"wrong", "expected"), (None, "pip could not download a==1")])
def test_not_fetched(tmp_path, monkeypatch, content, message):
    fake_pip(monkeypatch, content)
    with pytest.raises(UserError, match=message):
        archives.fetch_wheel("a==1", "a.whl", hashlib.sha256(b"right").hexdigest(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_damaged_archive_is_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "a.whl").write_bytes(b"damaged")
    fake_pip(monkeypatch, b"right")
    archives.fetch_wheel("a==1", "a.whl", hashlib.sha256(b"right").hexdigest(), tmp_path)
    assert (tmp_path / "a.whl").read_bytes() == b"right"


def test_prepared_files_belong_together(corpus, data):
    for split, pairs in corpus.items():
        for side, language in enumerate(("de", "en")):
            raw = list(read_lines(data.raw(split, language)))
            assert raw == [pair[side] for pair in pairs]
            subwords = [line.replace("@@ ", "") for line in read_lines(data.subwords(split, language))]
            assert subwords == tokenize(language, raw, escape=False, dash_splits=True)
            assert subwords == list(read_lines(data.tokens(split, language)))
            detokenized = [MosesDetokenizer(language).detokenize(line.split()) for line in subwords[:20]]
            assert sum(mine == theirs for mine, theirs in zip(detokenized, raw)) >= 18
    dictionaries = [(data.binarized / f"dict.{language}.txt").read_text(encoding="utf-8") for language in ("de", "en")]
    assert dictionaries[0] == dictionaries[1]
    assert data.recipe["bpe_operations"] == 200
    assert data.pairs == {split: len(pairs) for split, pairs in corpus.items()}
    assert (data.tests, data.subset("test")) == (["test"], "test")


def test_preparation_is_the_same_with_more_processes(corpus, data, tmp_path):
    again = prepare(corpus, Recipe("600 verses", "de", "en", bpe_operations=200, workers=2), tmp_path / "again")
    files = ["codes", "bpe/train.de", "bpe/test.en", "bin/dict.de.txt", "bin/train.de-en.en.bin", "prepared.json"]
    for name in files:
        assert (again.folder / name).read_bytes() == (data.folder / name).read_bytes(), name


def test_empty_split_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="the valid set is empty"):
        prepare({"train": [("a", "b")], "valid": [], "test": []}, Recipe("none", "de", "en", 10), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_cleaned_and_cut_like_the_scripts_of_fairseq(corpus, tmp_path, capsys):
    """Moses' rule on training pairs alone, then every 5th of those that are left is for validation."""
    rule = CleaningRule(ratio=1.2, minimum=1, maximum=30, unit="tokens")
    pairs = [*corpus["train"], ("", "nothing to translate"), ("nichts", "")]
    recipe = Recipe("cut", "de", "en", bpe_operations=200, lowercase=True, clean=rule, validation_every=5)
    data = prepare({"train": pairs, "test": corpus["test"], "test_more": corpus["valid"]}, recipe, tmp_path / "data")
    kept = []
    for pair in pairs:
        lengths = [
            len(tokenize(*side, escape=False, dash_splits=True)[0].split())
            for side in zip(("de", "en"), ([x] for x in pair))
        ]
        if min(lengths) >= 1 and max(lengths) <= 30 and max(lengths) / min(lengths) <= 1.2:
            kept.append(pair)
    assert 20 < len(kept) < len(pairs) - 20
    said = (
        f"train: {len(pairs) - len(kept)} of {len(pairs)} pairs left out by the cleaning rule: 1 to 30 tokens on a side"
    )
    assert f"{said}, at most 1.2 times as many as on the other" in capsys.readouterr().err
    expected = {
        "train": [pair for number, pair in enumerate(kept, 1) if number % 5],
        "valid": kept[4::5],
        "test": corpus["test"],
        "test_more": corpus["valid"],
    }
    for split, pairs_of in expected.items():
        assert list(zip(*(read_lines(data.raw(split, side)) for side in ("de", "en")))) == list(pairs_of)
        tokens = list(read_lines(data.tokens(split, "en")))
        assert tokens == [line.lower() for line in tokens]
    assert data.pairs == {split: len(pairs_of) for split, pairs_of in expected.items()}
    assert (data.tests, data.subset("test_more")) == (["test", "test_more"], "test1")
    assert (data.binarized / "test1.de-en.de.bin").exists()


def test_cleaned_by_subwords(corpus, tmp_path, capsys):
    rule = CleaningRule(ratio=9.0, minimum=1, maximum=40, unit="subwords")
    recipe = Recipe("subwords", "de", "en", bpe_operations=100, clean=rule)
    data = prepare(corpus, recipe, tmp_path / "data")
    said = capsys.readouterr().err
    for split in ("train", "valid", "test"):
        number, left_out = len(corpus[split]), len(corpus[split]) - data.pairs[split]
        line = f"{split}: {left_out} of {number} pairs left out by the cleaning rule: 1 to 40 subwords on a side"
        assert (line in said) == (left_out > 0)
        sides = [list(read_lines(data.subwords(split, language))) for language in ("de", "en")]
        longest = max(len(line.split()) for side in sides for line in side)
        assert (longest <= 40) == (split != "test")
        assert len(sides[0]) == len(sides[1]) == len(list(read_lines(data.raw(split, "de")))) == data.pairs[split]


@pytest.mark.parametrize("given", [False, True])
def test_binary_files_are_those_of_fairseq(tmp_path, monkeypatch, given):
    """Byte for byte: a dictionary of the training set, or another that lacks tokens; two test sets; odd lines."""
    monkeypatch.setattr("labo_fairseq.data.parallel_map._SMALL", 0)  # in several processes all the same
    draw = random.Random(5)
    tokens = [*(f"t{number}" for number in range(300)), "<unk>", "</s>", "a\u00a0b", "a\u2028b", "c\x85d", "ü"]
    for split in ("train", "valid", "one", "two"):
        for language in ("de", "en"):
            lines = [" ".join(draw.choices(tokens, k=draw.randrange(40))) for _ in range(200)]
            write_lines(tmp_path / f"{split}.{language}", [*lines, "", "  t1  t2 ", "new"])
    dictionary = tmp_path / "dict.txt"
    write_lines(dictionary, ["t3 5", "new 4", "ü 1"])
    prefixes = {split: tmp_path / split for split in ("train", "valid", "one", "two")}
    binarize(prefixes, ("de", "en"), tmp_path / "ours", 2, dictionary if given else None)
    tests = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    options = ("--srcdict", dictionary, "--tgtdict", dictionary) if given else ("--joined-dictionary",)
    done = run(
        *(command("fairseq-preprocess"), "--source-lang", "de", "--target-lang", "en", *options),
        *("--trainpref", tmp_path / "train", "--validpref", tmp_path / "valid", "--testpref", tests),
        *("--destdir", tmp_path / "theirs", "--workers", "2"),
    )
    assert done.returncode == 0, done.stdout
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir() if path.name != "preprocess.log")
    assert len(names) == 2 + 4 * 2 * 2
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == names
    for name in names:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name


def test_a_stream_keeps_its_order_and_runs_only_a_little_ahead():
    taken = []

    def numbers():
        for number in range(20000):
            taken.append(number)
            yield number

    results = mapped(reversed_twice, numbers(), workers=1, what="test")
    assert next(results) == 0
    assert len(taken) < 3000
    assert [0, *results] == list(range(20000))


def reversed_twice(items):
    return list(reversed(list(reversed(items))))


def test_few_lines_start_no_process():
    assert set(mapped(processes_of, range(700), workers=2, what="test")) == {os.getpid()}
    assert os.getpid() not in set(mapped(processes_of, range(1500), workers=2, what="test"))


def processes_of(items):
    return [os.getpid()] * len(items)


@pytest.mark.parametrize("good", [100, 2000])
def test_an_error_in_a_stream_ends_it(good):
    def failing():
        yield from range(good)
        raise UserError("the archive is damaged")

    with pytest.raises(UserError, match="damaged"):
        list(mapped(reversed_twice, failing(), workers=1, what="test"))


def test_failing_command_says_why(tmp_path):
    with pytest.raises(UserError, match=r"fairseq-preprocess ended with status 2; see .*log") as error:
        run_fairseq("preprocess", ["--no-such-option"], tmp_path / "log")
    assert "--no-such-option" in str(error.value)
    assert "--no-such-option" in (tmp_path / "log").read_text(encoding="utf-8")


def test_lines_survive_a_round_trip(tmp_path):
    lines = ["a\u2028b", "", "ü\x85x", "\x0c"]
    write_lines(tmp_path / "file", lines)
    assert list(read_lines(tmp_path / "file")) == lines


def test_whole_or_not_there(tmp_path):
    def half_written(whole, name):
        with whole(tmp_path / name) as work:
            (work / "file" if work.is_dir() else work).write_text("half")
            raise RuntimeError

    folder = partial(atomic_directory, check=lambda: None)
    for whole, name in ((folder, "folder"), (atomic_write, "file.txt")):
        with pytest.raises(RuntimeError):
            half_written(whole, name)
    assert list(tmp_path.iterdir()) == []
    for content in ("old", "new"):
        with folder(tmp_path / "folder") as work:
            (work / content).write_text(content)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]


def test_a_folder_is_for_one_process(tmp_path):
    hold = "import sys, time; from pathlib import Path; from labo_fairseq.files import locked\n"
    hold += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is at work in"), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):
        pass


def test_a_failure_leaves_no_empty_folder(tmp_path):
    def fail(folder):
        with locked(folder):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "new" / "newer")
    assert list(tmp_path.iterdir()) == []
    for kept in ("new/kept", "new/newer/kept"):
        (tmp_path / kept).parent.mkdir()
        (tmp_path / kept).touch()
        with pytest.raises(RuntimeError):
            fail(tmp_path / "new" / "newer")
        assert (tmp_path / kept).exists()
        assert (tmp_path / "new" / "newer").exists() == ("newer" in kept)


def test_a_lock_that_was_removed_by_the_process_that_failed_is_made_again(tmp_path):
    folder = tmp_path / "new"
    hold = "import sys; from pathlib import Path; from labo_fairseq.files import locked\n"
    hold += "with locked(Path(sys.argv[1]), wait=True): print(Path(sys.argv[1], '.lock').exists())"
    with locked(folder):
        other = subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE)
        time.sleep(2)  # it waits
        shutil.rmtree(folder)
    assert other.communicate()[0] == b"True\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as pip builds it, from a copy: a build leaves files in its source folder."""
    source, target = tmp_path_factory.mktemp("source") / "labo", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for name in ("labo_fairseq", "configs", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = run(*pip, target, source)
    assert done.returncode == 0, done.stdout
    return next(target.glob("*.whl"))


def test_the_wheel_holds_everything(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("labo_fairseq/")}
    package = (path for path in (ROOT / "labo_fairseq").rglob("*") if path.is_file() and path.suffix != ".pyc")
    code = {str(path.relative_to(ROOT)) for path in package}
    settings = {f"labo_fairseq/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert packed == code | settings


def test_the_installed_package_is_a_user_dir_from_anywhere(data, wheel, tmp_path):
    """fairseq-train with the unpacked wheel as its --user-dir, away from the checkout; and with the checkout's."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    labo = [sys.executable, "-c", "from labo_fairseq.cli import main; main()"]
    folder = run(*labo, "user-dir", env=environment, cwd=tmp_path).stdout.strip()
    assert folder == str(tmp_path / "site" / "labo_fairseq")
    for user_dir, cwd in ((folder, tmp_path), ("labo_fairseq", ROOT)):
        arguments = train_command(data, tmp_path / "save", "--criterion", "labo", updates=1)
        arguments[arguments.index("--user-dir") + 1] = user_dir
        done = run(*arguments, env=environment if cwd == tmp_path else {}, cwd=cwd)
        assert done.returncode == 0, done.stdout[-3000:]
        shutil.rmtree(tmp_path / "save")
    done = run(
        *labo,
        "config",
        "multi30k_de-en_labo",
        "--data",
        data.binarized,
        "--save-dir",
        "s",
        env=environment,
        cwd=tmp_path,
    )
    assert "_name: labo" in done.stdout
