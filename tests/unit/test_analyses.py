"""The analyses' numbers, tables and figures, without a model."""

import json
import math
import random
from collections import Counter
from functools import partial

import numpy as np
import pytest
import sacrebleu
import torch
from fairseq_runs import read_csv
from hypothesis import given
from hypothesis import strategies as st
from reference import adaptive_alpha

from labo_fairseq.analysis.calibration import (
    Calibration,
    ClasswiseBins,
    Predictions,
    adaptive_calibration_error,
    at_temperature,
    calibration_result,
    expected_calibration_error,
    fit_temperature,
    join,
    pearson,
    predictions,
    rank_auroc,
    reliability,
)
from labo_fairseq.analysis.confidence import (
    HISTOGRAM_BINS,
    WHOLE,
    Confidence,
    confidence_result,
    summarize_hypotheses,
    summarize_teacher_forced,
)
from labo_fairseq.analysis.frequency import (
    PARTS,
    count_tokens,
    frequency_result,
    frequency_scores,
    score_parts,
    thirds,
)
from labo_fairseq.analysis.hypotheses import read_generation
from labo_fairseq.analysis.labels import Labeling, label_positions, labels_result
from labo_fairseq.data.types import Scoring
from labo_fairseq.errors import UserError
from labo_fairseq.files import write_lines
from labo_fairseq.losses.blockwise import Quantity
from labo_fairseq.reporting import figure as figure_module
from labo_fairseq.reporting.figure import Figure, save_png, to_svg
from labo_fairseq.reporting.html import Section, page
from labo_fairseq.reporting.table import WIDTH, Table
from labo_fairseq.reporting.training_log import compared_panels, paint_compared

PNG = b"\x89PNG"


# frequency


def test_frequency_score_is_the_mean_count(tmp_path):
    write_lines(tmp_path / "de", ["a b a", "c"])
    write_lines(tmp_path / "en", ["a d"])
    counts = count_tokens([tmp_path / "de", tmp_path / "en"])
    assert counts == {"a": 3, "b": 1, "c": 1, "d": 1}
    assert frequency_scores(["a b", "a a a", "", "x a", "x"], counts) == [2, 3, 0, 1.5, 0]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, 7.0, 1e9]), min_size=3, max_size=50))
def test_thirds(scores):
    parts = thirds(scores)
    assert sorted(index for part in parts for index in part) == list(range(len(scores))), "every sentence, once"
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[2] <= 1
    order = [index for part in parts for index in part]
    for one, next_one in zip(order, order[1:]):
        assert scores[one] > scores[next_one] or (scores[one] == scores[next_one] and one < next_one)


def test_too_few_sentences_to_cut():
    with pytest.raises(UserError, match="2 sentences cannot be cut into 3 parts"):
        thirds([1.0, 2.0])


WORDS = ["the", "a", "small", "big", "dog", "cat", "house", "tree", "sees", "likes", "finds", "near", "today", "."]


@pytest.fixture(scope="module")
def scored():
    rng = random.Random(1)
    references = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(6, 15))) for _ in range(31)]
    systems = {
        name: [" ".join(word for word in line.split() if rng.random() >= share) for line in references]
        for name, share in (("base", 0.3), ("better", 0.1), ("worse", 0.5))
    }
    scores = [rng.random() for _ in references]
    return references, systems, scores, score_parts("test", scores, systems, references)


def test_each_part_has_sacrebleus_score(scored):
    references, systems, scores, parts = scored
    order = sorted(range(31), key=lambda index: scores[index], reverse=True)
    cuts = {"most": order[:11], "medium": order[11:21], "least": order[21:]}
    assert [(part.system, part.part) for part in parts] == [(name, part) for name in systems for part in PARTS]
    for part in parts:
        indices = cuts[part.part]
        hypotheses, right = ([lines[i] for i in indices] for lines in (systems[part.system], references))
        assert part.bleu == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [right]).score)
        assert part.sentences == len(indices)
        assert part.frequency == pytest.approx(np.mean([scores[i] for i in indices]))
        base = next(other.bleu for other in parts if (other.system, other.part) == ("base", part.part))
        assert part.delta == (None if part.system == "base" else pytest.approx(part.bleu - base))
        assert f"version:{sacrebleu.__version__}" in part.signature


