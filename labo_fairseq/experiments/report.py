"""A page on finished runs of the same data: scores, training, cost, settings, and what the analyses say."""

from pathlib import Path
from typing import Any, Dict, Iterator, Sequence, Tuple

from ..analysis import analyses
from ..analysis.base import AnalysisResult
from ..evaluation.runs import Run, TranslationResult, runs_by_name
from ..files import atomic_write
from ..losses.blockwise import Quantity
from ..reporting.figure import Figure
from ..reporting.html import Block, Details, Paragraph, Section, page
from ..reporting.table import Table
from ..reporting.training_log import compared_panels, paint_compared, read_curves
from .config import to_yaml


def write_report(runs: Sequence[Run], folder: Path) -> Path:
    """Write ``report.html`` and the files of the analyses into ``folder``; the path of the page.

    Raises:
        UserError: runs on different data, or see the analyses.
    """
    systems = runs_by_name(runs)
    results = {name: TranslationResult.read(run.result) for name, run in systems.items()}
    reported = [analysis for analysis in analyses().values() if analysis.in_report]
    analyzed = [analysis.run(runs, folder, **analysis.report_options(runs)) for analysis in reported]
    for result in analyzed:
        result.write(folder)
    corpus = runs[0].data.recipe["corpus"]
    directions = ", ".join("-".join(direction) for direction in runs[0].directions)
    sections = [
        Section("scores", "Scores", list(_scores(results))),
        Section("training", "Training", list(_training(systems, results))),
        Section("settings", "Settings", list(_settings(systems, results))),
        *map(_section, analyzed),
    ]
    path = folder / "report.html"
    baseline, *others = systems
    text = f"A report of labo-fairseq on {baseline}{''.join(f', {name}' for name in others)}"
    text += "; the first is the baseline." if others else "."
    with atomic_write(path) as part:
        part.write_text(page(f"{corpus}, {directions}", text, sections), encoding="utf-8")
    return path


def _scores(results: Dict[str, TranslationResult]) -> Iterator[Block]:
    """A table per test set, a column per metric."""
    evaluations = {name: result.evaluation for name, result in results.items()}
    first = next(iter(evaluations.values()))
    for test in first.tests:
        names = list(dict.fromkeys(score.name for one in evaluations.values() for score in one.tests.get(test, [])))
        rows = []
        for name, evaluation in evaluations.items():
            values = {score.name: f"{score.value:.2f}" for score in evaluation.tests.get(test, [])}
            decoding = evaluation.decoding
            search = (evaluation.checkpoint, str(decoding.beam), f"{decoding.lenpen:g}")
            rows.append((name, *(values.get(metric, "") for metric in names), *search))
        yield Table(test, ("", *names, "checkpoint", "beam", "lenpen"), rows)
    # all sets are scored alike
    yield Paragraph("; ".join(f"{score.name}: {score.signature}" for score in first.tests[test]), faint=True)


def _training(systems: Dict[str, Run], results: Dict[str, TranslationResult]) -> Iterator[Block]:
    curves = {name: read_curves(run.log) for name, run in systems.items()}
    warmups = {name: run.config["criterion"].get("smoothing_warmup_steps") for name, run in systems.items()}
    from ..criterions.base import quantities  # fairseq takes seconds

    logged: Dict[str, Quantity] = {}
    for run in systems.values():
        logged.update(quantities(run.config["criterion"]))
    panels = compared_panels(curves, logged)
    if panels:
        titles = ", ".join(title for title, *_ in panels)
        yield Figure(
            "training",
            f"Curves over updates of {', '.join(systems)}: {titles}.",
            (10.5, 0.6 + 2.7 * -(-len(panels) // 2)),
            lambda figure: paint_compared(figure, curves, warmups, panels),
        )
        if any(warmups.values()):
            yield Paragraph("A dotted line is where a run's smoothing warm-up ends.", faint=True)
    rows = []
    for name, result in results.items():
        cost, updates = result.training, curves[name]["train"].get("nll_loss", {})
        speed = cost.target_tokens_per_second
        numbers = (f"{max(updates):,}" if updates else "", f"{speed:,.0f}" if speed else "")
        rows.append((name, *numbers, f"{cost.peak_memory_mib:,}"))
    yield Table("Cost", ("", "updates", "target tokens/s", "peak memory, MiB"), rows)


def _settings(systems: Dict[str, Run], results: Dict[str, TranslationResult]) -> Iterator[Block]:
    """What differs between the runs, then each run's configuration and versions."""
    flat = {name: dict(_flatten(run.config)) for name, run in systems.items()}
    names = sorted({key for values in flat.values() for key in values})
    differing = [key for key in names if len({values.get(key, "") for values in flat.values()}) > 1]
    if differing:
        rows = [(key, *(values.get(key, "") for values in flat.values())) for key in differing]
        yield Table("What differs between the runs", ("setting", *systems), rows)
    for name, run in systems.items():
        versions = "".join(f"# {package} {version}\n" for package, version in results[name].versions.items())
        yield Details(f"All settings of {name}", versions + to_yaml(run.config))


def _flatten(config: Dict[str, Any], prefix: str = "") -> Iterator[Tuple[str, str]]:
    """Dotted name and value of every setting."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)


def _section(result: AnalysisResult) -> Section:
    return Section(result.name, result.title, [Paragraph(result.text), *result.figures, *result.tables])
