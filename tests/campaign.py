"""Archives of the campaigns' exact layout, made of the real text at hand.

German and English come from the TED sets of the campaign (with their own markup), French from Multi30k. Each function
writes below ``folder`` what ``--archive-dir folder`` takes, and skips the test where the shared text is absent.
"""

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Dict, Iterable, List

import pytest
import yaml

TED = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
MULTI30K = ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")


def shared(name: str) -> Path:
    """A folder of the shared data, or a skip that says what is missing."""
    root = Path(os.environ.get("LABO_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"no shared text in {root / name}: set LABO_SHARED_DATA to the folder that holds {name}")
    return root / name


def ted(name: str, language: str) -> List[str]:
    """Lines of a TED set's XML, DE-EN."""
    path = shared("iwslt-ted") / "de-en" / f"IWSLT16.{name}.de-en.{language}.xml"
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def multi30k(split: str, language: str) -> List[str]:
    """Lines of Multi30k."""
    with gzip.open(shared("multi30k") / f"{split}.{language}.gz", "rt", encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]


def sentence(line: str) -> str:
    """What a ``<seg>`` line says; other lines as they are."""
    return line.split(">", 1)[1].rsplit("</seg>", 1)[0].strip() if line.startswith("<seg") else line


def ted_text(language: str) -> List[str]:
    """The sentences of all TED sets, without markup."""
    return [sentence(line) for name in TED for line in ted(name, language) if line.startswith("<seg")]


def training_14(language: str) -> List[str]:
    """``train.tags`` of 2014: each talk's url, keywords, title and description in tags, then its sentences, bare."""
    outside = ("<?xml", "<mteval", "</mteval", "<srcset", "</srcset", "<refset", "</refset", "<doc", "</doc")
    return [sentence(line) for name in TED for line in ted(name, language) if not line.startswith(outside)]


def training_17(language: str) -> List[str]:
    """The same of 2017: documents, with more about each talk."""
    people = ["<speaker>Someone</speaker>", '<reviewer href="a">A</reviewer>', '<translator href="b">B</translator>']
    lines = []
    for name in TED:
        for line in ted(name, language):
            if line.startswith(("<doc", "</doc")):
                lines.append(line)
            elif line.startswith("<url"):
                lines.extend([line, *people])
            elif line.startswith(("<keywords", "<talkid", "<title", "<description", "<seg")):
                lines.append(sentence(line) + "  ")
    return lines


def xml(sentences: Iterable[str]) -> List[str]:
    """A set of one talk, as the campaign writes it."""
    head = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<mteval>",
        '<srcset setid="set" srclang="any">',
        '<doc docid="1">',
    ]
    segments = (f'<seg id="{number}"> {text} </seg>' for number, text in enumerate(sentences, 1))
    return [*head, "<url>http://www.ted.com</url>", *segments, "</doc>", "</srcset>", "</mteval>"]


def archive(path: Path, members: Dict[str, List[str]]) -> Path:
    """A tar.gz of text files, member name → lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, lines in members.items():
            content = "".join(line + "\n" for line in lines).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def own_manifest(folder: Path, corpus: str) -> None:
    """Says that the archives in ``folder/corpus`` are the right ones, though they are not the published ones."""
    names = sorted(path.name for path in (folder / corpus).iterdir())
    text = yaml.safe_dump({"archives": {name: {"size": (folder / corpus / name).stat().st_size} for name in names}})
    (folder / f"{corpus}.yaml").write_text(text, encoding="utf-8")


def iwslt14_de_en(folder: Path) -> Path:
    """``iwslt14/de-en.tgz``: 6,750 test pairs."""
    members = {f"de-en/train.tags.de-en.{side}": training_14(side) for side in ("de", "en")}
    members.update({f"de-en/IWSLT14.{name}.de-en.{side}.xml": ted(name, side) for name in TED for side in ("de", "en")})
    archive(folder / "iwslt14" / "de-en.tgz", members)
    return folder


def iwslt14_en_fr(folder: Path) -> Path:
    """``iwslt14/en-fr.tgz``: 4,493 test pairs."""
    members = {}
    for side in ("en", "fr"):
        text = multi30k("train", side)
        talks = (["<url>u</url>", "<title>T</title>", *text[start : start + 50]] for start in range(0, 5000, 50))
        members[f"en-fr/train.tags.en-fr.{side}"] = [line for talk in talks for line in talk]
        start = 5000
        for name, size in (("dev2010", 887), ("tst2010", 1664), ("tst2011", 818), ("tst2012", 1124)):
            members[f"en-fr/IWSLT14.TED.{name}.en-fr.{side}.xml"] = xml(text[start : start + size])
            start += size
    archive(folder / "iwslt14" / "en-fr.tgz", members)
    return folder


def iwslt17(folder: Path) -> Path:
    """``iwslt17/*.tgz`` for de-en and fr-en, and a manifest that accepts them."""
    years = ("dev2010", *(f"tst{year}" for year in range(2010, 2016)))
    text = {"de": ted_text("de"), "fr": multi30k("train", "fr")}
    english = {"de": ted_text("en"), "fr": multi30k("train", "en")}
    for source in ("de", "fr"):
        pair, sides = f"{source}-en", {source: text[source], "en": english[source]}
        members = {}
        for side, lines in sides.items():
            talk = ['<doc docid="1">', "<url>u</url>", "<title> T </title>", *lines[:3000], "</doc>"]
            members[f"{pair}/train.tags.{pair}.{side}"] = training_17(side) if source == "de" else talk
            for number, year in enumerate(years):
                chunk = lines[100 * number : 100 * (number + 1)]
                members[f"{pair}/IWSLT17.TED.{year}.{pair}.{side}.xml"] = xml(chunk)
        archive(folder / "iwslt17" / f"{pair}.tgz", members)
        for way, side in ((pair, source), (f"en-{source}", "en")):
            member = f"{way}/IWSLT17.TED.tst2017.{way}.{side}.xml"
            archive(folder / "iwslt17" / f"tst2017.{way}.tgz", {member: xml(sides[side][1000:1200])})
    own_manifest(folder, "iwslt17")
    return folder


def wmt14(folder: Path) -> Path:
    """``wmt14/*.tgz`` for en-de: 6,500 training pairs, 3,003 test pairs, and a manifest that accepts them."""
    sides = {side: ted_text(side) for side in ("de", "en")}
    stems = {
        "training-parallel-europarl-v7.tgz": ("training/europarl-v7.{}-en.{}", 0, 4000),
        "training-parallel-commoncrawl.tgz": ("commoncrawl.{}-en.{}", 4000, 6000),
        "training-parallel-nc-v9.tgz": ("training/news-commentary-v9.{}-en.{}", 6000, 6500),
    }
    for name, (stem, start, end) in stems.items():
        members = {stem.format("cs", "cs"): ["Ahoj."], stem.format("cs", "en"): ["Hello."]}
        members.update({stem.format("de", side): lines[start:end] for side, lines in sides.items()})
        archive(folder / "wmt14" / name, members)
    sgm = {
        f"test-full/newstest2014-deen-{role}.{side}.sgm": xml(lines[:3003])[1:]
        for side, lines in sides.items()
        for role in ("src", "ref")
    }
    archive(folder / "wmt14" / "test-full.tgz", sgm)
    own_manifest(folder, "wmt14")
    return folder