def test_parts_are_scored_without_case_where_the_corpus_has_none(scored):
    references, _, scores, _ = scored
    parts = score_parts(
        "test", scores, {"loud": [line.upper() for line in references]}, references, Scoring(lowercase=True)
    )
    assert [part.bleu for part in parts] == pytest.approx([100] * 3)
    assert "case:lc" in parts[0].signature


def test_lines_that_do_not_fit(scored):
    references, systems, scores, _ = scored
    with pytest.raises(UserError, match="test: base has 30 lines, but there are 31 source sentences"):
        score_parts("test", scores, {"base": systems["base"][:-1]}, references)
    with pytest.raises(UserError, match="the references has 30 lines"):
        score_parts("test", scores, systems, references[1:])


def test_table_4(scored):
    analysis = frequency_result(scored[3])
    (table,) = analysis.tables
    assert table.header == ("", "Most", "Medium", "Least")
    names = [row[0] for row in table.rows]
    assert names == ["base", "better", "Δ better", "worse", "Δ worse", "sentences", "mean Frequency Score"]
    first, better, delta, *_ = table.rows
    for column in (1, 2, 3):
        assert float(delta[column]) == pytest.approx(float(better[column]) - float(first[column]), abs=0.011)
        assert delta[column].startswith("+")
    two = frequency_result([part for part in scored[3] if part.system != "worse"])
    assert [row[0] for row in two.tables[0].rows][:3] == ["base", "better", "Δ"]
    one = frequency_result([part for part in scored[3] if part.system == "base"])
    assert [row[0] for row in one.tables[0].rows] == ["base", "sentences", "mean Frequency Score"]


# what a model says


def slow_predictions(logits, target):
    """p_k, max p, whether they are the same token, and H(p) in bits, one number at a time."""
    rows = []
    for row, k in zip(logits.tolist(), target.tolist()):
        largest = max(row)
        weights = [math.exp(z - largest) for z in row]
        p = [weight / sum(weights) for weight in weights]
        entropy = -sum(x * math.log2(x) for x in p if x > 0)
        rows.append((p[k], max(p), p.index(max(p)) == k, entropy))
    return rows


