"""The label that each token of a translation would be trained with: figure 1c of the paper."""

import os
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from ..cli_types import NEWEST_HELP, RUNS, whole
from ..data.encode import to_subwords
from ..data.types import Pair
from ..errors import UserError
from ..evaluation.runs import Run, direction_of, newest_run, runs_by_name
from ..files import read_lines
from ..losses.labo import LaboOptions, labo_terms
from ..reporting.figure import PALETTE, Figure, legend_above, plain
from ..reporting.table import Table
from .base import Analysis, AnalysisResult
from .teacher_forcing import TeacherForcedModel

_PANELS = 4  # in a row
_EXAMPLE = range(5, 11)  # words of the sentence that the report shows
_COLORS = {"one-hot": "#999999", "label smoothing": PALETTE[0], "LABO": PALETTE[1]}


@dataclass(frozen=True)
class Labeling:
    """The options of a label; τ, α and ρ as :func:`labo_fairseq.losses.labo.labo_terms` takes them."""

    tau: float = 1.25
    alpha: Union[str, float] = "adaptive"
    rho: float = 0.5
    epsilon: float = 0.1  # mass of the uniform label smoothing shown beside it

    def __str__(self) -> str:
        alpha = f"α adaptive, ρ = {self.rho:g}" if self.alpha == "adaptive" else f"α = {float(self.alpha):g}"
        return f"τ = {self.tau:g}, {alpha}, ε = {self.epsilon:g}"


@dataclass(frozen=True)
class Share:
    """What a label gives one token."""

    token: str
    p_star: float  # of the smoothing distribution
    label: float  # of the smoothed label P̂ = (1−α)·onehot(k) + α·P*
    uniform: float  # of uniform label smoothing, (1−ε)·onehot(k) + ε/K


@dataclass(frozen=True)
class Position:
    """One token of the translation, given those before it."""

    right: Share  # of the token that stands here
    probability: float  # that the model gives it
    alpha: float
    entropy: float  # H(p), in bits
    top: List[Share]  # the most probable tokens of P*, in decreasing order

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def label_positions(
    logits: Tensor, target: Tensor, symbols: Sequence[str], labeling: Labeling, top: int = 5
) -> List[Position]:
    """The labels of one sentence, for each of its tokens.

    Args:
        logits: (T, K).
        target: (T,), int64.
        symbols: K names of the classes.
        top: how many tokens of P* to name, at most K.

    Raises:
        UserError: an option out of range.
    """
    try:
        LaboOptions(labeling.tau, labeling.alpha, labeling.rho)
        if not 0 <= labeling.epsilon <= 1:
            raise ValueError(f"epsilon must be in [0, 1], got {labeling.epsilon}")
        if not 1 <= top <= logits.size(-1):
            raise ValueError(f"top must be from 1 to the {logits.size(-1)} tokens of the vocabulary, got {top}")
    except ValueError as error:
        raise UserError(str(error)) from None
    z, k = logits.double(), logits.size(-1)
    terms = labo_terms(z, target, labeling.tau, labeling.alpha, labeling.rho)
    p_star = torch.softmax(z / labeling.tau, dim=-1)

    def share(position: int, token: int) -> Share:
        mass, alpha = p_star[position, token].item(), terms.alpha[position].item()
        right = float(token == target[position])
        return Share(
            symbols[token],
            mass,
            (1 - alpha) * right + alpha * mass,
            (1 - labeling.epsilon) * right + labeling.epsilon / k,
        )

    return [
        Position(
            share(position, int(target[position])),
            (-terms.nll[position]).exp().item(),
            terms.alpha[position].item(),
            terms.entropy[position].item() / np.log(2),
            [share(position, token) for token in p_star[position].topk(top).indices.tolist()],
        )
        for position in range(len(target))
    ]


