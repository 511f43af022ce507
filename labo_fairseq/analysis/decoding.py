"""Which search a model needs: its own probabilities or the posterior, beam, length penalty, temperature, samples.

All searches of a grid translate the validation set. Those that do best there, one per kind of probabilities, by beam
search and by minimum Bayes risk, translate the test sets once.
"""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

from tqdm import tqdm

from ..cli_types import BEAM, length_penalty, positive, whole
from ..errors import UserError
from ..evaluation.metrics import Texts, Translation, find_metric, score
from ..evaluation.runs import Run, read_json, runs_by_name
from ..evaluation.significance import compare
from ..files import read_lines, write_json
from ..losses import cross_entropy_log_posterior
from ..reporting.figure import Figure, legend_above, marker_style, plain
from ..reporting.table import Table
from .base import Analysis, AnalysisResult
from .calibration import MODEL, POSTERIOR
from .hypotheses import VALID, HeldOut, held_out, model_identity
from .search import Search, SearchingModel, best_hypothesis, minimum_bayes_risk
from .teacher_forcing import TeacherForcedModel

Key = TypeVar("Key")

BEAM_SEARCH, MINIMUM_BAYES_RISK = "beam", "MBR"

_CELLS = "searches"  # of finished searches, in the folder of the analysis


@dataclass(frozen=True)
class Grid:
    """What is tried on the validation set.

    Args:
        beams: sizes of beam search.
        length_penalties: of beam search. One search serves all of them, because fairseq applies them to finished
            hypotheses.
        temperatures: of both searches.
        samples: for minimum Bayes risk; 0: none of that.
        sentences: of the validation set, the first ones; None: all.
        test_sentences: the same of a test set.
        tests: names of test sets; empty: all.
    """

    beams: Tuple[int, ...] = (1, 5, 20, 50, 100)
    length_penalties: Tuple[float, ...] = (0.0, 0.6, 1.0, 1.4, 2.0)
    temperatures: Tuple[float, ...] = (0.7, 1.0, 1.3)
    samples: int = 32
    sentences: Optional[int] = None
    test_sentences: Optional[int] = None
    tests: Tuple[str, ...] = ()

    def searches(self, posterior: bool) -> List[Search]:
        """From the cheapest to the dearest."""
        both = [(size, False) for size in sorted(self.beams)] + [(self.samples, True)] * bool(self.samples)
        return [
            Search(size, temperature, posterior, sampling)
            for (size, sampling), temperature in product(both, self.temperatures)
        ]


@dataclass(frozen=True)
class Cell:
    """One search on one set, with its scores in percent."""

    test: str
    system: str
    probabilities: str  # MODEL or POSTERIOR
    search: str  # BEAM_SEARCH or MINIMUM_BAYES_RISK
    size: int
    temperature: float
    length_penalty: Optional[float]  # of beam search
    sentences: int
    bleu: float
    chrf: float
    lines: Tuple[str, ...]  # detokenized translations

    def record(self) -> Dict[str, Any]:
        """All but the translations."""
        values = asdict(self)
        del values["lines"]
        return values


@dataclass(frozen=True)
class Tested:
    """What the validation set chose, on a test set, against the default search with the model's probabilities."""

    on_validation: Cell
    on_test: Cell
    p: Optional[float]  # that a difference of BLEU is chance; None: this is the default search