@pytest.mark.parametrize("scale", [1, 30, 1e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_predictions(scale, dtype):
    generator = torch.Generator().manual_seed(1)
    logits = (scale * torch.randn(1500, 7, generator=generator, dtype=torch.float64)).to(dtype)
    logits[::3, 2] = -math.inf
    target = torch.randint(7, (1500,), generator=generator)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype is torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
    actual = predictions(logits, target)
    for values, expected in zip(actual, zip(*slow_predictions(logits.double(), target))):
        np.testing.assert_allclose(values, np.array(expected), **tolerance)
    assert actual.correct.dtype == bool
    cut = join([predictions(logits[:10], target[:10]), predictions(logits[10:], target[10:])])
    for one, other in zip(cut, actual):
        np.testing.assert_array_equal(one, other)


def slow_ece(confidence, correct, bins):
    """Eq. 3 of Guo et al. (2017), by its words."""
    n, error = len(confidence), 0.0
    for m in range(1, bins + 1):
        members = [i for i in range(n) if (m - 1) / bins < confidence[i] <= m / bins]
        if members:
            accuracy = sum(bool(correct[i]) for i in members) / len(members)
            mean = sum(confidence[i] for i in members) / len(members)
            error += len(members) / n * abs(accuracy - mean)
    return error


# the edges themselves are where an implementation goes wrong
EDGES = st.builds(lambda m, bins: m / bins, st.integers(1, 10), st.just(10))


@given(
    st.lists(st.tuples(st.one_of(EDGES, st.floats(1e-6, 1)), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([1, 2, 10, 15]),
)
def test_expected_calibration_error(pairs, bins):
    confidence, correct = (np.array(values) for values in zip(*pairs))
    bars = reliability(confidence, correct, bins)
    assert sum(bar.tokens for bar in bars) == len(pairs)
    for bar in bars:
        if bar.tokens:
            assert bar.lower < bar.confidence + 1e-12
            assert bar.confidence <= bar.upper + 1e-12
        else:
            assert bar.confidence is None
            assert bar.accuracy is None
    assert expected_calibration_error(bars) == pytest.approx(slow_ece(confidence, correct, bins), abs=1e-12)


def test_calibration_of_what_is_known():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, False])
    # |0.75 − 0.95| · 4/6 + |0.5 − 0.55| · 2/6
    assert expected_calibration_error(reliability(confidence, correct)) == pytest.approx(0.15)
    assert expected_calibration_error(reliability(np.zeros(0), np.zeros(0, dtype=bool))) == 0
    assert reliability(np.array([1 + 1e-7]), np.array([True]))[-1].tokens == 1, "rounded up beyond 1"
    with pytest.raises(UserError, match="bins must be an integer ≥ 1, got 0"):
        reliability(confidence, correct, 0)


def slow_classwise(p, target, bins):
    """Kull et al. (2019), section 2, by its words: one class and one bin at a time."""
    n, classes = p.shape
    error = 0.0
    for k in range(classes):
        for m in range(1, bins + 1):
            lowest = -math.inf if m == 1 else (m - 1) / bins
            members = [i for i in range(n) if lowest < p[i, k] <= m / bins]
            if members:
                share = sum(int(target[i]) == k for i in members) / len(members)
                mean = sum(float(p[i, k]) for i in members) / len(members)
                error += len(members) / n * abs(share - mean)
    return error / classes


@pytest.mark.parametrize("bins", [1, 2, 10])
@pytest.mark.parametrize("scale", [0.5, 5, 1e4])
def test_classwise_calibration_error(bins, scale):
    generator = torch.Generator().manual_seed(4)
    p = (scale * torch.randn(60, 7, generator=generator, dtype=torch.float64)).softmax(dim=-1)
    p[0] = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0], dtype=torch.float64)  # on an edge
    target = torch.randint(6, (60,), generator=generator)  # the last class never occurs
    tally = ClasswiseBins(7, bins)
    for rows in (slice(0, 13), slice(13, 60)):
        tally.add(p[rows], target[rows])
    assert tally.error == pytest.approx(slow_classwise(p, target, bins), abs=1e-12)
    assert ClasswiseBins(7, bins).error == 0


def test_adaptive_calibration_error():
    confidence = np.array([0.9, 0.2, 0.4, 0.6, 0.8, 0.8, 0.1])
    correct = np.array([True, False, True, True, False, True, False])
    # sorted: .1 .2 .4 | .6 .8 | .8 .9, the first of three bins holds one more
    gaps = abs((0.7 - 1) / 3) * 3 + abs((1.4 - 1) / 2) * 2 + abs((1.7 - 2) / 2) * 2
    assert adaptive_calibration_error(confidence, correct, 3) == pytest.approx(gaps / 7)
    one_bin = abs(confidence.mean() - correct.mean())
    assert adaptive_calibration_error(confidence, correct, 1) == pytest.approx(one_bin)
    assert adaptive_calibration_error(np.zeros(0), np.zeros(0, dtype=bool)) == 0
    with pytest.raises(UserError, match="bins must be an integer ≥ 1, got 0"):
        adaptive_calibration_error(confidence, correct, 0)


