"""Corpora of the user's own: files as people have them, one YAML file, any language, from command to BLEU."""

import bz2
import gzip
import io
import json
import lzma
import random
import re
import shutil
import subprocess
import zipfile
from itertools import islice
from pathlib import Path

import campaign
import pytest
import yaml
from fairseq_runs import command, run

from labo_fairseq.cli import main
from labo_fairseq.data.corpora import load_corpus
from labo_fairseq.data.corpora.declaration import load_declaration
from labo_fairseq.data.prepared_corpus import Prepared
from labo_fairseq.data.preprocess import Recipe, prepare
from labo_fairseq.data.preprocess_sentencepiece import SentencePieceRecipe, prepare_sentencepiece
from labo_fairseq.errors import UserError
from labo_fairseq.experiments import sizing
from labo_fairseq.experiments.custom import declare
from labo_fairseq.experiments.grid import load_grid
from labo_fairseq.experiments.recipes import find, run_config
from labo_fairseq.files import read_lines, shipped_corpora, write_lines
from labo_fairseq.yaml_files import load_yaml

LABO = command("labo-fairseq")
PAIRS = [(f"Satz {number}.", f"Sentence {number} & more.") for number in range(30)]
#: a training of seconds
QUICK = (
    *("optimization.max_update=12", "dataset.max_tokens=400", "checkpoint.save_interval_updates=6"),
    *("model.encoder.layers=1", "model.decoder.layers=1", "model.encoder.embed_dim=32", "model.decoder.embed_dim=32"),
)


def lines(side):
    return "".join(pair[side] + "\n" for pair in PAIRS).encode()


def tsv():
    return "".join(f"{target}\t{source}\tsome attribution\n" for source, target in PAIRS).encode()


def tmx(head="", code="en-US"):
    units = "".join(
        f'<tu><note>x</note><tuv xml:lang="de"><seg>{source}</seg></tuv>'
        f'<tuv xml:lang="{code}"><seg><bpt i="1">&lt;b&gt;</bpt>{target.replace("&", "&amp;")}</seg></tuv></tu>'
        for source, target in PAIRS
    )
    one_language = '<tu><tuv xml:lang="de"><seg>Nur Deutsch.</seg></tuv></tu>'
    text = f'<?xml version="1.0"?>{head}<tmx version="1.4"><header/><body>{units}{one_language}</body></tmx>'
    return text.encode()


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)
    return content.getvalue()


#: id → files of one text, and how a corpus file names them
FORMS = {
    "plain": ({"a.de": lines(0), "a.en": lines(1)}, "a.{language}"),
    "gz": ({"a.de.gz": gzip.compress(lines(0)), "a.en.gz": gzip.compress(lines(1))}, "a.{language}.gz"),
    "xz and bz2": (
        {"a.de.xz": lzma.compress(lines(0)), "b.en.bz2": bz2.compress(lines(1))},
        {"file": ["a.de.xz", "b.en.bz2"]},
    ),
    "TSV": ({"a.tsv": tsv()}, {"file": "a.tsv", "columns": ["en", "de"]}),
    "packed TSV": ({"a.tsv.gz": gzip.compress(tsv())}, {"file": "a.tsv.gz", "columns": ["en", "de"]}),
    "TMX": ({"a.tmx": tmx('<!DOCTYPE tmx SYSTEM "tmx14.dtd">')}, "a.tmx"),
    "packed TMX": ({"a.tmx.xz": lzma.compress(tmx(code="EN"))}, "a.tmx.xz"),
    "Moses' zip": (
        {"a.zip": zipped(README="x", LICENSE="y", A__de_en__de=lines(0), A__de_en__en=lines(1), A__de_en__ids="z")},
        "a.zip",
    ),
    "OPUS' zip of a TMX": ({"a.zip": zipped(README="x", a__tmx=tmx())}, "a.zip"),
    "a member": (
        {"a.zip": zipped(x__de=lines(0), x__en=lines(1), y__de="a", y__en="b")},
        {"file": "a.zip", "member": "x.{language}"},
    ),
}


