"""The campaigns' markup, taken off line by line as the scripts of fairseq and sacreBLEU do it."""

import re
from typing import Iterable, Iterator

#: lines with one of these say something about a talk and are no sentence
TAGS_14 = ("<url>", "<talkid>", "<keywords>")
TAGS_17 = (*TAGS_14, "<speaker>", "<reviewer", "<translator", "<doc", "</doc>")

_KEPT = re.compile("</?(?:title|description)>")
_BEFORE = re.compile(r'<seg id="[0-9]*">\s*', re.ASCII)
_AFTER = re.compile(r"\s*</seg>\s*", re.ASCII)
_SEGMENT = re.compile("<seg.*?>(.*)</seg>.*?")


def sentences_14(lines: Iterable[str]) -> Iterator[str]:
    """Text of ``train.tags.*``, titles and descriptions included: fairseq's ``prepare-iwslt14.sh``."""
    return (_KEPT.sub("", line) for line in lines if not any(tag in line for tag in TAGS_14))


def sentences_17(lines: Iterable[str]) -> Iterator[str]:
    """The same in the layout of 2017: fairseq's ``prepare-iwslt17-multilingual.sh``."""
    return (_KEPT.sub("", line).strip() for line in lines if not any(tag in line for tag in TAGS_17))


def segments(lines: Iterable[str]) -> Iterator[str]:
    """Text of ``<seg id="…">`` lines of XML and SGML sets, with ’ as ' : all of fairseq's scripts."""
    return (_AFTER.sub("", _BEFORE.sub("", line)).replace("’", "'") for line in lines if "<seg id" in line)


def reference_segments(lines: Iterable[str]) -> Iterator[str]:
    """Text of the same lines as sacreBLEU has it in its test sets."""
    return (" ".join(_SEGMENT.sub(r"\1", line).split()) for line in lines if line.startswith("<seg "))
