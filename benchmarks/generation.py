"""Sentences a second from a checkpoint to scores: ``labo-fairseq evaluate`` beside fairseq's and sacreBLEU's commands.

  python benchmarks/generation.py runs/multi30k8k/de-en/ls-seed1

Beside it, for each test set: ``fairseq-generate`` with the same search and batches, its ``D-`` lines in order,
``sacremoses detokenize``, ``sacrebleu``. Both take turns; printed are medians of wall-clock and of processor time.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from labo_fairseq.evaluation.generate import Decoding, TestSet, generate_options
from labo_fairseq.evaluation.runs import Run, load_run
from labo_fairseq.files import read_lines, write_json, write_lines


def ours(run: Run, copy: Path) -> None:
    """The command, on a copy of the run that has not been evaluated."""
    shutil.rmtree(copy / "evaluations", ignore_errors=True)
    _call([sys.executable, "-m", "labo_fairseq", "evaluate", str(copy), "--checkpoint", run.checkpoint_name])


def plain(run: Run, folder: Path) -> None:
    """The commands that one would type without it."""
    source, target = run.directions[0]
    for test in run.data.tests:
        wanted = TestSet(test, (source, target), folder / "text")
        options = generate_options(run.data, run.existing_checkpoint(), wanted, Decoding())
        printed = _call([_command("fairseq-generate"), *options])
        lines = (line[2:].split("\t", 2) for line in printed.splitlines() if line.startswith("D-"))
        hypotheses = {int(number): text for number, _, text in lines}
        write_lines(folder / "tokens", [hypotheses[number] for number in sorted(hypotheses)])
        with open(folder / "tokens", encoding="utf-8") as tokens:
            text = _call([_command("sacremoses"), "-l", target, "detokenize"], stdin=tokens)
        wanted.output.write_text(text, encoding="utf-8")
        reference = run.data.raw(run.data.split(test, source, target), target)
        _call([_command("sacrebleu"), str(reference), "-i", str(wanted.output), "-m", "bleu", "chrf"])


def measure(command: Callable[[], None]) -> Dict[str, float]:
    """Seconds of wall-clock and of processor time, of its child processes."""
    start, before = time.perf_counter(), os.times()
    command()
    after = os.times()
    processor = sum(getattr(after, name) - getattr(before, name) for name in ("children_user", "children_system"))
    return {"wall": time.perf_counter() - start, "processor": processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run of one direction")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of both (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON")
    options = parser.parse_args()
    run = load_run(options.run)
    if len(run.directions) != 1:
        parser.error(f"{options.run} has several directions")
    source, target = run.directions[0]
    sentences = sum(
        1 for test in run.data.tests for _ in read_lines(run.data.raw(run.data.split(test, source, target), target))
    )
    rounds: List[Dict[str, Dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns("evaluations", "*.png"))
        result = json.loads(run.result.read_text(encoding="utf-8"))
        write_json(copy / "result.json", {**result, "data": str(run.data.folder.resolve())})
        for _ in range(options.rounds):
            rounds.append(
                {"labo-fairseq": measure(lambda: ours(run, copy)), "plain": measure(lambda: plain(run, Path(folder)))}
            )
    report: Dict[str, Any] = {"sentences": sentences, "tests": len(run.data.tests), "rounds": rounds}
    print(f"{sentences} sentences in {len(run.data.tests)} sets, medians of {options.rounds} rounds")
    for name in rounds[0]:
        seconds = {kind: statistics.median(one[name][kind] for one in rounds) for kind in ("wall", "processor")}
        report[name] = {**seconds, "sentences_per_second": sentences / seconds["wall"]}
        rates = "  ".join(f"{sentences / value:.1f} a second of {kind}" for kind, value in seconds.items())
        print(f"{name:<14}{seconds['wall']:.1f} s, {seconds['processor']:.1f} s of processor time  ({rates})")
    if options.out:
        write_json(options.out, report)


def _call(command: Sequence[str], **kwargs: Any) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", **kwargs).stdout


def _command(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    main()