def test_calibration_errors_are_those_of_torchmetrics():
    """Its l1 norm is ECE; one binary problem per class is the classwise error."""
    classification = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(5)
    p = (3 * torch.randn(500, 6, generator=generator, dtype=torch.float64)).softmax(dim=-1)
    target = torch.randint(6, (500,), generator=generator)
    told = predictions(p.log(), target)
    expected = classification.multiclass_calibration_error(p, target, 6, n_bins=10, norm="l1").item()
    assert expected_calibration_error(reliability(told.confidence, told.correct)) == pytest.approx(expected, abs=1e-6)
    tally = ClasswiseBins(6)
    tally.add(p, target)
    binary = [
        classification.binary_calibration_error(p[:, k], target.eq(k).int(), n_bins=10, norm="l1").item()
        for k in range(6)
    ]
    assert tally.error == pytest.approx(np.mean(binary), abs=1e-6)
    positive = told.correct
    auroc = classification.binary_auroc(torch.tensor(told.confidence), torch.tensor(positive).int()).item()
    assert rank_auroc(told.confidence, positive) == pytest.approx(auroc, abs=1e-6)


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_temperature_is_recovered(truth):
    """Targets are drawn from softmax(z/T): T makes them most likely, up to what a sample tells."""
    generator = torch.Generator().manual_seed(6)
    logits = 2 * torch.randn(20000, 8, generator=generator)
    logits[:, 7] = -math.inf
    target = (logits / truth).softmax(dim=-1).multinomial(1, generator=generator).squeeze(-1)
    halves = list(zip(logits.split(9000), target.split(9000)))
    fitted = fit_temperature(lambda: halves)
    assert fitted == pytest.approx(truth, rel=0.05)

    def nll(temperature):
        return -at_temperature(temperature)(logits.double()).gather(-1, target[:, None]).mean().item()

    assert nll(fitted) <= min(nll(1.001 * fitted), nll(fitted / 1.001)), "the minimum, not near it"


def test_temperature_without_a_minimum():
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    right, wrong = torch.tensor([0, 1]), torch.tensor([1, 0])
    assert fit_temperature(lambda: [(logits, right)]) == pytest.approx(0.05), "always right: as sure as allowed"
    assert fit_temperature(lambda: [(logits, wrong)]) == pytest.approx(20), "always wrong: as unsure as allowed"
    assert fit_temperature(lambda: [(torch.zeros(2, 2), right)]) == 1, "it makes no difference"


@pytest.mark.parametrize("margin", [3e2, 8e2, 1e5, 1e30])
def test_temperature_of_predictions_that_know_no_doubt(margin):
    """Far too sure of what is right seven times of ten: as unsure as allowed."""
    logits = margin * torch.eye(10)
    target = torch.arange(10).masked_fill(torch.arange(10) >= 7, 0)
    assert fit_temperature(lambda: [(logits, target)]) == pytest.approx(20)


def test_ranks():
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    # of four pairs three are right and one is a tie
    assert rank_auroc(scores, positive) == pytest.approx(3.5 / 4)
    assert rank_auroc(scores, np.ones(4, dtype=bool)) is None
    assert pearson(scores, 2 * scores + 1) == pytest.approx(1)
    assert pearson(scores, np.ones(4)) is None


def test_chosen_tokens():
    actual = summarize_hypotheses([np.array([0.91, 0.93, 0.1]), np.array([]), np.array([1.0, 0.0])])
    assert actual.tokens == 5
    assert actual.mean == pytest.approx(2.94 / 5)
    assert actual.median == 0.91
    assert actual.peak == pytest.approx(0.925)
    assert len(actual.histogram) == HISTOGRAM_BINS
    assert actual.histogram[18] == pytest.approx(0.4)
    assert actual.histogram[-1] == actual.histogram[0] == pytest.approx(0.2)
    assert sum(actual.histogram) == pytest.approx(1)
    nothing = summarize_hypotheses([np.array([])])
    assert (nothing.tokens, nothing.mean, nothing.peak) == (0, None, None)


def test_chosen_probabilities_are_read_from_fairseqs_output(tmp_path):
    lines = [
        "2026 | INFO | P-0",
        "S-1\tx",
        "H-1\t-1.5\ta b",
        "D-1\t-1.5\ta b",
        "P-1\t-1.0000 -2.0000 0.0000",
        "P-0\t-3.5",
    ]
    write_lines(tmp_path / "log", lines)
    subwords, probabilities = read_generation(tmp_path / "log")
    assert subwords == {1: "a b"}
    assert sorted(probabilities) == [0, 1]
    np.testing.assert_allclose(probabilities[1], [0.5, 0.25, 1])
    np.testing.assert_allclose(probabilities[0], [2**-3.5])


