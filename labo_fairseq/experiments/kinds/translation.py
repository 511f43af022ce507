"""Runs that translate: a corpus and a direction."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ...analysis.base import workplace
from ...data.types import Scoring
from ...evaluation.evaluate import compare_on_new_test
from ...evaluation.metrics import find_metric, score, sentence_statistics
from ...evaluation.runs import Run, RunResult, load_run
from ...evaluation.significance import Compared, compare_runs
from ...files import methods
from ...reporting.table import Table
from ...reporting.training_log import parse_record, read_curves
from ..config import takes_teachers
from ..custom import read_test
from ..recipes import Setup, configuration, find, run_config
from ..report import write_report
from .base import Kind, Place, Scored, Shown, Subject

_TAIL_BYTES = 1 << 16  # of a log: enough for the last records of a training


class CorpusSubject(Subject):
    """A corpus and a direction."""

    def __init__(self, setup: Setup, corpus: str) -> None:
        self.setup = setup
        self.name, self.timed_with = setup.corpus.name, corpus
        self.argument = self.direction = setup.direction
        self.checkpoint = setup.training.checkpoint

    def methods(self) -> List[str]:
        return methods()

    def takes_teachers(self, method: str) -> bool:
        return takes_teachers(method)

    def hours(self, method: str) -> Dict[str, float]:
        return self.setup.training.hours

    def config(self, method: str, seed: int, overrides: Sequence[str] = (), smoke: bool = False) -> Dict[str, Any]:
        return run_config(self.setup, method, seed, overrides, smoke)

    def plain(self, method: str, overrides: Sequence[str] = ()) -> Dict[str, Any]:
        return configuration(self.setup, method, overrides)

    def run_folder(self, root: Path, name: str) -> Path:
        return self.setup.run_folder(root, name)


class Translation(Kind):
    """Trained by fairseq, translated by fairseq-generate, scored by sacreBLEU."""

    keys = ("corpus", "directions")
    unscored = "it needs Moses tokens, and their text is in SentencePiece units"

    def find(self, name: str, direction: str, smoke: bool = False) -> CorpusSubject:
        return CorpusSubject(find(name, direction, smoke=smoke), name)

    def load(self, folder: Path) -> Run:
        return load_run(folder)

    def shown(self, metric: str) -> Shown:
        known = find_metric(metric or "bleu")
        return Shown(metric or known.key, known.name(Scoring()), known.lower_is_better, known.digits)

    def scores(self, run: Run, result: RunResult, direction: str, metric: str) -> Dict[Place, Scored]:
        scores = {}
        for pair in run.directions:
            scoring = run.data.scoring_for(pair[1])
            known = find_metric(metric, scoring)
            for test in run.data.tests:
                translation = run.translated(test, pair)
                if known.tokenized and translation.tokens is None:
                    continue
                recorded = result.evaluation.tests[run.data.split(test, *pair)]
                value = next((one for one in recorded if one.name == known.name(scoring)), None)
                rows = sentence_statistics(known, translation, scoring) if known.decomposition else None
                scores[Place("-".join(pair), test)] = Scored(
                    value or score(known, translation, scoring),
                    rows,
                    known.decomposition.corpus_score if known.decomposition else None,
                    held_out=not run.is_validation(test, pair),
                )
        return scores

    def validation_curve(self, log: Path) -> Tuple[List[Tuple[int, float]], str]:
        curves = read_curves(log)["valid"]
        name, label = ("bleu", "BLEU") if "bleu" in curves else ("nll_loss", "NLL (bits)")
        return sorted(curves.get(name, {}).items()), f"validation {label}"

    def progress(self, log: Path, config: Dict[str, Any]) -> str:
        optimization = config["optimization"]
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            records = [parse_record(line) for line in file.read().decode("utf-8", "replace").splitlines()]
        shown = []
        updates = [values for kind, values in filter(None, records) if kind == "train_inner"]
        if updates:
            if optimization.get("max_update"):
                share = updates[-1]["num_updates"] / optimization["max_update"]
            else:
                share = updates[-1]["update"] / optimization["max_epoch"]
            shown.append(f"training {share:4.0%}, perplexity {updates[-1]['ppl']:.4g}")
        valid = [values for kind, values in filter(None, records) if kind == "valid"]
        if valid and "valid_bleu" in valid[-1]:
            shown.append(f"validation BLEU {valid[-1]['valid_bleu']:.2f}")
        return ", ".join(shown) or "starting"

    def compare(
        self, folders: Sequence[Path], test: Sequence[str], metrics: Sequence[str], samples: int
    ) -> List[Compared]:
        runs = [load_run(folder) for folder in folders]
        if len(test) < 2 and not any(Path(name).is_file() for name in test):
            return compare_runs(runs, next(iter(test), None), metrics, samples)
        return compare_on_new_test(runs, read_test([Path(name) for name in test], runs[0].directions), metrics, samples)

    def report(self, folders: Sequence[Path], out: Optional[Path]) -> Tuple[Path, List[Table]]:
        runs = [load_run(folder) for folder in folders]
        with workplace(runs, out) as folder:
            return write_report(runs, folder), []