def label_table(positions: Sequence[Position], caption: str) -> Table:
    """A row a position."""
    rows = []
    for number, position in enumerate(positions, 1):
        # no-break spaces: a token, its number and the dot stay on one line
        top = "\u00a0· ".join(f"{share.token}\u00a0{share.p_star:.3f}" for share in position.top)
        values = (
            position.alpha,
            position.entropy,
            position.probability,
            position.right.p_star,
            position.right.label,
            position.right.uniform,
        )
        rows.append((f"{number} {position.right.token}", *(f"{value:.3f}" for value in values), top))
    header = ("token", "α", "H", "p", "P*", "label", "LS", f"{len(positions[0].top)} most probable tokens of P*")
    return Table(caption, header, rows)


def labeling_of(run: Run) -> Labeling:
    """The options that ``run`` was trained with, and the defaults of those that it has not."""
    criterion = run.config["criterion"]
    trained = {name: criterion[name] for name in ("tau", "alpha", "rho") if name in criterion}
    labeling = Labeling(**trained) if _smooths_with_p_star(criterion["_name"]) else Labeling()
    return replace(labeling, epsilon=criterion.get("label_smoothing", labeling.epsilon))


def _smooths_with_p_star(criterion: str) -> bool:
    """Whether the criterion of this name is LABO, or one made of it."""
    from fairseq.criterions import CRITERION_REGISTRY  # takes seconds

    from ..criterions.labo import LaboLabelSmoothedCrossEntropyCriterion

    return issubclass(CRITERION_REGISTRY.get(criterion, object), LaboLabelSmoothedCrossEntropyCriterion)


def labels_result(
    source: str, target: str, labeled: Mapping[str, List[Position]], captions: Dict[str, str]
) -> AnalysisResult:
    """Figure 1c.

    Args:
        labeled: system → what :func:`label_positions` says of ``target``.
        captions: system → its name and the options of its labels.
    """
    figures = [
        Figure(
            "labels" if len(labeled) == 1 else f"labels-{number}",
            "Bars: what one-hot, uniform label smoothing and LABO give the probable tokens at each of the "
            f"{len(positions)} tokens of the translation, by {system}. The table holds the numbers.",
            (10.5, 0.9 + 2.1 * label_rows(positions)),
            partial(paint_labels, title=captions[system], positions=positions),
        )
        for number, (system, positions) in enumerate(labeled.items(), 1)
    ]
    return AnalysisResult(
        "labels",
        "Labels of one translation",
        f"“{source}” → “{target}”. α is the smoothing mass and H the entropy of the prediction, in bits, at each "
        "token; what the model (p), the smoothing distribution (P*), LABO's label and uniform label smoothing (LS) "
        "give the token itself; and the tokens that P* finds most probable there.",
        [label_table(positions, captions[system]) for system, positions in labeled.items()],
        figures,
        [record for system, positions in labeled.items() for record in _label_records(system, positions)],
        {"source": source, "target": target, "labels": captions},
    )


def _label_records(system: str, positions: Sequence[Position]) -> List[Dict[str, Any]]:
    """A row per position and token: the right one, rank 0, then those of P*."""
    return [
        {
            **{"system": system, "position": number, "alpha": position.alpha, "entropy": position.entropy},
            **{"probability": position.probability, "rank": rank, **vars(share)},
        }
        for number, position in enumerate(positions, 1)
        for rank, share in enumerate([position.right, *position.top])
    ]