def corpus_file(folder, splits, **sections):
    path = folder / "mine.yaml"
    content = {"pairs": ["de-en"], "splits": splits, **sections}
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("files", "part"), FORMS.values(), ids=FORMS)
def test_files_as_people_have_them(tmp_path, files, part):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    name = corpus_file(tmp_path, dict.fromkeys(("train", "valid", "test"), part))
    corpus = load_corpus(name, "de", "en")
    assert list(corpus["train"]) == list(corpus["train"]) == PAIRS
    assert [pair[::-1] for pair in load_corpus(name, "en", "de")["test"]] == PAIRS


def test_several_files_and_the_first_pairs(tmp_path):
    for name, content in {"a.de": lines(0), "a.en": lines(1), "b.tsv": tsv()}.items():
        (tmp_path / name).write_bytes(content)
    both = ["a.{language}", {"file": "b.tsv", "columns": ["en", "de"], "first": 7}]
    corpus = load_corpus(corpus_file(tmp_path, {"train": both, "valid": both[1], "news": both[0]}), "de", "en")
    assert list(corpus["train"]) == PAIRS + PAIRS[:7]
    assert [list(corpus)[2], len(list(corpus["valid"]))] == ["news", 7]


pytestmark = pytest.mark.once

ENTITY = '<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
#: id → the file, what is said about it
BAD_FILES = {
    "an XML entity": ("a.tmx", tmx(ENTITY), "a.tmx has an XML entity"),
    "an XML entity of another file": (
        "a.tmx",
        tmx('<!DOCTYPE t [<!ENTITY a SYSTEM "/etc/passwd">]>'),
        "has an XML entity",
    ),
    "no XML": ("a.tmx", b"text", "a.tmx is no TMX"),
    "a TMX that is cut": ("a.tmx", tmx()[:900], "a.tmx is no TMX"),
    "a TMX of other languages": ("a.tmx", tmx(code="fr"), "has no translation unit in both de and en"),
    "a TMX that is no xz": ("a.tmx.xz", tmx(), "cannot be read"),
    "one column": ("a.tsv", b"a\tb\nc\n", "a.tsv, line 2: 1 columns"),
    "an empty TSV": ("a.tsv", b"", "no sentence in"),
    "no zip": ("a.zip", b"text", "is damaged or no zip archive"),
    "a zip without a text": ("a.zip", zipped(README="x"), "holds no text in de and en"),
    "a zip with two": ("a.zip", zipped(a__de="1", a__en="2", b__de="3", b__en="4"), "holds several texts in de and en"),
    "a file that is not there": ("b.tsv", b"", "there is no file"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_that_are_not_what_they_should_be(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    named = name if name.startswith("a") else "a.tsv"
    with pytest.raises(UserError) as refused:
        list(load_corpus(corpus_file(tmp_path, dict.fromkeys(("train", "valid", "test"), named)), "de", "en")["train"])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


SPLITS = {"train": "a.{language}", "valid": "a.{language}", "test": "a.{language}"}
#: id → content of a corpus file, what is said about it
BAD_DECLARATIONS = {
    "nothing": (None, "None is no set of KEY: VALUE"),
    "an unknown key": ({"pairs": ["de-en"], "splits": SPLITS, "color": 1}, "unknown key color: choose from archives"),
    "no pair": ({"splits": SPLITS}, "neither pairs, such as"),
    "a pair that is none": ({"pairs": ["german"], "splits": SPLITS}, "'german' is no direction"),
    "no splits": ({"pairs": ["de-en"]}, "no splits: where does the text of de-en lie"),
    "no test set": ({"pairs": ["de-en"], "splits": {"train": "a", "valid": "a"}}, "de-en has no test set"),
    "no validation set": ({"pairs": ["de-en"], "splits": {"train": "a", "test": "a"}}, "de-en has no valid set"),
    "a text that is not cut": ({"pairs": ["de-en"], "text": "a"}, "give text and cut together"),
    "a cut into nothing": (
        {"pairs": ["de-en"], "text": "a", "cut": {"by": "en", "valid": 0, "test": 1}},
        "valid of cut is 0",
    ),
    "first of nothing": ({"pairs": ["de-en"], "splits": {**SPLITS, "test": {"file": "a", "first": 0}}}, "first is 0"),
    "an unknown tokenizer": (
        {"pairs": ["de-en"], "splits": SPLITS, "preprocessing": {"tokenizer": "x"}},
        "tokenizer is 'x': choose moses or sentencepiece",
    ),
    "no subwords": ({"pairs": ["de-en"], "splits": SPLITS, "preprocessing": {"subwords": 0}}, "subwords is 0"),
    "a training without a model": (
        {"pairs": ["de-en"], "splits": SPLITS, "training": {}},
        "training: no model, schedule; write model, schedule and settings as the corpus file of a 'run custom' has",
    ),
    "hours that are none": (
        {"pairs": ["de-en"], "splits": SPLITS, "training": {"model": "a", "schedule": "b", "hours": {"cpu": 0}}},
        "hours of cpu is 0: it must be a number above 0",
    ),
    "a name with a slash": ({"name": "a/b", "pairs": ["de-en"], "splits": SPLITS}, "the name 'a/b' must be letters"),
    "a name that is a folder": ({"name": "..", "pairs": ["de-en"], "splits": SPLITS}, "the name '..' must be letters"),
    "a test set outside": (
        {"pairs": ["de-en"], "splits": {**SPLITS, "../../x": "a"}},
        "the test set '../../x' must have a name of letters",
    ),
    "a test set in a folder": (
        {"pairs": {"de-en": {**SPLITS, "news/2014": "a"}}},
        "the test set 'news/2014' must have a name of letters",
    ),
    "a test set that is a number": (
        {"pairs": ["de-en"], "splits": {**SPLITS, 2014: "a"}},
        "the test set 2014 must have a name of letters",
    ),
    "splits that are a number": ({"pairs": ["de-en"], "splits": 5}, "5 is no set of KEY: VALUE"),
    "like nothing": ({"like": "x"}, "like 'x': choose from bible, iwslt14"),
    "splits and a cut": (
        {"pairs": ["de-en"], "splits": SPLITS, "text": "a", "cut": {"by": "en", "valid": 1, "test": 1}},
        "splits, and text to be cut: give one of them",
    ),
    "archives that are none": (
        {"pairs": ["de-en"], "splits": SPLITS, "archives": {"a": {"sise": 1}}},
        "no list of archives",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_DECLARATIONS.values(), ids=BAD_DECLARATIONS)
def test_files_that_declare_no_corpus(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_declaration(str(path))
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_corpus_like_another():
    """The shipped corpus' declaration, with what is declared on top, key by key."""
    other, own = map(load_declaration, ("multi30k8k", "multi30k2k"))
    (train,) = own.texts["de", "en"]["train"]
    assert (train.file, train.first) == (("train.{language}.gz",), 2000)
    for name in ("archives", "pairs", "preprocessing", "scoring"):
        assert getattr(own, name) == getattr(other, name)
    assert own.training.groups == other.training.groups
    assert own.training.settings["criterion.smoothing_warmup_steps"] == 60
    assert (own.name, own.title) == ("multi30k2k", "Multi30k, the first 2,000 pairs")
    config = run_config(find("multi30k8k-short", "de-en"), "labo", 1)
    assert (config["optimization"]["max_epoch"], config["criterion"]["smoothing_warmup_steps"]) == (10, 60)


@pytest.mark.parametrize(
    "change",
    [
        {"splits": {**SPLITS, "train": {"file": "a.{language}", "first": 1}}},
        {"splits": {**SPLITS, "train": {"file": "a.{language}", "first": 2}}},
        {"splits": {**SPLITS, "valid": "b.{language}"}},
        {"splits": {**SPLITS, "test": "b.{language}"}},
        {"splits": {**SPLITS, "train": ["a.{language}", "a.{language}"]}},
        {"splits": None, "text": "a.{language}", "cut": {"by": "en", "valid": 1, "test": 1}},
        {"splits": None, "text": "a.{language}", "cut": {"by": "en", "valid": 1, "test": 1, "seed": 2}},
    ],
)
def test_another_text_is_another_corpus(tmp_path, change):
    """What changes in the file that declares a corpus, or in its files, is not taken for what was prepared before."""
    for name, number in (("a", 1), ("b", 2)):
        for language in ("de", "en"):
            (tmp_path / f"{name}.{language}").write_text(f"{number} {language}\n", encoding="utf-8")
    path = tmp_path / "mine.yaml"

    def identities(**changes):
        content = {"pairs": ["de-en"], "splits": SPLITS, **changes}
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value}), encoding="utf-8")
        declaration = load_declaration(str(path))
        return [declaration.identity((pair,)) for pair in (("de", "en"), ("en", "de"))]

    plain, other = identities(), identities(**change)
    assert plain[0] == plain[1], "one preparation serves both directions"
    assert other[0] == other[1] != plain[0]
    assert identities() == plain
    (tmp_path / "a.en").write_text("3 en\n", encoding="utf-8")
    assert identities()[0] != plain[0]


def test_a_key_that_stands_twice(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("pairs: [de-en]\npairs: [fr-en]\n", encoding="utf-8")
    with pytest.raises(UserError, match="the key 'pairs' stands twice"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("pairs", "model", "epochs"),
    [(100, "transformer_tiny", 200), (6_000, "transformer_small", 40), (30_000, "transformer_small", 40)],
)
def test_what_is_chosen_grows_with_the_corpus(tmp_path, capsys, pairs, model, epochs):
    for language in ("de", "en"):
        text = "".join(f"{number} words that stand in a line of some length\n" for number in range(pairs))
        (tmp_path / f"a.{language}").write_text(text, encoding="utf-8")
    setup = find(corpus_file(tmp_path, SPLITS), "de-en")
    assert setup.training.groups["model"] == model
    assert setup.training.settings["optimization.max_epoch"] == epochs
    config = run_config(setup, "labo", 1)
    warmup = config["criterion"]["smoothing_warmup_steps"]
    updates = int(re.search(r"about ([\d,]+) updates", capsys.readouterr().err).group(1).replace(",", ""))
    assert warmup == max(20, min(5000, updates * 7 // 100))
    assert 50 <= config["lr_scheduler"]["warmup_updates"] <= max(50, updates // 8)


def test_a_smoke_test_says_what_it_trains(tmp_path, capsys):
    for side, language in enumerate(("de", "en")):
        (tmp_path / f"a.{language}").write_bytes(lines(side))
    setup = find(corpus_file(tmp_path, SPLITS), "de-en", smoke=True)
    updates = run_config(setup, "labo", 1, smoke=True)["optimization"]["max_update"]
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"mine: in a smoke test {updates} updates of a tiny model instead"


def test_sizes_are_those_of_the_measured_corpus(tmp_path):
    """fairseq makes 84 updates in each epoch of multi30k8k, whose training the tier follows."""
    pairs = islice(load_corpus("multi30k", "de", "en", campaign.shared("multi30k"))["train"], 8000)
    training, updates = sizing._training(sizing.TIERS[1], sizing.measure([pairs]))
    assert training.settings["optimization.max_epoch"] == 40
    assert updates == pytest.approx(40 * 84, rel=0.02)


def test_a_text_that_gives_fewer_units_than_were_chosen(tmp_path, capsys):
    recipe = SentencePieceRecipe("few", (("de", "en"),), 500)
    splits = {"train": PAIRS, "valid": PAIRS[:5], "test": PAIRS[5:9]}
    data = prepare_sentencepiece({("de", "en"): splits}, recipe, tmp_path / "data")
    (most,) = re.findall(r"the training set gives (\d+) SentencePiece units, not 500", capsys.readouterr().err)
    units = list(read_lines(data.folder / "dict.txt"))
    assert len(units) + 3 == int(most) < 500  # beside <unk>, <s> and </s>
    assert data.recipe == recipe.to_json()


@pytest.mark.parametrize(("moses", "maximum"), [(True, None), (False, None), (False, 100)])
def test_training_pairs_with_an_empty_side_are_left_out_and_counted(tmp_path, capsys, moses, maximum):
    """Those cut out of the training text for validation, too; a test set keeps its lines."""
    blank = [("Etwas.", ""), (" ", "Something."), ("\u3000", "")]
    splits = {"train": [*PAIRS[:9], *blank, *PAIRS[9:]], "test": [*PAIRS[5:9], ("", "Nothing.")]}
    if moses:
        data = prepare(splits, Recipe("few", "de", "en", 50, validation_every=10), tmp_path / "data")
    else:
        recipe = SentencePieceRecipe("few", (("de", "en"),), 120, maximum, validation_every=10)
        data = prepare_sentencepiece({("de", "en"): splits}, recipe, tmp_path / "data")
    raw = {split: list(zip(*(read_lines(data.raw(split, side)) for side in ("de", "en")))) for split in data.pairs}
    assert sorted(raw["train"] + raw["valid"]) == sorted(PAIRS)
    shown = capsys.readouterr().err
    assert "train: 2 pairs left out for an empty side, the first is pair 10 (de)" in shown
    assert "valid: 1 pairs left out for an empty side, the first is pair 1 (en)" in shown
    assert raw["test"] == splits["test"]


def test_pairs_longer_than_a_corpus_allows_are_counted(tmp_path, capsys):
    recipe = SentencePieceRecipe("few", (("de", "en"),), 120, maximum=25)
    splits = {"train": [*PAIRS, ("Satz 1 " * 26, "Sentence 1.")], "valid": PAIRS[:5], "test": PAIRS[5:9]}
    data = prepare_sentencepiece({("de", "en"): splits}, recipe, tmp_path / "data")
    assert data.pairs["train"] == 30
    line = "train: 1 of 31 pairs left out by the cleaning rule: at most 25 units on a side"
    assert line in capsys.readouterr().err


def test_sets_that_repeat_training_pairs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    splits = {"train": PAIRS[:22], "valid": [*PAIRS[21:], PAIRS[28]], "known": PAIRS[16:26], "news": PAIRS[22:]}
    splits["news"] += [(source, target + " Other.") for source, target in PAIRS]  # one side alone is no repeated pair
    for name, pairs in splits.items():
        for side, language in enumerate(("de", "en")):
            write_lines(tmp_path / f"{name}.{language}", (pair[side] for pair in pairs))
    files = [[f"{name}.de", f"{name}.en"] for name in splits]
    options = zip(("--train", "--valid", "--test", "--test"), files)
    command = ["prepare", "custom", "de-en", "--destdir", "data", "--bpe-operations", "40", "--workers", "1"]
    assert main([*command, *(word for option, names in options for word in (option, *names))]) == 0
    (warned,) = [line for line in capsys.readouterr().err.splitlines() if "training pairs too" in line]
    assert warned == ("6 of 10 pairs of known (60%) are training pairs too: its scores say little about new text")


def test_placeholders_and_readers_that_are_not_known(tmp_path):
    (tmp_path / "a.de").write_bytes(lines(0))
    for part, message in (
        ("a.{tongue}", "unknown placeholder"),
        ({"file": "a.de", "reader": "x"}, "unknown reader 'x'"),
    ):
        with pytest.raises(UserError, match=message):
            load_corpus(corpus_file(tmp_path, dict.fromkeys(("train", "valid", "test"), part)), "de", "en")


def test_tatoeba_is_split_by_english_sentence():
    corpus = load_corpus("tatoeba", "de", "en", campaign.shared("tatoeba"))
    assert sum(map(len, corpus.values())) == 169813
    english = {split: {re.sub(r"\W+", " ", pair[1]).casefold().strip() for pair in corpus[split]} for split in corpus}
    assert not english["train"] & (english["valid"] | english["test"]) - {""}
    assert not english["valid"] & english["test"]
    assert corpus == load_corpus("tatoeba", "de", "en", campaign.shared("tatoeba"))


def test_multi30k8k_is_the_first_8000_pairs():
    folder = campaign.shared("multi30k")
    corpus, whole = (load_corpus(name, "de", "en", folder) for name in ("multi30k8k", "multi30k"))
    train = list(corpus["train"])
    assert (len(train), train) == (8000, list(whole["train"])[:8000])
    assert list(corpus)[2:] == [*list(whole)[2:], "val"], "the main test set is the first"
    setup = find("multi30k8k", "de-en")
    config = run_config(setup, "labo", 1)
    assert (setup.recipe.bpe_operations, setup.recipe.lowercase) == (2000, True)
    assert (config["dataset"]["max_tokens"], config["optimization"]["lr"]) == (2048, [0.0015])
    assert (config["optimization"]["max_epoch"], config["lr_scheduler"]["warmup_updates"]) == (40, 400)
    assert config["criterion"]["smoothing_warmup_steps"] == 250
    assert "smoothing_warmup_steps" not in run_config(setup, "ls", 1)["criterion"]


def test_wmt14_scores_with_compounds_split_by_its_declaration(tmp_path):
    assert load_declaration("wmt14").scoring.split_compounds
    # also in a folder that an older version prepared; a name means nothing
    for corpus, split in (("wmt14", True), ("wmt14, first 2000 and 50 pairs", True), ("wmt14-mine", False)):
        (tmp_path / "prepared.json").write_text(json.dumps({"recipe": {"corpus": corpus}}), encoding="utf-8")
        assert Prepared(tmp_path).scoring_for("de").split_compounds is split


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    """A few hundred pairs of English and Chinese that a grammar makes, in files of three kinds."""
    folder = tmp_path_factory.mktemp("chinese")
    subjects = [("我", "I"), ("他", "he"), ("老师", "the teacher"), ("孩子", "the child"), ("猫", "the cat")]
    verbs = [("看见", "see"), ("喜欢", "like"), ("找到", "find"), ("忘记", "forget"), ("记得", "remember")]
    objects = [("苹果", "apples"), ("红色的花", "red flowers"), ("大房子", "big houses"), ("新书", "new books")]
    times = [("今天", "today"), ("昨天晚上", "last night"), ("明天", "tomorrow"), ("在学校里", "at school")]
    pairs = [
        (f"{t[1]}, {s[1]} will {v[1]} {o[1]}.", f"{t[0]}，{s[0]}{v[0]}{o[0]}。")
        for s in subjects
        for v in verbs
        for o in objects
        for t in times
    ]
    random.Random(1).shuffle(pairs)
    for name, chosen in {
        "a": pairs[:200],
        "valid": pairs[300:330],
        "news": pairs[330:350],
        "talks": pairs[350:360],
    }.items():
        for side, language in enumerate(("en", "zh")):
            (folder / f"{name}.{language}").write_text("".join(f"{pair[side]}\n" for pair in chosen), encoding="utf-8")
    (folder / "b.tsv").write_text("".join(f"{en}\t{zh}\n" for en, zh in pairs[200:300]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(chinese):
    """The runs of two methods on these files, from one command each, and what the first printed."""
    shown = {}
    for method in ("labo", "ls"):
        done = run(
            *(LABO, "run", "custom", "en-zh", "--criterion", method, "--folder", "runs", "--workers", "1"),
            *("--train", "a.en", "a.zh", "--train", "b.tsv", "--valid", "valid.en", "valid.zh"),
            *("--test", "news.en", "news.zh", "--test", "talks.en", "talks.zh", *QUICK),
            cwd=chinese,
            env={"NUM_GPUS": "0"},
        )
        assert done.returncode == 0, done.stdout[-3000:]
        shown[method] = done.stdout
    return chinese / "runs" / "custom", shown


def test_chinese_from_command_to_bleu(finished):
    folder, shown = finished
    assert "custom: no Moses rules for zh, so raw text in SentencePiece units" in shown["labo"]
    chosen = r"custom: 300 training pairs; chosen: \d+ SentencePiece units; transformer_tiny, .*, smoothing warm-up \d+"
    assert re.search(chosen, shown["labo"])
    result = json.loads((folder / "en-zh" / "labo-seed1" / "result.json").read_text(encoding="utf-8"))
    assert list(result["evaluation"]["tests"]) == ["news", "talks"]
    for name, number in (("news", 20), ("talks", 10)):
        scores = result["evaluation"]["tests"][name]
        assert [score["name"] for score in scores] == ["BLEU", "chrF2"]
        assert "tok:zh" in scores[0]["signature"]
        assert len(list(read_lines(folder / "en-zh" / "labo-seed1" / "translations" / f"{name}.zh"))) == number
    data = Prepared(folder / "data-en-zh")
    assert data.pairs == {"train": 300, "valid": 30, "news": 20, "talks": 10}
    assert data.scoring_for("en").tokenize == "13a"
    assert data.uses_sentencepiece
    assert not data.multilingual
    # the full-width comma stays what it is
    assert any("，" in line for line in read_lines(data.subwords("train", "zh")))


def test_its_test_set_named_again_has_the_same_scores(finished, capsys):
    folder, _ = finished
    place, data = folder / "en-zh" / "labo-seed1", Prepared(folder / "data-en-zh")
    files = [str(data.raw("talks", language)) for language in ("en", "zh")]
    assert main(["evaluate", str(place), "--json", "--test", *files]) == 0
    first = json.loads((place / "result.json").read_text(encoding="utf-8"))["evaluation"]
    assert json.loads(capsys.readouterr().out) == {**first, "tests": {"talks": first["tests"]["talks"]}}


def test_all_commands_work_on_it(finished):
    folder, _ = finished
    ls, labo = (str(folder / "en-zh" / f"{method}-seed1") for method in ("ls", "labo"))
    for arguments in (
        ("evaluate", labo, "--beam", "1"),
        ("compare", ls, labo, "--samples", "50"),
        ("analyse", "frequency", ls, labo),
        ("report", ls, labo),
    ):
        done = run(LABO, *arguments)
        assert done.returncode == 0, (arguments, done.stdout[-2000:])
    assert "tok:zh" in run(LABO, "compare", ls, labo, "--samples", "50").stdout
    done = subprocess.run(
        [LABO, "translate", labo, "--beam", "1"],
        input="today, I see apples.\n\n",
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")) == 3


def test_the_corpus_file_that_a_run_leaves_is_the_same_corpus(finished):
    """So a grid finds the finished run."""
    folder, _ = finished
    name = str(folder / "data-en-zh.yaml")
    setup = find(name, "en-zh")
    data = Prepared(folder / "data-en-zh")
    assert setup.recipe.to_json() == data.recipe
    path = folder / "grid.yaml"
    settings = {key: [yaml.safe_load(value)] for key, _, value in (setting.partition("=") for setting in QUICK)}
    block = {
        "corpus": "data-en-zh.yaml",
        "directions": ["en-zh"],
        "methods": ["ls", "labo"],
        "seeds": [1],
        "settings": settings,
    }
    path.write_text(yaml.safe_dump({"grid": [block]}), encoding="utf-8")
    (job, _) = load_grid(str(path)).jobs
    assert job.folder(folder.parent).parent == folder / "en-zh"
    assert (job.corpus_name, set(job.settings) <= set(QUICK)) == ("custom", True)


def test_another_text_under_the_same_name_is_refused(finished, chinese):
    done = run(
        *(LABO, "run", "custom", "en-zh", "--folder", "runs", "--train", "valid.en", "valid.zh"),
        *("--valid", "valid.en", "valid.zh", "--test", "news.en", "news.zh", "--bpe-operations", "200", *QUICK),
        cwd=chinese,
        env={"NUM_GPUS": "0"},
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("labo-fairseq run: runs/custom/data-en-zh holds another text")


def test_a_corpus_is_added_by_one_file(chinese):
    """The toy corpus: one YAML file and no other, then it runs; several directions in one model."""
    content = {
        "multilingual": ["en-zh", "zh-en"],
        "splits": {"train": "a.{language}", "valid": "valid.{language}", "test": "news.{language}"},
        "preprocessing": {"subwords": 250},
        "training": {"model": "transformer_tiny", "schedule": "multi30k8k"},
    }
    (chinese / "toy.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    done = run(
        *(LABO, "run", "toy.yaml", "multilingual", "--folder", "runs", *QUICK),
        cwd=chinese,
        env={"NUM_GPUS": "0"},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    result = json.loads((chinese / "runs/toy/multilingual/labo-seed1/result.json").read_text(encoding="utf-8"))
    tests = result["evaluation"]["tests"]
    assert list(tests) == ["test.en-zh", "test.zh-en"]
    assert ["tok:zh" in tests["test.en-zh"][0]["signature"], "tok:13a" in tests["test.zh-en"][0]["signature"]] == [
        True
    ] * 2
    assert result["settings"]["config"]["task"]["encoder_langtok"] == "tgt"


def test_japanese_without_mecab_is_refused_before_anything_is_prepared(chinese, tmp_path):
    try:
        import MeCab  # noqa: F401
    except ImportError:
        for split in ("a", "valid", "news"):
            for old, new in (("en", "en"), ("zh", "ja")):
                shutil.copy(chinese / f"{split}.{old}", tmp_path / f"{split}.{new}")
        done = run(
            *(LABO, "run", "custom", "en-ja", "--train", "a.en", "a.ja", "--valid", "valid.en", "valid.ja"),
            *("--test", "news.en", "news.ja"),
            cwd=tmp_path,
            env={"NUM_GPUS": "0"},
        )
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1].endswith("pip install 'labo-fairseq[ja]'")
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "run custom de-en,fr-en --train a b --valid a b --test a b",
            "several directions in one model need a corpus file",
        ),
        ("run custom de-en --train a b c --valid a b --test a b", "--train takes one file with both languages, or two"),
        ("run custom de-en --train a b --valid a b --test a b", "there is no file a"),
        ("run custom pt-br-fr --train a b --valid a b --test a b", "can be read in 2 ways"),
        ("run gone.yaml de-en", "no such file: gone.yaml"),
    ],
)
def test_commands_that_are_refused(tmp_path, arguments, message):
    done = run(LABO, *arguments.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_missing_validation_set_has_two_remedies():
    with pytest.raises(UserError, match=r"no valid set: name its files with --valid .*--validation-every N$"):
        declare("de-en", {"train": [[Path("a")]], "test": [[Path("a")]]})
    with pytest.raises(UserError, match=r"no test set: name its files with --test SOURCE TARGET$"):
        declare("de-en", {"train": [[Path("a")]]})


def test_nothing_knows_a_corpus_by_its_name():
    package = Path(load_declaration.__code__.co_filename).resolve().parents[2]
    sources = [path for path in package.rglob("*.py") if path.name != "readers.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    literals = set(re.findall(r"""["']([\w-]+)["']""", text))
    assert not literals & set(shipped_corpora())
