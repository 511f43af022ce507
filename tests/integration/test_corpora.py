"""Readers of the corpora, on archives of the campaigns' layout with real text in them."""

import gzip
import os
import pickle
import re
import tarfile
import tracemalloc
from itertools import islice

import campaign
import pytest
import yaml

from labo_fairseq.data.corpora import load_corpus, read_parallel
from labo_fairseq.data.corpora.declaration import load_declaration
from labo_fairseq.data.prepared_corpus import Prepared
from labo_fairseq.errors import UserError
from labo_fairseq.experiments.recipes import find, prepare_corpus
from labo_fairseq.files import shipped_corpora, write_json

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """No test reads or fills the user's own folders."""
    monkeypatch.setenv("LABO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LABO_DATA", raising=False)


def sizes(corpus):
    return {split: sum(1 for _ in pairs) for split, pairs in corpus.items()}


@pytest.fixture(scope="module")
def iwslt14(tmp_path_factory):
    return campaign.iwslt14_de_en(tmp_path_factory.mktemp("iwslt14"))


def test_iwslt14_de_en(iwslt14):
    corpus = load_corpus("iwslt14", "de", "en", iwslt14)
    sentences = [re.sub("</?(title|description)>", "", line) for line in campaign.training_14("de")]
    kept = [line for line in sentences if not line.startswith(("<url>", "<talkid>", "<keywords>"))]
    assert [pair[0] for pair in corpus["train"]] == kept
    assert sizes(corpus) == {"train": len(kept), "test": 6750}
    assert not any(
        re.search("<(url|talkid|keywords|title|description|seg)", side) for pair in corpus["train"] for side in pair
    )
    # a talk's title and description are sentences too: the counts of the recipe include them
    talks = sum(line.startswith("<title>") for line in campaign.training_14("de"))
    assert len(kept) == 6750 + 2 * talks > 6750


def test_iwslt14_test_sets_are_in_the_order_of_the_recipe(iwslt14):
    pairs = list(load_corpus("iwslt14", "de", "en", iwslt14)["test"])
    start = 0
    for name, size in zip(campaign.TED, (887, 1165, 1565, 1433, 1700)):
        for side, language in enumerate(("de", "en")):
            lines = [campaign.sentence(line) for line in campaign.ted(name, language) if line.startswith("<seg")]
            assert [pair[side] for pair in pairs[start : start + size]] == [line.replace("’", "'") for line in lines]
        start += size
    assert any("’" in line for line in campaign.ted("TEDX.dev2012", "en"))


def test_both_directions_read_the_same_archive(iwslt14):
    corpus, back = (load_corpus("iwslt14", *way, iwslt14) for way in (("de", "en"), ("en", "de")))
    for split in corpus:
        assert [pair[::-1] for pair in corpus[split]] == list(back[split])


def test_pairs_can_be_read_again_and_elsewhere(iwslt14):
    corpus = load_corpus("iwslt14", "de", "en", iwslt14)
    first = list(islice(corpus["test"], 900))
    assert list(islice(corpus["test"], 900)) == first
    assert list(islice(pickle.loads(pickle.dumps(corpus))["test"], 900)) == first


def test_archive_may_lie_in_the_folder_itself(iwslt14, tmp_path, monkeypatch):
    os.link(iwslt14 / "iwslt14" / "de-en.tgz", tmp_path / "de-en.tgz")
    monkeypatch.setenv("LABO_DATA", str(tmp_path))
    assert sizes(load_corpus("iwslt14", "en", "de"))["test"] == 6750


def test_iwslt14_fr_en(tmp_path):
    corpus = load_corpus("iwslt14", "fr", "en", campaign.iwslt14_en_fr(tmp_path))
    assert sizes(corpus) == {"train": 5100, "test": 887 + 1664 + 818 + 1124}
    assert next(iter(corpus["test"])) == tuple(campaign.multi30k("train", side)[5000] for side in ("fr", "en"))


def test_iwslt14_fr_en_out_of_the_whole_release(tmp_path):
    inner = campaign.iwslt14_en_fr(tmp_path / "parts") / "iwslt14" / "en-fr.tgz"
    (tmp_path / "release").mkdir()
    with tarfile.open(tmp_path / "release" / "2014-01.tgz", "w:gz") as tar:
        tar.add(inner, "2014-01/texts/en/fr/en-fr.tgz")
    assert sizes(load_corpus("iwslt14", "en", "fr", tmp_path / "release"))["test"] == 4493
    assert {path.name for path in (tmp_path / "cache" / "iwslt14").iterdir()} == {".lock", "en-fr.tgz"}