def label_rows(positions: Sequence[Position]) -> int:
    """How many rows of panels :func:`paint_labels` makes."""
    return -(-len(positions) // _PANELS)


def paint_labels(figure: Any, title: str, positions: Sequence[Position]) -> None:
    """Figure 1c: a panel per position, with what three labels give the tokens that are probable there."""
    panels = list(figure.subplots(label_rows(positions), _PANELS, sharex=True, squeeze=False).flat)
    for axes, (number, position) in zip(panels, enumerate(positions, 1)):
        shares = {share.token: share for share in [position.right, *position.top]}
        for row, share in enumerate(shares.values()):
            one_hot = float(share.token == position.right.token)
            axes.text(share.label + 0.02, row + 0.28, f"{share.label:.3f}", va="center", fontsize=6.5)
            for bar, (name, value) in enumerate(zip(_COLORS, (one_hot, share.uniform, share.label))):
                place = row + (bar - 1) * 0.28
                axes.barh(place, value, 0.26, color=_COLORS[name], label=name if row == 0 else None)
        # a dollar sign would begin a formula
        axes.set_yticks(range(len(shares)), [token.replace("$", r"\$") for token in shares], fontsize=8)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.invert_yaxis()
        axes.set_title(f"{number}: α {position.alpha:.2f}, H {position.entropy:.1f} bits", fontsize=9, loc="left")
        axes.set_xlim(0, 1)
        plain(axes, "x")
    for axes in panels[len(positions) :]:
        axes.remove()
    legend_above(figure, title)


class LabelsAnalysis(Analysis):
    """The label of every token of one translation, by each run's model: figure 1c."""

    name = "labels"
    summary = "the smoothed label of every token of a translation (figure 1c)"
    description = (
        "For each token of TARGET as the translation of SOURCE: the smoothing mass α, the entropy H of the model's "
        "prediction, the tokens that P* finds most probable, and the label, beside that of uniform label smoothing. "
        'For example:  labo-fairseq analyse labels runs/bible/de-en/labo-seed1 "Am Anfang war das Wort." '
        '"In the beginning was the Word."'
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", nargs="?", type=Path, default=RUNS, metavar="RUN", help=NEWEST_HELP)
        parser.add_argument("source_text", metavar="SOURCE", help="a sentence, as in the raw text")
        parser.add_argument("target_text", metavar="TARGET", help="its translation")
        parser.add_argument("--source", default="", metavar="LANG", help="language of SOURCE, if the run has several")
        parser.add_argument("--top", type=whole(1), default=5, metavar="N", help="how many tokens of P* to show")
        parser.add_argument("--tau", type=float, help="temperature of P* (default: the run's, 1.25 if it has none)")
        parser.add_argument("--alpha", help="'adaptive' or a number (default: the run's, or adaptive)")
        parser.add_argument("--rho", type=float, help="ρ of the adaptive α (default: the run's, or 0.5)")

    def runs(self, args: Namespace) -> List[Run]:
        # of two words, argparse takes the first for SOURCE
        if args.folder == RUNS and os.path.isdir(args.source_text):
            raise UserError(f"{args.source_text} is a folder, not a sentence: TARGET is missing after RUN and SOURCE")
        return [newest_run(args.folder)]

    def options(self, args: Namespace) -> Dict[str, Any]:
        labeling = {name: vars(args)[name] for name in ("tau", "alpha", "rho") if vars(args)[name] is not None}
        texts = (args.source_text, args.target_text)
        return {"source": args.source, "texts": texts, "labeling": labeling, "top": args.top}

    def report_options(self, runs: Sequence[Run]) -> Dict[str, Any]:
        return {"texts": _example(runs[0])}

    def run(self, runs: Sequence[Run], folder: Path, **options: Any) -> AnalysisResult:
        """Options: ``texts``, a sentence and its translation; ``source``, the language of the first; ``labeling``,
        options of :class:`Labeling` in place of those that the runs were trained with; ``top``, how many tokens of P*.
        """
        direction, texts = direction_of(runs[0], options.get("source", "")), options["texts"]
        labeled, captions = {}, {}
        for name, run in runs_by_name(runs).items():
            labeling = replace(labeling_of(run), **options.get("labeling", {}))
            subwords = [to_subwords(run.data, language, text) for language, text in zip(direction, texts)]
            model = TeacherForcedModel(run, direction)
            ((logits, right),) = model.logits([(subwords[0], subwords[1])])
            labeled[name] = label_positions(logits.cpu(), right.cpu(), model.symbols, labeling, options.get("top", 5))
            captions[name] = f"{name}: {labeling}"
        return labels_result(texts[0], texts[1], labeled, captions)


def _example(run: Run) -> Pair:
    """The first short pair of the main test set, or the shortest."""
    direction = run.directions[0]
    name = run.data.split(run.data.tests[0], *direction)
    source, target = (read_lines(run.data.raw(name, side)) for side in direction)
    pairs = [pair for pair in zip(source, target) if all(pair)]
    short = [pair for pair in pairs if all(len(side.split()) in _EXAMPLE for side in pair)]
    return short[0] if short else min(pairs, key=lambda pair: len(" ".join(pair)))


ANALYSIS = LabelsAnalysis()