# labels


@pytest.mark.parametrize("scale", [1, 1e4])
@pytest.mark.parametrize("options", [{}, {"tau": 3.0, "rho": 0.8}, {"alpha": "0.3"}, {"alpha": 0.0, "epsilon": 0.2}])
def test_labels_are_equation_6(scale, options):
    """P̂ = (1−α)·onehot(k) + α·P* with P* of Eq. 12 and α of Eq. 16, in Python's own floats."""
    generator = torch.Generator().manual_seed(2)
    logits = scale * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 5, 2, 2])
    symbols = [f"t{number}" for number in range(6)]
    labeling = Labeling(**options)
    positions = label_positions(logits, target, symbols, labeling, top=6)
    alphas = adaptive_alpha(logits, labeling.rho).tolist()
    for row, (position, z, k) in enumerate(zip(positions, logits.tolist(), target.tolist())):
        alpha = alphas[row] if labeling.alpha == "adaptive" else float(labeling.alpha)
        log_p = [x - max(z) - math.log(sum(math.exp(y - max(z)) for y in z)) for x in z]
        powers = [math.exp((x - max(log_p)) / labeling.tau) for x in log_p]
        p_star = {symbol: power / sum(powers) for symbol, power in zip(symbols, powers)}
        assert position.alpha == pytest.approx(alpha)
        assert position.entropy == pytest.approx(
            -sum(math.exp(x) * x for x in log_p if x > -700) / math.log(2), abs=1e-9
        )
        assert position.probability == pytest.approx(math.exp(log_p[k]), abs=1e-12)
        assert position.right.token == symbols[k]
        assert sorted((share.p_star for share in position.top), reverse=True) == [
            share.p_star for share in position.top
        ]
        for share in [position.right, *position.top]:
            right = share.token == symbols[k]
            assert share.p_star == pytest.approx(p_star[share.token], abs=1e-12)
            assert share.label == pytest.approx((1 - alpha) * right + alpha * p_star[share.token], abs=1e-12)
            assert share.uniform == pytest.approx((1 - labeling.epsilon) * right + labeling.epsilon / 6)
        assert sum(share.label for share in position.top) == pytest.approx(1)
        assert sum(share.uniform for share in position.top) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, "tau must be a finite number > 0, got 0"),
        ({"rho": 2}, r"rho must be in \[0.5, 1\], got 2"),
        ({"alpha": "x"}, r"alpha must be 'adaptive' or a number in \[0, 1\], got x"),
        ({"epsilon": 2}, r"epsilon must be in \[0, 1\], got 2"),
    ],
)
def test_label_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        label_positions(torch.zeros(1, 4), torch.tensor([1]), list("abcd"), Labeling(**options))


@pytest.mark.parametrize("top", [0, 5])
def test_more_tokens_than_there_are(top):
    with pytest.raises(UserError, match=f"top must be from 1 to the 4 tokens of the vocabulary, got {top}"):
        label_positions(torch.zeros(1, 4), torch.tensor([1]), list("abcd"), Labeling(), top)


# tables, files, figures


def test_table_is_aligned_and_fits_the_terminal():
    long = " · ".join(f"token{number}\u00a00.{number:03}" for number in range(30))
    text = Table("caption", ("", "x", "what"), [("a", "1.5", long), ("longer", "-22.25", "short")]).text()
    lines = text.splitlines()
    assert lines[0] == "caption"
    assert max(map(len, lines)) <= WIDTH
    assert lines[2].index("what") == lines[3].index("token0") == len(lines[4]) - len(lines[4].lstrip())
    assert lines[-1].split() == ["longer", "-22.25", "short"]
    assert "token29\u00a00.029" in text, "a token and its number are not torn apart"