class DecodingAnalysis(Analysis):
    """Posterior × search × beam × length penalty × temperature, chosen on the validation set."""

    name = "decoding"
    summary = "beam, length penalty, temperature, minimum Bayes risk: with p and with the posterior"
    description = (
        "Translate the validation set with every search of a grid, with the model's probabilities and with the "
        "posterior that inverts its training objective, by beam search and by minimum Bayes risk over samples "
        "(utility: chrF). The searches with the best BLEU, one per kind of probabilities and of search, translate "
        "the test sets. It takes minutes to hours; finished searches are kept, and the same command resumes."
    )
    in_report = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        grid = Grid()
        parser.add_argument("--beams", type=BEAM, nargs="+", default=grid.beams, metavar="N", help="beam sizes")
        parser.add_argument(
            "--lenpens",
            type=length_penalty,
            nargs="+",
            default=grid.length_penalties,
            metavar="X",
            help="length penalties",
        )
        parser.add_argument(
            "--temperatures", type=positive, nargs="+", default=grid.temperatures, metavar="T", help="temperatures"
        )
        parser.add_argument(
            "--samples",
            type=whole(0, 1000),
            default=grid.samples,
            metavar="N",
            help="samples of minimum Bayes risk; 0 leaves it out",
        )
        for option, text in (("--sentences", "the validation set"), ("--test-sentences", "every test set")):
            parser.add_argument(option, type=whole(1), metavar="N", help=f"the first N of {text} (default: all)")
        parser.add_argument("--tests", nargs="+", default=(), metavar="NAME", help="test sets (default: all)")

    def options(self, args: Namespace) -> Dict[str, Any]:
        beams, penalties, temperatures = (
            tuple(dict.fromkeys(values)) for values in (args.beams, args.lenpens, args.temperatures)
        )
        held_out_options = (args.samples, args.sentences, args.test_sentences, tuple(args.tests))
        return {"grid": Grid(beams, penalties, temperatures, *held_out_options)}

    def run(self, runs: Sequence[Run], folder: Path, **options: Any) -> AnalysisResult:
        """Options: ``grid``, a :class:`Grid`."""
        grid: Grid = options.get("grid", Grid())
        known = list(dict.fromkeys(test.split for test in held_out(runs[0]) if test.split != VALID))
        for name in grid.tests:
            if name not in known:
                raise UserError(f"no test set {name!r}: choose from {', '.join(known)}")
        cells: List[Cell] = []
        tested: List[Tested] = []
        for name, run in runs_by_name(runs).items():
            for direction in run.directions:
                model = SearchingModel(run, TeacherForcedModel(run, direction), direction)
                valid, *tests = [
                    test
                    for test in held_out(run)
                    if test.direction == direction and test.split in (VALID, *(grid.tests or known))
                ]
                study = _Study(name, model, folder / _CELLS / model_identity(run), grid.length_penalties)
                validated = study.on_validation(valid, grid)
                cells += validated
                for test in tests:
                    tested += study.on_test(test, _chosen(validated, grid), grid.test_sentences)
        return decoding_result(cells, tested, grid)


#: how the paper and all tables of this project search
DEFAULT, DEFAULT_PENALTY = Search(5), 1.0


def _is_default(cell: Cell) -> bool:
    search = (cell.probabilities, cell.search, cell.size, cell.temperature, cell.length_penalty)
    return search == (MODEL, BEAM_SEARCH, DEFAULT.size, DEFAULT.temperature, DEFAULT_PENALTY)


def _chosen(validated: Sequence[Cell], grid: Grid) -> List[Cell]:
    """The default search, then the best ones: BLEU decides, and the cheaper search where it is equal."""
    asked = [cell for cell in validated if _in_grid(cell, grid)]
    best = _best(asked, lambda cell: (cell.search, cell.probabilities))
    return [*filter(_is_default, validated), *best.values()]


def _best(cells: Sequence[Cell], key_of: Callable[[Cell], Key]) -> Dict[Key, Cell]:
    """Of the cells of each key the one with the best BLEU, the first of equal ones."""
    best: Dict[Key, Cell] = {}
    for cell in cells:
        key = key_of(cell)
        if key not in best or cell.bleu > best[key].bleu:
            best[key] = cell
    return best


def _in_grid(cell: Cell, grid: Grid) -> bool:
    """False for the default search where it is not asked for."""
    return cell.search == MINIMUM_BAYES_RISK or (
        cell.size in grid.beams
        and cell.temperature in grid.temperatures
        and cell.length_penalty in grid.length_penalties
    )


