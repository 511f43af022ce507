"""The paper's corpora as raw pairs: what fairseq's script for each feeds to its tokenizer, and nothing more.

Left to :mod:`labo_fairseq.data.preprocess`: tokenizing, normalizing punctuation, lower-casing, dropping pairs by length
and ratio, cutting the validation set out of the training set where there is no "valid", subwords.

========  ============  ========================================================================================
corpus    languages     splits
========  ============  ========================================================================================
iwslt14   de-en, fr-en  train; test: several TED sets, in the order of ``prepare-iwslt14.sh``
iwslt17   de→en, fr→en  train; valid: the sets that ``prepare-iwslt17-multilingual.sh`` lists; test: tst2017
wmt14     de-en         train: Europarl v7, Common Crawl, News Commentary v9; test: newstest2014 (full)
multi30k  de-en, fr-en  train, valid, test_2016_flickr, test_2017_flickr, test_2017_mscoco
bible     de, en, fr    train, valid, test: not the paper's, but pip can fetch it
========  ============  ========================================================================================
"""

from functools import lru_cache, partial
from itertools import permutations
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Optional, Tuple

from ...errors import UserError
from ..archives import Archive, archive_folder, cache_folder, fetch, load_manifest
from ..bible import TRANSLATIONS, load_bible, split_by_chapter
from ..types import Corpus
from .markup import reference_segments, segments, sentences_14, sentences_17
from .sources import Joined, Member, Parallel, TextFile, read_parallel

__all__ = ["CORPORA", "load_corpus", "read_parallel"]

#: file name in the manifest → its path on this machine
Fetch = Callable[[str], Path]


def load_corpus(name: str, source: str, target: str, archive_dir: Optional[Path] = None) -> Corpus:
    """Raw pairs of a corpus by split; streams that can be read again and again, also in another process.

    Its archives are fetched first, see :func:`labo_fairseq.data.archives.fetch`; nothing is unpacked.

    Raises:
        UserError: an unknown corpus or direction, an archive that cannot be had; while reading, a damaged one.
    """
    if name not in CORPORA:
        raise UserError(f"unknown corpus {name!r}: choose from {', '.join(CORPORA)}")
    corpus = CORPORA[name]
    if (source, target) not in corpus.directions:
        directions = ", ".join("-".join(direction) for direction in corpus.directions)
        raise UserError(f"{name} has no {source}-{target}: choose from {directions}")
    given = archive_folder(archive_dir)

    @lru_cache(maxsize=None)  # read once, by a corpus that has one
    def archives() -> Dict[str, Archive]:
        return load_manifest(name, given)

    def get(file: str) -> Path:
        if file not in archives():
            raise UserError(f"the manifest of {name} does not list {file}")
        return fetch(archives()[file], cache_folder(), given)

    return corpus.load(source, target, get)


def _iwslt14(source: str, target: str, get: Fetch) -> Corpus:
    pair, sets = _SETS_14["fr" if "fr" in (source, target) else "de"]
    member = partial(Member, get(f"{pair}.tgz"))
    train = Parallel(*(member(f"{pair}/train.tags.{pair}.{side}") for side in (source, target)), sentences_14)
    tests = (
        Parallel(*(member(f"{pair}/IWSLT14.{name}.{pair}.{side}.xml") for side in (source, target)), segments)
        for name in sets
    )
    return {"train": train, "test": Joined(tuple(tests))}


#: language beside English → name of the campaign's pair, its sets in the order of the test set
_SETS_14 = {
    "de": ("de-en", ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")),
    "fr": ("en-fr", ("TED.dev2010", "TED.tst2010", "TED.tst2011", "TED.tst2012")),
}


def _iwslt17(source: str, target: str, get: Fetch) -> Corpus:
    pair, back = f"{source}-{target}", f"{target}-{source}"
    member = partial(Member, get(f"{pair}.tgz"))
    train = Parallel(*(member(f"{pair}/train.tags.{pair}.{side}") for side in (source, target)), sentences_17)
    valid = (
        Parallel(*(member(f"{pair}/IWSLT17.TED.{name}.{pair}.{side}.xml") for side in (source, target)), segments)
        for name in _VALID_17
    )
    # the campaign published no references: that of a direction is the source of the other
    test = (
        Member(get(f"tst2017.{way}.tgz"), f"{way}/IWSLT17.TED.tst2017.{way}.{side}.xml")
        for way, side in ((pair, source), (back, target))
    )
    return {"train": train, "valid": Joined(tuple(valid)), "test": Parallel(*test, reference_segments)}


#: fairseq's script names them all, but writes each over the one before, so that its validation set is tst2015 alone
_VALID_17 = ("dev2010", "tst2010", "tst2011", "tst2012", "tst2013", "tst2014", "tst2015")


def _wmt14(source: str, target: str, get: Fetch) -> Corpus:
    train = []
    for archive, stem in _TRAIN_WMT.items():
        member = partial(Member, get(archive))
        train.append(Parallel(*(member(f"{stem}.{side}") for side in (source, target))))
    member = partial(Member, get("test-full.tgz"))
    roles = (("src", source), ("ref", target))
    test = (member(f"test-full/newstest2014-deen-{role}.{side}.sgm") for role, side in roles)
    return {"train": Joined(tuple(train)), "test": Parallel(*test, segments)}


_TRAIN_WMT = {
    "training-parallel-europarl-v7.tgz": "training/europarl-v7.de-en",
    "training-parallel-commoncrawl.tgz": "commoncrawl.de-en",
    "training-parallel-nc-v9.tgz": "training/news-commentary-v9.de-en",
}


def _multi30k(source: str, target: str, get: Fetch) -> Corpus:
    return {
        split: Parallel(*(TextFile(get(f"{file}.{side}.gz")) for side in (source, target)))
        for split, file in _SPLITS_30K.items()
    }


_SPLITS_30K = {
    "train": "train",
    "valid": "val",
    **{test: test for test in ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")},
}


def _bible(source: str, target: str, get: Fetch) -> Corpus:
    verses = load_bible(cache_folder(), source, target)
    chapters = len({verse[:2] for verse in verses})
    return split_by_chapter(verses, chapters // 60, chapters // 30)


class _Entry(NamedTuple):
    directions: Tuple[Tuple[str, str], ...]
    load: Callable[[str, str, Fetch], Corpus]


_FROM_ENGLISH = (("en", "de"), ("en", "fr"))
_INTO_ENGLISH = (("de", "en"), ("fr", "en"))

CORPORA: Dict[str, _Entry] = {
    "iwslt14": _Entry(_INTO_ENGLISH + _FROM_ENGLISH, _iwslt14),
    "iwslt17": _Entry(_INTO_ENGLISH, _iwslt17),
    "wmt14": _Entry((("en", "de"), ("de", "en")), _wmt14),
    "multi30k": _Entry(_INTO_ENGLISH + _FROM_ENGLISH, _multi30k),
    "bible": _Entry(tuple(permutations(TRANSLATIONS, 2)), _bible),
}