@pytest.mark.parametrize("source", ["de", "fr"])
def test_iwslt17(tmp_path, source):
    corpus = load_corpus("iwslt17", source, "en", campaign.iwslt17(tmp_path))
    assert list(corpus) == ["train", "valid", "test"]
    assert sizes(corpus)["valid"] == 700
    text = {
        side: campaign.ted_text(side) if source == "de" else campaign.multi30k("train", side) for side in (source, "en")
    }
    expected = [tuple(" ".join(text[side][number].split()) for side in (source, "en")) for number in range(1000, 1200)]
    assert list(corpus["test"]) == expected
    train = list(corpus["train"])
    assert not any(re.search("<[a-z/]", side) or side != side.strip() for pair in train for side in pair)
    talks = sum(line.startswith("<title>") for line in campaign.training_17("de"))
    assert len(train) == (6750 + 2 * talks if source == "de" else 3001)


def test_iwslt17_test_set_is_sacrebleus(tmp_path):
    from sacrebleu.dataset.iwslt_xml import IWSLTXMLDataset

    folder = campaign.iwslt17(tmp_path)
    reader = IWSLTXMLDataset("none", langpairs={})
    for side, (way, language) in enumerate((("de-en", "de"), ("en-de", "en"))):
        member = f"{way}/IWSLT17.TED.tst2017.{way}.{language}.xml"
        with tarfile.open(folder / "iwslt17" / f"tst2017.{way}.tgz") as tar:
            (tmp_path / "set.xml").write_bytes(tar.extractfile(member).read())
        reader._convert_format(str(tmp_path / "set.xml"), str(tmp_path / "set.txt"))
        theirs = (tmp_path / "set.txt").read_text(encoding="utf-8").split("\n")[:-1]
        assert [pair[side] for pair in load_corpus("iwslt17", "de", "en", folder)["test"]] == theirs


def test_wmt14(tmp_path):
    folder = campaign.wmt14(tmp_path)
    corpus = load_corpus("wmt14", "en", "de", folder)
    text = {side: campaign.ted_text(side) for side in ("en", "de")}
    assert list(corpus["train"]) == list(zip(text["en"][:6500], text["de"][:6500]))
    expected = list(zip(text["en"][:3003], text["de"][:3003]))
    assert list(corpus["test"]) == [tuple(side.replace("’", "'") for side in pair) for pair in expected]
    assert [pair[::-1] for pair in load_corpus("wmt14", "de", "en", folder)["test"]] == list(corpus["test"])


def test_large_archive_does_not_stay_in_memory(tmp_path):
    lines = [f"{number} " + "x" * 200 for number in range(100_000)]
    campaign.archive(tmp_path / "a.tgz", {"a.de": lines, "a.en": lines})
    from labo_fairseq.data.corpora.sources import Member, Parallel

    pairs = Parallel(Member(tmp_path / "a.tgz", "a.de"), Member(tmp_path / "a.tgz", "a.en"))
    del lines
    tracemalloc.start()
    assert sum(1 for _ in pairs) == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # of 40 MB


@pytest.mark.parametrize("way", [("de", "en"), ("en", "de"), ("fr", "en"), ("en", "fr")])
def test_multi30k(way):
    corpus = load_corpus("multi30k", *way, campaign.shared("multi30k"))
    assert sizes(corpus) == {
        "train": 29000,
        "valid": 1014,
        "test_2016_flickr": 1000,
        "test_2017_flickr": 1000,
        "test_2017_mscoco": 461,
    }
    for side, language in enumerate(way):
        assert [pair[side] for pair in corpus["valid"]] == campaign.multi30k("val", language)


def test_multi30k_in_a_subfolder():
    assert sizes(load_corpus("multi30k", "de", "en", campaign.shared("multi30k").parent))["valid"] == 1014


def test_own_files(tmp_path):
    (tmp_path / "a.de").write_bytes("Ein\u2028Satz\r\n\nzwei ".encode())
    with gzip.open(tmp_path / "a.en.gz", "wb") as file:
        file.write(b"one sentence\n\ntwo\n")
    pairs = read_parallel(tmp_path / "a.de", tmp_path / "a.en.gz")
    assert list(pairs) == list(pairs) == [("Ein\u2028Satz", "one sentence"), ("", ""), ("zwei ", "two")]