class _Study:
    """The searches of one system; every finished one is a file in ``folder``."""

    def __init__(self, system: str, model: SearchingModel, folder: Path, length_penalties: Sequence[float]) -> None:
        self.system, self.model, self.folder, self.length_penalties = system, model, folder, length_penalties

    def on_validation(self, valid: HeldOut, grid: Grid) -> List[Cell]:
        """All searches of the grid, and the default one."""
        log_posterior = self.model.forced.log_posterior
        # the posterior of a model that was trained with cross-entropy is what it predicts
        kinds = (False,) if log_posterior in (None, cross_entropy_log_posterior) else (False, True)
        cells = self.cells(valid, DEFAULT, [DEFAULT_PENALTY], grid.sentences)
        for search in (search for posterior in kinds for search in grid.searches(posterior)):
            made = self.cells(valid, search, [None] if search.sampling else grid.length_penalties, grid.sentences)
            cells += [cell for cell in made if not _is_default(cell)]
        return cells

    def on_test(self, test: HeldOut, chosen: Sequence[Cell], sentences: Optional[int]) -> List[Tested]:
        """The chosen searches, the first of them the default one, on a test set."""
        cells = []
        for cell in chosen:
            sampling = cell.search == MINIMUM_BAYES_RISK
            search = Search(cell.size, cell.temperature, cell.probabilities == POSTERIOR, sampling)
            cells += self.cells(test, search, [cell.length_penalty], sentences)
        sources, references = self._texts(test, cells[0].sentences)
        names = [str(number) for number in range(len(cells))]
        translations = [Translation(Texts(sources, cell.lines, references)) for cell in cells]
        compared = compare([find_metric("bleu")], dict(zip(names, translations)), self._scoring(test))
        return [Tested(valid, tested, one.p) for valid, tested, one in zip(chosen, cells, compared)]

    def cells(
        self, test: HeldOut, search: Search, length_penalties: Sequence[Optional[float]], sentences: Optional[int]
    ) -> List[Cell]:
        """One per length penalty; what is kept already is not searched again."""
        sources = list(read_lines(self.model.run.data.subwords(test.name, test.direction[0])))[:sentences]
        paths = {penalty: self._path(test, search, penalty, len(sources)) for penalty in length_penalties}
        missing = [penalty for penalty, path in paths.items() if not path.exists()]
        if missing:
            for penalty, lines in self._translate(test, search, missing, sources).items():
                write_json(paths[penalty], self._scored(test, search, penalty, lines))
        return [self._read(path) for path in paths.values()]

    def _translate(
        self, test: HeldOut, search: Search, length_penalties: Sequence[Optional[float]], sources: Sequence[str]
    ) -> Dict[Optional[float], List[str]]:
        """Detokenized lines by length penalty."""
        with tqdm(total=len(sources), desc=f"{self.system}, {test.name}, {_words(search)}", unit=" sentences") as bar:
            hypotheses = self.model.hypotheses(sources, search, bar.update)
        if search.sampling:
            texts = iter(self.model.texts([one.subwords for samples in hypotheses for one in samples]))
            lines = [[next(texts) for _ in samples] for samples in hypotheses]
            return {None: [samples[minimum_bayes_risk(samples, self._scoring(test))] for samples in lines]}
        return {
            penalty: self.model.texts([best_hypothesis(n_best, penalty or 0.0).subwords for n_best in hypotheses])
            for penalty in length_penalties
        }

    def _scored(self, test: HeldOut, search: Search, penalty: Optional[float], lines: List[str]) -> Dict[str, Any]:
        sources, references = self._texts(test, len(lines))
        translation = Translation(Texts(sources, lines, references))
        bleu, chrf = (score(find_metric(key), translation, self._scoring(test)).value for key in ("bleu", "chrf"))
        cell = Cell(
            test=test.name,
            system=self.system,
            probabilities=POSTERIOR if search.posterior else MODEL,
            search=MINIMUM_BAYES_RISK if search.sampling else BEAM_SEARCH,
            size=search.size,
            temperature=search.temperature,
            length_penalty=penalty,
            sentences=len(lines),
            bleu=bleu,
            chrf=chrf,
            lines=tuple(lines),
        )
        return asdict(cell)

    def _read(self, path: Path) -> Cell:
        values = read_json(path)
        # a directory may have been renamed
        return Cell(**{**values, "system": self.system, "lines": tuple(values["lines"])})

    def _path(self, test: HeldOut, search: Search, penalty: Optional[float], sentences: int) -> Path:
        name = f"{test.name}-{sentences}-{'samples' if search.sampling else 'beam'}{search.size}"
        name += f"-T{search.temperature:g}" + ("" if penalty is None else f"-lenpen{penalty:g}")
        return self.folder / f"{name}{'-posterior' if search.posterior else ''}.json"

    def _texts(self, test: HeldOut, sentences: int) -> List[List[str]]:
        """Sources and references."""
        return [list(read_lines(self.model.run.data.raw(test.name, side)))[:sentences] for side in test.direction]

    def _scoring(self, test: HeldOut) -> Any:
        return self.model.run.data.scoring_for(test.direction[1])


def _words(search: Search) -> str:
    size = f"{search.size} samples" if search.sampling else f"beam {search.size}"
    return f"{size}, T {search.temperature:g}{', posterior' if search.posterior else ''}"


def decoding_result(cells: Sequence[Cell], tested: Sequence[Tested], grid: Grid) -> AnalysisResult:
    """Tables and the figure.

    Args:
        cells: of the validation sets, by system.
        tested: by system, then by test set.
    """
    systems = list(dict.fromkeys(cell.system for cell in cells))
    views = _views(cells, grid)
    records = [cell.record() for cell in dict.fromkeys([*cells, *(one.on_test for one in tested)])]
    return AnalysisResult(
        "decoding",
        "Decoding",
        "model: the probabilities as trained; posterior: those that are recovered from them by inverting the "
        "training objective. Beam search ranks hypotheses by log-probability / length^lenpen; MBR takes the sample "
        f"with the largest mean chrF against all {grid.samples} samples. T: temperature. Validation: "
        f"the first {cells[0].sentences:,} sentences. On the test sets: the default search (beam {DEFAULT.size}, "
        f"lenpen {DEFAULT_PENALTY:g}, T {DEFAULT.temperature:g}), then the searches with the best BLEU on the "
        "validation set; Δ and p (paired bootstrap) to the default search of the same system.",
        [
            *(_validation_table(title, view) for title, view in views.items()),
            *(
                _test_table(test, [one for one in tested if one.on_test.test == test])
                for test in dict.fromkeys(one.on_test.test for one in tested)
            ),
        ],
        [
            Figure(
                "decoding",
                f"Dots: BLEU on the validation set of {', '.join(systems)}, a panel each, over the beam size and for "
                "MBR, with the model's probabilities and with the posterior. The tables hold the numbers.",
                (1 + 3.2 * len(systems), 0.8 + 2.7 * len(views)),
                partial(paint_decoding, views=views),
            )
        ],
        records,
        {"grid": asdict(grid)},
    )