def test_table_escapes_what_would_break_it():
    table = Table("a < b", ("token", "p"), [("|", "0.5"), ("<s>", "1")])
    assert r"| \| | 0.5 |" in table.markdown()
    assert "| --- | ---: |" in table.markdown()
    html = page("<script>", "& text", [Section("x", "<b>", [table])])
    assert '<th scope="row">&lt;s&gt;</th><td class="number">1</td>' in html
    assert "<caption>a &lt; b</caption>" in html
    assert "<title>&lt;script&gt;</title>" in html
    assert "<script>" not in html
    assert "<b>" not in html


@pytest.fixture(scope="module")
def confidences():
    rng = np.random.default_rng(1)
    summaries = []
    for test in ("valid", "test"):
        for system in ("ls", "labo"):
            for part in (*PARTS, WHOLE):
                values = rng.random((3, 40))
                told = Predictions(values[0] / 2, values[0], values[1] < values[0], 5 * values[2])
                summaries.append(
                    Confidence(test, system, part, summarize_hypotheses([values[2]]), summarize_teacher_forced(told, 5))
                )
    return summaries


def calibrations():
    rng = np.random.default_rng(2)
    measured = []
    for test in ("valid", "test"):
        for system in ("ls", "labo"):
            for kind, temperature in (("model", None), ("temperature", 0.8)):
                confidence = rng.random(60)
                diagram = reliability(confidence, rng.random(60) < confidence, 5)
                numbers = (60, 4.0, 0.5, 0.5, 0.1, 0.1, 0.001, None, 0.3)
                measured.append(Calibration(test, system, kind, temperature, *numbers, diagram))
    return measured


def positions():
    symbols = ["a", "$x$", "|", "</s>", "▁the", "b@@"]
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    return label_positions(logits, torch.arange(6), symbols, Labeling(), 3)


def analyses(scored, confidences):
    return {
        "frequency": frequency_result(scored[3]),
        "confidence": confidence_result(confidences, 5),
        "calibration": calibration_result(calibrations(), 5),
        "labels": labels_result("x", "y", {"ls": positions(), "labo": positions()}, {"ls": "ls: τ", "labo": "labo: τ"}),
    }


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("frequency", ["frequency"]),
        ("confidence", ["confidence"]),
        ("calibration", ["calibration"]),
        ("labels", ["labels-1", "labels-2"]),
    ],
)
def test_files_of_an_analysis(scored, confidences, name, figures, tmp_path):
    analysis = analyses(scored, confidences)[name]
    paths = analysis.write(tmp_path)
    assert [path.name for path in paths] == [
        *(f"{name}.{ending}" for ending in ("md", "csv", "json")),
        *(f"{figure}.png" for figure in figures),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths), (
        "nothing else is left"
    )
    known = json.loads(paths[2].read_text(encoding="utf-8"))["records"]
    assert read_csv(paths[1]) == [
        {key: "" if value is None else str(value) for key, value in cell.items()} for cell in known
    ]
    text = paths[0].read_text(encoding="utf-8")
    assert text.startswith(f"# {analysis.title}\n")
    assert all(table.markdown() in text for table in analysis.tables)
    assert all(path.read_bytes().startswith(PNG) for path in paths[3:])