def test_archives_that_are_not_what_they_should_be(tmp_path):
    path = tmp_path / "de-en.tgz"

    def message():
        with pytest.raises(UserError) as error:
            list(load_corpus("iwslt14", "de", "en", tmp_path)["train"])
        assert "\n" not in str(error.value)
        return str(error.value).replace(f"{tmp_path}/", "")

    tags = {"de-en/train.tags.de-en.de": ["Hallo."] * 9, "de-en/train.tags.de-en.en": ["Hello."] * 8}
    campaign.archive(path, tags)
    assert message().startswith("de-en.tgz:de-en/train.tags.de-en.en ends after 8 sentences")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert message().startswith("de-en.tgz is damaged or no tar archive")
    path.write_bytes(b"<html>")
    assert message().startswith("de-en.tgz is damaged or no tar archive")
    campaign.archive(path, {"de-en/train.tags.de-en.de": ["Hallo."]})
    assert message().startswith("de-en.tgz holds no de-en/train.tags.de-en.en")
    campaign.archive(path, {**tags, "de-en/train.tags.de-en.de": ["<url>"]})
    assert message().startswith("de-en.tgz:de-en/train.tags.de-en.de ends after 0 sentences")


def test_a_published_archive_is_recognised(tmp_path):
    (tmp_path / "train.de.gz").write_bytes(b"short")
    with pytest.raises(
        UserError, match=r"train\.de\.gz has 5 bytes, expected 637044: put the published file at .*/multi30k/"
    ):
        load_corpus("multi30k", "de", "en", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("wmt15", "en", "de"),
            "unknown corpus 'wmt15': choose from bible, iwslt14, iwslt17, multi30k, multi30k2k, multi30k8k, "
            "multi30k8k-short, tatoeba, wmt14, name a YAML file, or say custom",
        ),
        (("iwslt17", "en", "de"), "iwslt17 has no en-de: choose from de-en, fr-en"),
        (("multi30k", "de", "fr"), "multi30k has no de-fr: choose from de-en, en-de, fr-en, en-fr"),
    ],
)
def test_unknown_corpora(arguments, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        load_corpus(*arguments)


def test_other_archives_are_another_corpus(tmp_path):
    """Those that the user lists in place of the published ones; the published ones from another place are the same."""
    identities = []
    published = load_declaration("multi30k")
    (name, archive), *_ = published.archives.items()
    for entry in ({"sha256": archive.sha256, "urls": ["https://mirror"]}, {"sha256": "0" * 64}, {"size": 5}, {}):
        (tmp_path / "multi30k.yaml").write_text(yaml.safe_dump({"archives": {name: entry}}))
        corpus = load_declaration("multi30k", tmp_path)
        identities.append(corpus.identity((("de", "en"),)))
    assert identities[0] == published.identity((("de", "en"),)) == "multi30k"
    assert len(set(identities)) == 4
    assert all(re.fullmatch("multi30k, archives [0-9a-f]{16}", identity) for identity in identities[1:])


def test_prepared_text_of_other_archives_is_neither_taken_nor_replaced(tmp_path):
    recipe = find("multi30k", "de-en").recipe.to_json()
    write_json(tmp_path / "data" / "prepared.json", {"recipe": recipe})
    (tmp_path / "multi30k.yaml").write_text(yaml.safe_dump({"archives": {"train.de.gz": {"size": 5}}}))
    other = find("multi30k", "de-en", tmp_path)
    with pytest.raises(UserError, match="data holds another text"):
        prepare_corpus(other, tmp_path / "data", 1, tmp_path)
    assert Prepared(tmp_path / "data").recipe == recipe


def test_archive_folder_must_be_there(tmp_path):
    with pytest.raises(UserError, match=r"the archive folder .*/none is not there"):
        load_corpus("iwslt14", "de", "en", tmp_path / "none")


def test_manifests(tmp_path):
    for corpus in shipped_corpora():
        for archive in load_declaration(corpus).archives.values():
            assert archive.name.startswith(f"{'multi30k' if corpus.startswith('multi30k') else corpus}/")
            assert archive.urls or archive.inside or (archive.pip and archive.sha256)
            assert all(url.startswith("https://") for url in archive.urls)
    (tmp_path / "wmt14.yaml").write_text("archives:\n  a.tgz: {sise: 3}\n")
    with pytest.raises(UserError, match=r"wmt14\.yaml lists no archives \(.*sise.*\): compare it with"):
        load_declaration("wmt14", tmp_path)
    (tmp_path / "wmt14.yaml").write_text("archives: {}\n")
    with pytest.raises(UserError, match=r"the declaration of wmt14 does not list training-parallel-europarl-v7\.tgz"):
        load_corpus("wmt14", "de", "en", tmp_path)