#: system → probabilities → (search, size) → cell
_View = Dict[str, Dict[str, Dict[Tuple[str, int], Cell]]]


def _views(cells: Sequence[Cell], grid: Grid) -> Dict[str, _View]:
    """By title: the cells without a length penalty or temperature of their own, and the best of each search."""
    asked = [cell for cell in cells if _in_grid(cell, grid)]
    default = [cell for cell in asked if cell.temperature == 1 and cell.length_penalty in (DEFAULT_PENALTY, None)]
    views = {"lenpen 1, T 1": default, "best lenpen and T": asked}
    return {title: _best_by_size(those) for title, those in views.items() if those}


def _best_by_size(cells: Sequence[Cell]) -> _View:
    view: _View = {}
    for cell in _best(cells, lambda cell: (cell.system, cell.probabilities, cell.search, cell.size)).values():
        view.setdefault(cell.system, {}).setdefault(cell.probabilities, {})[cell.search, cell.size] = cell
    return view


def _columns(view: _View) -> List[Tuple[str, int]]:
    """The searches and sizes of all systems: beams, then MBR."""
    keys = {key for kinds in view.values() for best in kinds.values() for key in best}
    return sorted(keys, key=lambda key: (key[0] != BEAM_SEARCH, key[1]))


def _validation_table(title: str, view: _View) -> Table:
    columns = _columns(view)
    rows = [
        (f"{system}, {kind}", *(f"{best[key].bleu:.2f}" if key in best else "" for key in columns))
        for system, kinds in view.items()
        for kind, best in kinds.items()
    ]
    return Table(f"BLEU on the validation set, {title}", ("", *(f"{name} {size}" for name, size in columns)), rows)


def _test_table(test: str, tested: Sequence[Tested]) -> Table:
    header = ("", "search", "lenpen", "T", "valid", "BLEU", "chrF", "Δ", "p")
    rows = []
    default = tested[0]
    for one in tested:
        cell = one.on_test
        if one.p is None:
            default = one
        penalty = "" if cell.length_penalty is None else f"{cell.length_penalty:g}"
        scores = (f"{value:.2f}" for value in (one.on_validation.bleu, cell.bleu, cell.chrf))
        change = ("", "") if one.p is None else (f"{cell.bleu - default.on_test.bleu:+.2f}", f"{one.p:.3f}")
        name = f"{cell.system}, {'default' if one.p is None else cell.probabilities}"
        rows.append((name, f"{cell.search} {cell.size}", penalty, f"{cell.temperature:g}", *scores, *change))
    return Table(f"{test}, {tested[0].on_test.sentences:,} sentences", header, rows)


def paint_decoding(figure: Any, views: Dict[str, _View]) -> None:
    """BLEU over the sizes of searches, a row per view and a panel per system, one kind of dots per probabilities."""
    systems = list(next(iter(views.values())))
    panels = figure.subplots(len(views), len(systems), sharey=True, squeeze=False)
    for axes, ((title, view), system) in zip(panels.flat, product(views.items(), systems)):
        columns = _columns(view)
        for number, kind in enumerate((MODEL, POSTERIOR)):
            best = view[system].get(kind, {})
            for name, line in ((BEAM_SEARCH, "-"), (MINIMUM_BAYES_RISK, "")):
                places = [place for place, key in enumerate(columns) if key in best and key[0] == name]
                values = [best[columns[place]].bleu for place in places]
                label = kind if name == BEAM_SEARCH else None
                axes.plot(places, values, label=label, linestyle=line, linewidth=0.8, **marker_style(number))
        axes.set_xticks(range(len(columns)))
        axes.set_xticklabels([str(size) if name == BEAM_SEARCH else name for name, size in columns])
        axes.set_title(f"{system}\n{title}", fontsize=10)
        axes.set_xlabel("beam")
        axes.set_ylabel("BLEU")
        plain(axes)
    legend_above(figure)


ANALYSIS = DecodingAnalysis()
