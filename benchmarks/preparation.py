"""Speed and memory of preparing a corpus, stage by stage, beside the scripts that fairseq publishes for WMT'14.

  python benchmarks/preparation.py                           10,000 and 100,000 pairs of the Bible, which pip can fetch
  python benchmarks/preparation.py --archive-dir DIR --moses CHECKOUT --pairs 1000000

Text: the training sets of the Bible and, where --archive-dir has them, of Multi30k and Tatoeba, German and English,
joined to lines of 25 words, as WMT'14 has them. Beyond its end the text is repeated with other words: so many of its
rare words are replaced by new ones, made of halves of two, that the vocabulary goes on growing as Heaps' law says:
types ~ words^β, with β from the two halves of the text.

Stages, as for WMT'14 (Moses' normalization, tokens with -a and escaping, 40,000 joint merges, at most 250 units and a
ratio of 1.5), all of them with --workers processes where they take several:

  read       raw text to the folder of a preparation; of the scripts, cat
  normalize  punctuation and control characters: normalize-punctuation.perl, remove-non-printing-char.perl
  tokenize   tokenizer.perl -threads WORKERS -a
  learn      counting words and learning merges: subword-nmt's learn_bpe.py
  apply      merges, and dropping pairs by length: subword-nmt's apply_bpe.py, clean-corpus-n.perl
  binarize   fairseq-preprocess
  whole      a preparation from raw text to binary files, in one command

lines    pairs a second by the clock
cpu      seconds of processor time, of all processes
memory   MiB at the peak: the proportional set size (shared pages count once) of all processes of the stage

Without --moses, a checkout of Moses with its Perl scripts, only what needs no Perl is measured of the scripts. Every
file of the two pipelines is compared; "same" says whether they are equal to the last byte.
"""

import argparse
import math
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from labo_fairseq.data import moses
from labo_fairseq.data.binarize import binarize
from labo_fairseq.data.corpora import load_corpus
from labo_fairseq.data.corpora.declaration import CleaningRule
from labo_fairseq.data.parallel_map import mapped
from labo_fairseq.data.preprocess import Recipe, learn_joint_bpe, load_bpe, prepare
from labo_fairseq.data.types import Pair
from labo_fairseq.errors import UserError
from labo_fairseq.files import digest_of, read_lines, write_json, write_lines

LANGUAGES = ("de", "en")
WORDS = 25  # a line
WMT14 = 4_508_785  # pairs
CORPORA = ("bible", "multi30k", "tatoeba")
STAGES = ("read", "normalize", "tokenize", "learn", "apply", "binarize", "whole")


class Measured(NamedTuple):
    seconds: float
    cpu: float
    memory: float  # MiB


