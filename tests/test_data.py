"""Corpora: fetched once and verified, split without leaks, prepared whole or not at all."""

import hashlib
import json
import subprocess
import sys
import zipfile

import pytest
from sacremoses import MosesDetokenizer

from labo_fairseq.commands import run_fairseq
from labo_fairseq.data import fetch
from labo_fairseq.data.bible import load_bible, split_by_chapter
from labo_fairseq.data.prepare import Recipe, prepare, tokenise
from labo_fairseq.errors import UserError
from labo_fairseq.files import locked, read_lines, whole_file, whole_folder, write_lines


def test_bible_is_aligned(bible):
    assert len(bible) == 31102
    assert bible[1, 1, 1] == (
        "Im Anfang schuf Gott den Himmel und die Erde.",
        "In the beginning God created the heaven and the earth.",
    )
    assert all(side.strip() and "\n" not in side for pair in bible.values() for side in pair)


def test_unknown_language(tmp_path):
    with pytest.raises(UserError, match="no language 'xx': choose from de, en, fr"):
        load_bible(tmp_path, "de", "xx")


def test_no_chapter_is_in_two_splits(bible):
    splits = split_by_chapter(bible, 20, 40)
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
    assert splits == split_by_chapter(bible, 20, 40)
    assert splits != split_by_chapter(bible, 20, 40, seed=2)


def test_too_few_chapters(bible):
    with pytest.raises(UserError, match="2 chapters cannot give 1 \\+ 1 and a training set"):
        split_by_chapter({verse: bible[verse] for verse in bible if verse[:2] in ((1, 1), (1, 2))}, 1, 1)


def fake_pip(monkeypatch, content):
    """A package index that serves ``content`` as a.whl, or nothing."""

    def download(command, **_):
        if content is not None:
            with open(f"{command[command.index('--dest') + 1]}/a.whl", "wb") as file:
                file.write(content)
        return subprocess.CompletedProcess(command, 0 if content is not None else 1)

    monkeypatch.setattr(fetch.subprocess, "run", download)


def test_fetched_once_and_verified(tmp_path, monkeypatch):
    sha256 = hashlib.sha256(b"right").hexdigest()
    fake_pip(monkeypatch, b"right")
    assert fetch.fetch_wheel("a==1", "a.whl", sha256, tmp_path / "cache").read_bytes() == b"right"
    fake_pip(monkeypatch, None)
    assert fetch.fetch_wheel("a==1", "a.whl", sha256, tmp_path / "cache").read_bytes() == b"right"


@pytest.mark.parametrize(("content", "message"), [(b"wrong", "expected"), (None, "pip could not download a==1")])
def test_not_fetched(tmp_path, monkeypatch, content, message):
    fake_pip(monkeypatch, content)
    with pytest.raises(UserError, match=message):
        fetch.fetch_wheel("a==1", "a.whl", hashlib.sha256(b"right").hexdigest(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_is_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "a.whl").write_bytes(b"damaged")
    fake_pip(monkeypatch, b"right")
    fetch.fetch_wheel("a==1", "a.whl", hashlib.sha256(b"right").hexdigest(), tmp_path)
    assert (tmp_path / "a.whl").read_bytes() == b"right"


def test_prepared_files_belong_together(corpus, data):
    for split, pairs in corpus.items():
        for side, language in enumerate(("de", "en")):
            raw = list(read_lines(data.raw(split, language)))
            assert raw == [pair[side] for pair in pairs]
            subwords = [line.replace("@@ ", "") for line in read_lines(data.subwords(split, language))]
            assert subwords == tokenise(language, raw)
            detokenised = [MosesDetokenizer(language).detokenize(line.split()) for line in subwords[:20]]
            assert sum(mine == theirs for mine, theirs in zip(detokenised, raw)) >= 18
    dictionaries = [(data.binarised / f"dict.{language}.txt").read_text(encoding="utf-8") for language in ("de", "en")]
    assert dictionaries[0] == dictionaries[1]
    assert data.recipe["bpe_operations"] == 200


def test_preparation_is_the_same_with_more_processes(corpus, data, tmp_path):
    again = prepare(corpus, Recipe("600 verses", "de", "en", bpe_operations=200, workers=2), tmp_path / "again")
    files = ["codes", "bpe/train.de", "bpe/test.en", "bin/dict.de.txt", "bin/train.de-en.en.bin", "recipe.json"]
    for name in files:
        assert (again.folder / name).read_bytes() == (data.folder / name).read_bytes(), name


def test_empty_split_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="the valid set is empty"):
        prepare({"train": [("a", "b")], "valid": [], "test": []}, Recipe("none", "de", "en", 10), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_failing_command_shows_its_last_lines(tmp_path):
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

    for whole, name in ((whole_folder, "folder"), (whole_file, "file.txt")):
        with pytest.raises(RuntimeError):
            half_written(whole, name)
    assert list(tmp_path.iterdir()) == []
    for content in ("old", "new"):
        with whole_folder(tmp_path / "folder") as work:
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


def test_the_wheel_holds_everything(tmp_path):
    from pathlib import Path

    root = Path(__file__).parents[1]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = subprocess.run([*pip, str(tmp_path), str(root)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("labo_fairseq/")}
    assert packed == {str(path.relative_to(root)) for path in (root / "labo_fairseq").rglob("*.py")}
    assert json.dumps(sorted(packed)).count("criterions/labo.py") == 1