def test_without_matplotlib_the_rest_is_written(scored, confidences, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    for analysis in analyses(scored, confidences).values():
        assert len(analysis.write(tmp_path)) == 3
        assert [to_svg(figure) for figure in analysis.figures] == [None] * len(analysis.figures)


def painted(figure):
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas()
    figure.paint(canvas)
    return canvas


def test_figures_show_the_numbers(scored, confidences):
    """What the panels hold, read back from matplotlib."""
    results = analyses(scored, confidences)
    lines = painted(results["frequency"].figures[0]).axes[0].get_lines()
    dots = [value for line in lines for value in line.get_ydata()]
    assert dots == pytest.approx([part.bleu for part in scored[3]])
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines), "color and shape"

    panels = painted(results["confidence"].figures[0]).axes
    assert [axes.get_title() for axes in panels] == ["ls, valid", "labo, valid", "ls, test", "labo, test"]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1, "not the same axes"
    drawn = [list(stairs.get_data().values) for axes in panels for stairs in axes.patches]
    assert drawn == [
        pytest.approx([100 * share for share in one.chosen.histogram]) for one in confidences if one.part != WHOLE
    ]

    panels = painted(results["calibration"].figures[0]).axes
    assert [axes.get_title() for axes in panels] == ["ls, valid", "labo, valid", "ls, test", "labo, test"]
    for axes in panels:
        of_panel = [one for one in calibrations() if f"{one.system}, {one.test}" == axes.get_title()]
        # the first line is the diagonal; the bars of the errors are collections
        curves = [line for line in axes.get_lines()[1:] if len(line.get_xdata())]
        for line, one in zip(curves, of_panel):
            full = [bin for bin in one.reliability if bin.tokens]
            assert list(line.get_xdata()) == pytest.approx([bin.confidence for bin in full])
            assert list(line.get_ydata()) == pytest.approx([bin.accuracy for bin in full])
        assert len(curves) == len(of_panel) == 2

    panels = painted(results["labels"].figures[0]).axes
    for axes, position in zip(panels, positions()):
        widths = [bar.get_width() for bar in axes.patches]
        assert widths[:3] == pytest.approx([1, position.right.uniform, position.right.label])
        assert Counter(widths)[1.0] == 1, "one token is the right one"


def test_svg_follows_the_page(tmp_path):
    def paint(figure):
        figure.subplots().set_title("title")

    figure = Figure("x", "a figure", (3, 2), paint)
    svg = to_svg(figure)
    assert svg.startswith("<svg")
    assert "prefers-color-scheme:dark" in svg
    assert "var(--ink)" in svg
    assert "#010203" not in svg
    assert svg == to_svg(figure), "equal figures are equal files"
    assert save_png(tmp_path / "x.png", figure.size, paint)
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)


def test_characters_without_a_font_are_told_of_once(tmp_path, monkeypatch, recwarn, caplog):
    """U+20E5 is in a font of matplotlib that is not its usual one, and no font of it has Chinese."""
    monkeypatch.setattr(figure_module, "_boxes", set())
    monkeypatch.setattr(figure_module, "_OTHER_SCRIPTS", ("STIXGeneral", "No such font"))

    def paint(figure):
        figure.subplots().set_title("a\u20e5 中文")

    assert save_png(tmp_path / "x.png", (3, 2), paint)
    assert to_svg(Figure("x", "a figure", (3, 2), paint)).startswith("<svg")
    (line,) = caplog.messages
    assert line.startswith(
        "figures have boxes in place of characters that no font here has, such as 中: install a font"
    )
    assert figure_module._boxes == set("中文")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_curves_of_several_runs():
    from matplotlib.figure import Figure

    ls = {"train": {"nll_loss": {1: 9.0, 2: 8.0}}, "valid": {"nll_loss": {2: 8.5}}}
    labo = {"train": {"nll_loss": {1: 9.0, 2: 8.1}, "alpha": {2: 0.7}}, "valid": {"nll_loss": {2: 8.4}}}
    runs = {"ls": ls, "labo": labo}
    quantities = {"alpha": Quantity("smoothing mass α"), "entropy": Quantity("entropy of p", "bits")}
    panels = compared_panels(runs, quantities)
    assert [panel[1:] for panel in panels] == [
        ("valid", "nll_loss"),
        ("train", "nll_loss"),
        ("train", "alpha"),
    ]
    assert panels[-1][0] == "training: smoothing mass α"
    assert len(compared_panels({"ls": ls}, quantities)) == 2, "no empty panel"
    figure = Figure()
    partial(paint_compared, runs=runs, warmups={"ls": None, "labo": 1}, panels=panels)(figure)
    assert len(figure.axes) == 3
    lines = [list(map(list, line.get_data())) for line in figure.axes[2].get_lines()]
    assert [[2], [0.7]] in lines
    assert [[1, 1], [0, 1]] in lines, "the end of the warm-up"