class Text:
    """Pairs, as many as are asked for."""

    def __init__(self, archive_dir: Optional[Path]) -> None:
        self.corpora: List[str] = []
        pairs: List[Pair] = []
        for name in CORPORA:
            try:
                pairs += load_corpus(name, *LANGUAGES, archive_dir)["train"]
                self.corpora.append(name)
            except UserError as error:
                print(f"without {name}: {error}", file=sys.stderr)
        self._lines = list(_joined(pairs))
        counts = [Counter(word for line in self._lines for word in line[side]) for side in (0, 1)]
        first = [Counter(w for line in self._lines[: len(self._lines) // 2] for w in line[side]) for side in (0, 1)]
        self.types = [len(count) for count in counts]
        #: Heaps' exponent of each language
        self.beta = [math.log2(len(all_) / len(half)) for all_, half in zip(counts, first)]
        self._rare = [sorted(word for word, n in count.items() if n <= 3 and word.isalpha()) for count in counts]

    def pairs(self, number: int) -> Iterator[Pair]:
        """The first ``number`` pairs."""
        for repetition in range(-(-number // len(self._lines))):
            renamed = [self._new_words(side, repetition) for side in (0, 1)]
            for source, target in self._lines[: number - repetition * len(self._lines)]:
                yield (
                    " ".join([renamed[0].get(word, word) for word in source]),
                    " ".join([renamed[1].get(word, word) for word in target]),
                )

    def _new_words(self, side: int, repetition: int) -> Dict[str, str]:
        """Rare word → what stands for it in a repetition; nothing in the text itself."""
        beta, rare = self.beta[side], self._rare[side]
        wanted = self.types[side] * ((repetition + 1) ** beta - repetition**beta) if repetition else 0
        draw = random.Random(repetition)
        replaced = draw.sample(rare, min(len(rare), round(wanted)))
        others = draw.choices(rare, k=len(replaced))
        return {word: word[: len(word) // 2] + other[len(other) // 2 :] for word, other in zip(replaced, others)}


def _joined(pairs: Iterable[Pair]) -> Iterator[Tuple[List[str], List[str]]]:
    source: List[str] = []
    target: List[str] = []
    for pair in pairs:
        source += pair[0].split()
        target += pair[1].split()
        if len(target) >= WORDS:
            yield source, target
            source, target = [], []


# --- our stages: each reads files of the one before and writes its own, as the scripts do ---


def recipe(merges: int, workers: int) -> Recipe:
    rule = CleaningRule(ratio=1.5, minimum=1, maximum=250, unit="subwords")
    return Recipe(
        *("benchmark", *LANGUAGES, merges),
        **{"escape": True, "normalize": True, "clean": rule, "validation_every": 100, "workers": workers},
    )


def read_pairs(folder: Path) -> Iterator[Pair]:
    return zip(*(read_lines(folder / f"train.{language}") for language in LANGUAGES))


def write_pairs(folder: Path, pairs: Iterable[Pair]) -> None:
    folder.mkdir(exist_ok=True)
    source, target = (folder / f"train.{language}" for language in LANGUAGES)
    with open(source, "w", encoding="utf-8", newline="\n") as first, open(target, "w", encoding="utf-8") as second:
        for one, other in pairs:
            first.write(one + "\n")
            second.write(other + "\n")


def normalize_lines(pairs: List[Pair]) -> List[Pair]:
    sides = zip(LANGUAGES, zip(*pairs))
    return list(zip(*(moses.remove_non_printing(moses.normalize_punctuation(la, list(side))) for la, side in sides)))


def tokenize_lines(pairs: List[Pair]) -> List[Pair]:
    return list(zip(*(moses.tokenize(la, list(side), True, True) for la, side in zip(LANGUAGES, zip(*pairs)))))


def segment_lines(codes: Path, pairs: List[Pair]) -> List[Pair]:
    process = load_bpe(codes).process_line
    segmented = [(process(source), process(target)) for source, target in pairs]
    return [pair for pair in segmented if moses.passes_length_filter(*pair, 1.5, 1, 250)]


def our_stage(stage: str, work: Path, merges: int, workers: int) -> None:
    ours = work / "ours"
    ours.mkdir(exist_ok=True)
    if stage == "read":
        write_pairs(ours / "raw", read_pairs(work))
    elif stage == "normalize":
        write_pairs(ours / stage, mapped(normalize_lines, read_pairs(work), workers, stage))
    elif stage == "tokenize":
        write_pairs(ours / stage, mapped(tokenize_lines, read_pairs(ours / "normalize"), workers, stage))
    elif stage == "learn":
        learn_joint_bpe([ours / "tokenize" / f"train.{la}" for la in LANGUAGES], ours / "codes", merges, workers)
    elif stage == "apply":
        function = partial(segment_lines, ours / "codes")
        write_pairs(ours / stage, mapped(function, read_pairs(ours / "tokenize"), workers, stage))
    elif stage == "binarize":
        prefixes = {"train": ours / "apply" / "train", "valid": work / "valid", "test": work / "valid"}
        binarize(prefixes, LANGUAGES, ours / "bin", workers)
    else:
        some = list(zip(*(read_lines(work / f"valid.{la}") for la in LANGUAGES)))
        prepare({"train": read_pairs(work), "test": some}, recipe(merges, workers), ours / "whole")


def published(stage: str, work: Path, merges: int, workers: int, scripts: Optional[Path]) -> Optional[str]:
    """The command of fairseq's prepare-wmt14en2de.sh; None where it has none, or no Perl script to call."""
    old, bpe = work / "published", f"{sys.executable} -m subword_nmt."
    perl = f"perl {scripts}/scripts"
    made = f"mkdir -p {old}/raw {old}/normalize {old}/tokenize {old}/bpe {old}/apply"
    # without Perl, the other scripts get what ours made
    before = old if scripts else work / "ours"
    commands = {
        "read": [made, *(f"cat {work}/train.{la} > {old}/raw/train.{la}" for la in LANGUAGES)],
        "normalize": [
            f"perl {scripts}/scripts/tokenizer/normalize-punctuation.perl -l {la} < {old}/raw/train.{la}"
            f" | {perl}/tokenizer/remove-non-printing-char.perl > {old}/normalize/train.{la}"
            for la in LANGUAGES
        ],
        "tokenize": [
            f"{perl}/tokenizer/tokenizer.perl -q -threads {workers} -a -l {la} < {old}/normalize/train.{la}"
            f" > {old}/tokenize/train.{la}"
            for la in LANGUAGES
        ],
        "learn": [
            made,
            f"cat {before}/tokenize/train.de {before}/tokenize/train.en > {old}/joint",
            f"{bpe}learn_bpe -s {merges} < {old}/joint > {old}/codes",
        ],
        "apply": [
            f"{bpe}apply_bpe -c {old}/codes < {before}/tokenize/train.{la} > {old}/bpe/train.{la}" for la in LANGUAGES
        ],
        "binarize": [
            f"{sys.executable} -m fairseq_cli.preprocess --source-lang de --target-lang en --joined-dictionary"
            f" --trainpref {before}/apply/train --validpref {work}/valid --testpref {work}/valid"
            f" --destdir {old}/bin --workers {workers}"
        ],
    }
    if scripts:
        commands["apply"] += [
            f"{perl}/training/clean-corpus-n.perl -ratio 1.5 {old}/bpe/train de en {old}/apply/train 1 250"
        ]
    elif stage in ("normalize", "tokenize"):
        return None
    return " && ".join(commands[stage]) if stage in commands else None


# --- measuring ---


def measure(function: Callable[..., None], *arguments: Any) -> Measured:
    """A call in a fresh process; time without its start, memory with all that it starts."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_timed, args=(sender, function, arguments))
    process.start()
    ended, peak = Event(), [0.0]
    watcher = Thread(target=_watch, args=(process.pid, ended, peak))
    watcher.start()
    process.join()
    ended.set()
    watcher.join()
    if process.exitcode:
        raise SystemExit(f"{arguments[0]} failed")
    return Measured(*receiver.recv(), peak[0])


def _timed(sender: Any, function: Callable[..., None], arguments: Tuple[Any, ...]) -> None:
    before, start = _cpu(), time.perf_counter()
    function(*arguments)
    sender.send((time.perf_counter() - start, _cpu() - before))


def _cpu() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _watch(pid: Optional[int], ended: Event, peak: List[float]) -> None:
    while not ended.wait(0.1):
        peak[0] = max(peak[0], _memory(pid))


def _memory(pid: Optional[int]) -> float:
    """MiB of a process and its descendants."""
    total, waiting = 0.0, [str(pid)]
    while waiting:
        process = Path("/proc") / waiting.pop()
        try:
            rollup = (process / "smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
            for task in (process / "task").iterdir():
                waiting += (task / "children").read_text().split()
        except (OSError, StopIteration):  # it has ended
            continue
    return total


def shell(command: str) -> None:
    """Run a command of the published scripts."""
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout.decode()[-2000:]}")


def same(stage: str, work: Path) -> Optional[bool]:
    """Whether both pipelines wrote the same files in a stage; None where there is nothing to compare."""
    names = {"learn": ["codes"], "binarize": ["bin/dict.de.txt", *_binaries()]}
    files = names.get(stage, [f"{'raw' if stage == 'read' else stage}/train.{la}" for la in LANGUAGES])
    sides = [[work / side / name for name in files] for side in ("ours", "published")]
    if not all(path.exists() for side in sides for path in side):
        return None
    return all(digest_of(one) == digest_of(other) for one, other in zip(*sides))


def _binaries() -> List[str]:
    return [f"bin/train.de-en.{la}.{ending}" for la in LANGUAGES for ending in ("bin", "idx")]


def rows_of(text: Text, number: int, options: argparse.Namespace) -> List[Dict[str, Any]]:
    """A row per stage for ``number`` pairs."""
    rows = []
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        write_pairs(work, text.pairs(number))
        for language in LANGUAGES:
            some = list(islice(read_lines(work / f"train.{language}"), 1000))
            write_lines(work / f"valid.{language}", moses.tokenize(language, some))
        for stage in STAGES:
            mine = measure(our_stage, stage, work, options.merges, options.workers)
            command = published(stage, work, options.merges, options.workers, options.moses)
            theirs = measure(shell, command) if command and not options.ours else None
            rows.append({"pairs": number, "stage": stage, "ours": _figures(mine, number)})
            rows[-1]["published"] = _figures(theirs, number) if theirs else None
            rows[-1]["same"] = same(stage, work) if theirs else None
            print(_line(rows[-1]), file=sys.stderr)
        shutil.rmtree(work / "ours")
    measured = [row["published"] for row in rows if row["published"]]
    if len(measured) == len(STAGES) - 1:
        whole: Dict[str, Any] = {key: sum(figures[key] for figures in measured) for key in ("seconds", "cpu")}
        whole.update(lines=number / whole["seconds"], memory=max(figures["memory"] for figures in measured))
        rows[-1]["published"] = whole
    return rows


def _figures(measured: Measured, number: int) -> Dict[str, float]:
    return {**measured._asdict(), "lines": number / measured.seconds}


def _line(row: Dict[str, Any]) -> str:
    cells = [f"{row['pairs']:>9,}", row["stage"]]
    for figures in (row["ours"], row["published"]):
        cells += [f"{figures[key]:,.0f}" for key in ("lines", "memory")] if figures else ["–", "–"]
        cells.insert(-1, f"{figures['cpu']:,.1f}" if figures else "–")
    cells.append(f"{row['published']['seconds'] / row['ours']['seconds']:.1f}" if row["published"] else "–")
    cells.append({True: "yes", False: "NO", None: "–"}[row["same"]])
    return "| " + " | ".join(cells) + " |"


def table(rows: List[Dict[str, Any]]) -> str:
    """Markdown."""
    heads = ["pairs", "stage", "lines/s", "CPU s", "MiB", "scripts: lines/s", "CPU s", "MiB", "× as fast", "same"]
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *map(_line, rows)])


def projection(rows: List[Dict[str, Any]]) -> Dict[str, float]:
    """Hours for WMT'14, by the speed at the largest size that was measured."""
    largest = max(row["pairs"] for row in rows)
    (whole,) = (row for row in rows if row["pairs"] == largest and row["stage"] == "whole")
    sides = {side: whole[side] for side in ("ours", "published") if whole[side]}
    return {side: WMT14 / figures["lines"] / 3600 for side, figures in sides.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000], metavar="N")
    parser.add_argument("--merges", type=int, default=40_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--moses", type=Path, metavar="DIR", help="a checkout of Moses, for its Perl scripts")
    parser.add_argument("--archive-dir", type=Path, metavar="DIR", help="archives of Multi30k and Tatoeba")
    parser.add_argument("--ours", action="store_true", help="leave the published scripts out")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for temporary files: some 4 GB for a million pairs")
    parser.add_argument("--out", type=Path, default=Path("results/preparation/preparation.json"), metavar="FILE")
    options = parser.parse_args()
    text = Text(options.archive_dir)
    rows = [row for number in options.pairs for row in rows_of(text, number, options)]
    hours = projection(rows)
    print(table(rows))
    for side, value in hours.items():
        print(f"WMT'14, {side}: {value:.1f} hours")
    setting = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "workers": options.workers,
        "merges": options.merges,
        "corpora": text.corpora,
        "heaps": dict(zip(LANGUAGES, text.beta)),
        "wmt14_hours": hours,
    }
    write_json(options.out, {**setting, "rows": rows})
    options.out.with_suffix(".md").write_text(table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
