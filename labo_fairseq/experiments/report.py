"""A page on finished runs of the same data: scores, training, cost, settings, and what the analyses say."""

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from ..analysis.base import Analysis
from ..analysis.hypotheses import runs_by_name
from ..data.types import Pair
from ..evaluation.training_log import read_curves
from ..files import read_lines, whole_file
from ..reporting.figure import Figure
from ..reporting.html import Section, details, page, paragraph, picture, table
from ..reporting.table import Table
from ..reporting.training_curves import compared_panels, paint_compared
from .analyses import analyse_confidence, analyse_frequency, analyse_labels
from .config import to_yaml
from .run import Run

_EXAMPLE = range(5, 11)  # words of the sentence whose labels are shown

Results = Dict[str, Dict[str, Any]]  # run → what its result.json holds


def write_report(runs: Sequence[Run], folder: Path) -> Path:
    """Write ``report.html`` and the files of the analyses into ``folder``; the path of the page.

    Raises:
        UserError: see :func:`analyse_frequency`, :func:`analyse_confidence` and :func:`analyse_labels`.
    """
    systems = runs_by_name(runs)
    results = {name: json.loads(run.result.read_text(encoding="utf-8")) for name, run in systems.items()}
    direction = runs[0].directions[0]
    analyses = [
        analyse_frequency(runs, folder),
        analyse_confidence(runs, folder),
        analyse_labels(runs, direction, *_example(runs[0], direction), {}),
    ]
    for each in analyses:
        each.write(folder)
    corpus = runs[0].data.recipe["corpus"]
    directions = ", ".join("-".join(each) for each in runs[0].directions)
    sections = [
        Section("scores", "Scores", list(_scores(results))),
        Section("training", "Training", list(_training(systems, results))),
        Section("settings", "Settings", list(_settings(systems, results))),
        *map(_section, analyses),
    ]
    path = folder / "report.html"
    baseline, *others = systems
    text = f"A report of labo-fairseq on {baseline}{''.join(f', {name}' for name in others)}"
    text += "; the first is the baseline." if others else "."
    with whole_file(path) as part:
        part.write_text(page(f"{corpus}, {directions}", text, sections), encoding="utf-8")
    return path


def _example(run: Run, direction: Pair) -> Pair:
    """The first short pair of the main test set, or the shortest."""
    name = run.data.split(run.data.tests[0], *direction)
    pairs = [pair for pair in zip(*(read_lines(run.data.raw(name, side)) for side in direction)) if all(pair)]
    short = [pair for pair in pairs if all(len(side.split()) in _EXAMPLE for side in pair)]
    return short[0] if short else min(pairs, key=lambda pair: len(" ".join(pair)))


def _scores(results: Results) -> Iterator[str]:
    """A table a test set, a column a metric."""
    first = next(iter(results.values()))["evaluation"]
    for test, scores in first["tests"].items():
        header = ("", *(each["name"] for each in scores), "checkpoint", "beam", "lenpen")
        rows = []
        for name, result in results.items():
            evaluation = result["evaluation"]
            values = (f"{each['value']:.2f}" for each in evaluation["tests"][test])
            search = (evaluation["checkpoint"], str(evaluation["beam"]), f"{evaluation['lenpen']:g}")
            rows.append((name, *values, *search))
        yield table(Table(test, header, rows))
    # all sets are scored alike
    yield paragraph("; ".join(f"{each['name']}: {each['signature']}" for each in scores), faint=True)


def _training(systems: Dict[str, Run], results: Results) -> Iterator[str]:
    curves = {name: read_curves(run.log) for name, run in systems.items()}
    warmups = {name: run.config["criterion"].get("smoothing_warmup_steps") for name, run in systems.items()}
    panels = compared_panels(curves)
    if panels:
        titles = ", ".join(title for title, *_ in panels)
        yield picture(
            Figure(
                "training",
                f"Curves over updates of {', '.join(systems)}: {titles}.",
                (10.5, 0.6 + 2.7 * -(-len(panels) // 2)),
                lambda figure: paint_compared(figure, curves, warmups),
            )
        )
        if any(warmups.values()):
            yield paragraph("A dotted line is where a run's smoothing warm-up ends.", faint=True)
    rows = []
    for name, result in results.items():
        cost, updates = result["training"], curves[name]["train"].get("nll_loss", {})
        speed = cost["target_tokens_per_second"]
        numbers = (f"{max(updates):,}" if updates else "", f"{speed:,.0f}" if speed else "")
        rows.append((name, *numbers, f"{cost['peak_memory_mib']:,}"))
    yield table(Table("Cost", ("", "updates", "target tokens/s", "peak memory, MiB"), rows))


def _settings(systems: Dict[str, Run], results: Results) -> Iterator[str]:
    """What differs between the runs, then each run's configuration and versions."""
    flat = {name: dict(_flatten(run.config)) for name, run in systems.items()}
    names = sorted({key for values in flat.values() for key in values})
    differing = [key for key in names if len({values.get(key, "") for values in flat.values()}) > 1]
    if differing:
        rows = [(key, *(values.get(key, "") for values in flat.values())) for key in differing]
        yield table(Table("What differs between the runs", ("setting", *systems), rows))
    for name, run in systems.items():
        versions = "".join(f"# {package} {version}\n" for package, version in results[name]["versions"].items())
        yield details(f"All settings of {name}", versions + to_yaml(run.config))


def _flatten(config: Dict[str, Any], prefix: str = "") -> Iterator[Tuple[str, str]]:
    """Dotted name and value of every setting."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)


def _section(analysis: Analysis) -> Section:
    blocks: List[str] = [paragraph(analysis.text), *map(picture, analysis.pictures), *map(table, analysis.tables)]
    return Section(analysis.name, analysis.title, blocks)
