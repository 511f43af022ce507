"""The analyses and the report of finished runs, as users run them."""

import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import browser
from contributing import recipe
from fairseq_runs import command, finished, read_csv, run

from labo_fairseq import cli
from labo_fairseq.analysis.calibration import join, predictions
from labo_fairseq.analysis.frequency import training_counts
from labo_fairseq.analysis.hypotheses import decode, held_out
from labo_fairseq.analysis.labels import labeling_of
from labo_fairseq.analysis.teacher_forcing import TeacherForcedModel
from labo_fairseq.evaluation.generate import generation_log
from labo_fairseq.evaluation.metrics import METRICS
from labo_fairseq.evaluation.runs import load_run
from labo_fairseq.files import read_lines
from labo_fairseq.losses import labo_log_posterior
from labo_fairseq.reporting.table import WIDTH
from labo_fairseq.subprocesses import USER_DIR

LABO = command("labo-fairseq")
SETS = ["valid", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco"]
NAMES = ["ls-seed1-smoke", "labo-seed1-smoke"]


@pytest.fixture(scope="module")
def pair(multi30k):
    """Folders of the two runs, the baseline first."""
    return [finished(multi30k[0], method) for method in ("ls", "labo")]


@pytest.mark.once
def test_help_teaches():
    shown = run(LABO, "analyse", "--help").stdout
    assert all(name in shown for name in ("frequency", "confidence", "calibration", "labels"))
    shown = run(LABO, "analyse", "labels", "--help").stdout
    assert '"Am Anfang war das Wort."' in " ".join(shown.split())
    assert "None" not in shown
    assert "--out" in run(LABO, "report", "--help").stdout


# the numbers against fairseq's own


def test_counts_are_those_of_fairseqs_dictionary(pair):
    """The joined dictionary is what the script of Raunak et al. takes the frequencies from."""
    labo = load_run(pair[1])
    entries = (line.rpartition(" ") for line in read_lines(labo.data.binarized / "dict.de.txt"))
    known = {token: int(count) for token, _, count in entries if not token.startswith("madeupword")}
    assert training_counts(labo) == known


def test_teacher_forcing_is_fairseq_validate(pair, tmp_path):
    """Likelihood, accuracy and entropy on the validation set."""
    labo = load_run(pair[1])
    done = run(
        *(command("fairseq-validate"), labo.data.binarized, "--user-dir", USER_DIR, "--path", labo.checkpoint),
        *("--task", "translation", "--max-tokens", "1000", "--log-format", "json", "--cpu"),
        # fairseq-fixed leaves out sentences that do not fill a multiple
        *("--required-batch-size-multiple", "1"),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    known = {name: float(value) for name, value in json.loads(re.search(r"valid \| (\{.*\})", done.stdout)[1]).items()}
    pairs = list(zip(*(read_lines(labo.data.subwords("valid", side)) for side in ("de", "en"))))
    actual = join(TeacherForcedModel(labo, ("de", "en")).map(pairs, predictions, "valid"))
    assert -np.log2(actual.probability).mean() == pytest.approx(known["valid_nll_loss"], abs=0.002)
    assert 100 * actual.correct.mean() == pytest.approx(known["valid_accuracy"], abs=0.002)
    assert actual.entropy.mean() == pytest.approx(known["valid_entropy"], abs=0.002)


@pytest.mark.parametrize("batch", [4096, 60])
def test_probabilities_of_chosen_tokens_are_those_under_teacher_forcing(pair, tmp_path, batch, monkeypatch):
    """fairseq-generate's scores of a hypothesis, and the model told that hypothesis, whatever the batches."""
    monkeypatch.setattr("labo_fairseq.analysis.teacher_forcing._TOKENS", batch)
    labo = load_run(pair[1])
    test = held_out(labo)[1]
    decoded = decode(labo, [test], tmp_path)[test]
    assert not list(tmp_path.iterdir()), "the run has these translations"
    log = generation_log(labo.hypotheses(test.split, test.direction))
    lines = (line.split("\t") for line in read_lines(log) if line.startswith("H-"))
    hypotheses = {int(number[2:]): text for number, _, text in lines}
    sources = list(read_lines(labo.data.subwords(test.name, "de")))
    assert decoded.subwords == [hypotheses[number] for number in range(len(sources))]
    pairs = list(zip(sources, decoded.subwords))
    told = TeacherForcedModel(labo, test.direction).map(pairs, predictions, "told")
    assert len(decoded.lines) == len(decoded.probabilities) == len(sources) == 50
    for probabilities, prediction in zip(decoded.probabilities, told):
        # printed with four decimals of the logarithm
        np.testing.assert_allclose(probabilities, prediction.probability, rtol=2e-4)


# the commands


@pytest.fixture(scope="module")
def analysed(pair, tmp_path_factory):
    """What 'analyse frequency' prints, and where it wrote."""
    out = tmp_path_factory.mktemp("analyses") / "my rüns"
    before = [sorted(folder.rglob("*")) for folder in pair]
    done = run(LABO, "analyse", "frequency", *pair, "--out", out)
    assert done.returncode == 0, done.stdout[-3000:]
    assert [sorted(folder.rglob("*")) for folder in pair] == before, "written somewhere else"
    return out, done.stdout


def test_frequency(analysed):
    out, shown = analysed
    rows = read_csv(out / "frequency.csv")
    assert [row["test"] for row in rows[::6]] == SETS
    assert [row["system"] for row in rows[:6]] == [NAMES[0]] * 3 + [NAMES[1]] * 3
    assert [int(row["sentences"]) for row in rows[:3]] == [17, 17, 16]
    for test in range(len(SETS)):
        scores = [float(row["frequency"]) for row in rows[6 * test : 6 * test + 3]]
        assert scores == sorted(scores, reverse=True)
    for row in rows:
        assert f"{float(row['bleu']):.2f}" in shown
    assert {"frequency.md", "frequency.json", "frequency.png", "translations"} <= {path.name for path in out.iterdir()}
    assert max(map(len, shown[shown.index("valid, BLEU") :].splitlines()[:6])) <= WIDTH


@pytest.mark.once
def test_only_what_is_not_translated_yet_is_translated(pair, analysed):
    out, shown = analysed
    kept = sorted(path.name for path in out.glob("translations/*/*") if path.suffix == ".log")
    assert kept == ["valid.log"] * 2
    before = {path: path.stat().st_mtime_ns for path in out.glob("translations/*/*")}
    done = run(LABO, "analyse", "frequency", *pair, "--out", out)
    assert "translate valid" not in done.stdout
    tables = done.stdout[done.stdout.index("valid, BLEU") :]
    assert tables == shown[shown.index("valid, BLEU") :]
    assert {path: path.stat().st_mtime_ns for path in out.glob("translations/*/*")} == before


@pytest.mark.once
def test_translations_of_another_model_are_not_taken(pair, tmp_path):
    """As after a training that was started over in the same folder."""
    labo = load_run(pair[1])
    valid = held_out(labo)[0]
    decode(labo, [valid], tmp_path)
    checkpoint = labo.checkpoint
    status = checkpoint.stat()
    os.utime(checkpoint, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    decode(labo, [valid], tmp_path)
    os.utime(checkpoint, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(list(tmp_path.iterdir())) == 2
    # half a log is no log
    for log in tmp_path.glob("*/valid.log"):
        log.write_bytes(log.read_bytes()[:5000])
    assert len(decode(labo, [valid], tmp_path)[valid].probabilities) == 50


def test_confidence(pair, analysed):
    out = analysed[0]
    done = run(LABO, "analyse", "confidence", *pair, "--out", out, "--bins", "4")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "DEBUG" not in done.stdout
    rows = read_csv(out / "confidence.csv")
    assert [(row["test"], row["system"]) for row in rows[::4]] == [(test, name) for test in SETS for name in NAMES]
    for start in range(0, len(rows), 4):
        *parts, whole = rows[start : start + 4]
        assert [row["part"] for row in (*parts, whole)] == ["most", "medium", "least", "all"]
        for name in ("chosen_mean", "forced_accuracy", "forced_probability", "forced_entropy"):
            weights = [int(row[name.split("_")[0] + "_tokens"]) for row in parts]
            mean = np.average([float(row[name]) for row in parts], weights=weights)
            assert mean == pytest.approx(float(whole[name]))
    facts = json.loads((out / "confidence.json").read_text(encoding="utf-8"))
    assert [len(distribution["forced"]["reliability"]) for distribution in facts["distributions"]] == [4] * len(rows)
    assert (out / "confidence.png").exists()


def test_calibration(pair, analysed):
    out = analysed[0]
    done = run(LABO, "analyse", "calibration", *pair, "--out", out, "--bins", "5")
    assert done.returncode == 0, done.stdout[-3000:]
    rows = {(row["test"], row["system"], row["kind"]): row for row in read_csv(out / "calibration.csv")}
    kinds = ["model", "posterior", "temperature"]
    assert len(rows) == len(SETS) * len(NAMES) * len(kinds)
    for name in NAMES:
        # the validation set is what the temperature was fitted on
        model, fitted = (float(rows["valid", name, kind]["nll"]) for kind in ("model", "temperature"))
        assert fitted < model
        assert float(rows["valid", name, "temperature"]["temperature"]) != 1
        for test in SETS:
            accuracies = {rows[test, name, kind]["accuracy"] for kind in kinds}
            assert len(accuracies) == 1, "the best token stays the best"
    # the same model, the same tokens: what the confidence analysis says of them
    labo = load_run(pair[1])
    pairs = list(zip(*(read_lines(labo.data.subwords("valid", side)) for side in ("de", "en"))))
    told = join(TeacherForcedModel(labo, ("de", "en")).map(pairs, predictions, "valid"))
    options = {name: labo.config["criterion"][name] for name in ("tau", "alpha")}
    recovered = TeacherForcedModel(labo, ("de", "en")).map(
        pairs, lambda logits, target: predictions(labo_log_posterior(logits, **options), target), "valid"
    )
    row = rows["valid", NAMES[1], "posterior"]
    assert float(row["nll"]) == pytest.approx(-np.log2(join(recovered).probability).mean(), rel=1e-5)
    row = rows["valid", NAMES[1], "model"]
    assert float(row["nll"]) == pytest.approx(-np.log2(told.probability).mean(), rel=1e-5)
    assert float(row["confidence"]) == pytest.approx(told.confidence.mean(), rel=1e-5)
    diagrams = json.loads((out / "calibration.json").read_text(encoding="utf-8"))["diagrams"]
    assert all(len(one["reliability"]) == 5 for one in diagrams)
    assert sum(bin["tokens"] for bin in diagrams[0]["reliability"]) == diagrams[0]["tokens"]
    assert (out / "calibration.png").exists()
    table = done.stdout[done.stdout.index("valid\n\n") :]
    assert max(map(len, table.splitlines()[:8])) <= WIDTH


# one entry, one module: a score and an analysis of one's own


@pytest.mark.once
def test_a_score_of_ones_own(pair, monkeypatch, capsys, tmp_path):
    """One entry in the registry: the command line, the significance test and the tables know it."""
    monkeypatch.setitem(METRICS, "length", None)  # which takes it away again
    exec(recipe("Add a score"), {})
    folders = [str(folder) for folder in pair]
    assert cli.main(["compare", *folders, "--metrics", "length", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    lines = [list(read_lines(load_run(folder).hypotheses("test_2016_flickr", ("de", "en")))) for folder in pair]
    right = list(read_lines(load_run(pair[0]).data.raw("test_2016_flickr", "en")))
    words = [sum(len(line.split()) for line in text) for text in (*lines, right)]
    assert first["score"] == pytest.approx(100 * words[0] / words[2])
    assert second["score"] == pytest.approx(100 * words[1] / words[2])
    assert 0 < second["p"] <= 1
    assert cli.main(["evaluate", folders[1], "--beam", "1", "--metrics", "length"]) == 0
    assert capsys.readouterr().out.count("length ratio ") == len(SETS) - 1


@pytest.mark.once
def test_an_analysis_of_ones_own(pair, tmp_path, monkeypatch, capsys):
    """One module in the package: a subcommand with its help, files, and a section of the report."""
    from labo_fairseq import analysis

    (tmp_path / "toy.py").write_text(recipe("Add an analysis"), encoding="utf-8")
    monkeypatch.setattr(analysis, "__path__", [*analysis.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "labo_fairseq.analysis.toy", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["analyse", "--help"])
    assert "length of the logs" in capsys.readouterr().out
    folders = [str(folder) for folder in pair]
    assert cli.main(["analyse", "toy", *folders, "--out", str(tmp_path / "out")]) == 0
    lines = [str((folder / "train.log").read_text(encoding="utf-8").count("\n")) for folder in pair]
    assert [row["lines"] for row in read_csv(tmp_path / "out" / "toy.csv")] == lines
    monkeypatch.setattr("labo_fairseq.experiments.report.analyses", lambda: {"toy": analysis.analyses()["toy"]})
    assert cli.main(["report", *folders, "--out", str(tmp_path / "out")]) == 0
    assert "Toy analysis</h2>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_labels(pair):
    source, target = "Ein Hund läuft | schnell.", "A dog runs fast."
    done = run(LABO, "analyse", "labels", pair[1], source, target, "--top", "3", "--tau", "2")
    assert done.returncode == 0, done.stdout[-3000:]
    table = done.stdout[done.stdout.index("labo-seed1-smoke: ") :].split("\n\n")[1].splitlines()
    assert max(map(len, table)) <= WIDTH
    assert table[0].split()[:7] == ["token", "α", "H", "p", "P*", "label", "LS"]
    out = pair[1] / "analysis"
    rows = read_csv(out / "labels.csv")
    right = [row for row in rows if row["rank"] == "0"]
    assert "".join(row["token"] for row in right).replace("@@", "") == "Adogrunsfast.</s>"
    assert len(rows) == 4 * len(right)
    facts = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    assert facts["labels"] == {NAMES[1]: f"{NAMES[1]}: τ = 2, α adaptive, ρ = 0.5, ε = 0.1"}
    assert (out / "labels.png").exists()
    # from the newest run below a folder, in the one direction there is
    again = run(LABO, "analyse", "labels", pair[1].parent, source, target, "--source", "de")
    assert again.returncode == 0, again.stdout[-3000:]


def test_labels_have_the_options_of_the_run(pair):
    ls, labo = map(load_run, pair)
    criterion = labo.config["criterion"]
    trained = labeling_of(labo)
    assert (trained.tau, trained.alpha, trained.rho) == (criterion["tau"], "adaptive", 0.5)
    criterion.update({"alpha": "0.2", "rho": 0.7, "tau": 1.15, "label_smoothing": 0.05})
    trained = labeling_of(labo)
    assert (trained.tau, trained.alpha, trained.rho, trained.epsilon) == (1.15, "0.2", 0.7, 0.05)
    # what another criterion calls α is none of LABO's business
    ls.config["criterion"].update({"alpha": 3, "label_smoothing": 0.2})
    assert (labeling_of(ls).alpha, labeling_of(ls).epsilon) == ("adaptive", 0.2)


@pytest.mark.once
def test_runs_on_other_data_are_refused(pair, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    result = json.loads((pair[0] / "result.json").read_text(encoding="utf-8"))
    result["settings"]["directions"] = [["en", "de"]]
    (other / "result.json").write_text(json.dumps({**result, "data": str(load_run(pair[0]).data.folder)}))
    done = run(LABO, "report", pair[0], other, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "were trained on different data or in different directions" in done.stdout


# the report


class Outline(HTMLParser):
    """Tags with their attributes, and the headings."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.headings = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and re.fullmatch("h[1-6]", self.tags[-1][0]) and data.strip():
            self.headings.append((self.tags[-1][0], data))


@pytest.fixture(scope="module")
def report(pair, analysed):
    done = run(LABO, "report", *pair, "--out", analysed[0])
    assert done.returncode == 0, done.stdout[-3000:]
    path = analysed[0] / "report.html"
    assert done.stdout.splitlines()[-1] == f"report    {path}"
    return path


def test_report_holds_everything(report, pair):
    text = report.read_text(encoding="utf-8")
    outline = Outline(text)
    assert [tag for tag, _ in outline.headings] == ["h1", *["h2"] * 7]
    assert [words.split()[0] for _, words in outline.headings[1:]] == [
        *("Scores", "Training", "Settings", "Calibration", "Confidence", "BLEU", "Labels")
    ]
    for folder in pair:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        for scores in result["evaluation"]["tests"].values():
            for score in scores:
                assert f"{score['value']:.2f}" in text
                assert score["signature"] in text
        assert f"{result['training']['target_tokens_per_second']:,.0f}" in text
        assert f"{result['training']['peak_memory_mib']:,}" in text
    assert "criterion.tau" in text
    for name in ("frequency", "confidence", "calibration", "labels"):
        assert (report.parent / f"{name}.md").exists()


@pytest.mark.once
def test_report_is_accessible_and_stands_alone(report):
    tags = Outline(report.read_text(encoding="utf-8")).tags
    names = [name for name, _ in tags]
    assert "script" not in names
    assert "link" not in names
    assert dict(tags)["html"] == {"lang": "en"}
    assert all(len(attributes["alt"]) > 40 for name, attributes in tags if name == "img")
    assert names.count("table") == names.count("caption")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        for value in (attributes.get("src"), attributes.get("href")):
            assert value is None or value.startswith("data:image/svg+xml;base64,") or value.lstrip("#") in ids


@pytest.mark.once
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)], ids=["wide", "dark", "phone"])
def test_report_in_a_browser(report, tmp_path, width, dark):
    # alone in a folder: nothing beside it can help
    page = tmp_path / "alone.html"
    shutil.copy(report, page)
    with browser() as window:
        window.open(page, width, dark=dark)
        assert window.run("return document.title") != ""
        sizes = window.run("return [...document.images].map(image => [image.complete, image.naturalWidth])")
        assert len(sizes) == 6
        assert all(complete and natural > 300 for complete, natural in sizes)
        wide = window.run("return document.documentElement.scrollWidth")
        assert wide <= width, "the page itself scrolls sideways"
        ink, paper = window.run(
            "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
        )
        light = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ink, paper)]
        assert (light[0] > light[1]) == dark
        assert set(window.requests(page)) == {page.resolve().as_uri(), "data:"}, "something was asked for elsewhere"
        assert window.errors() == []
        window.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 50_000


@pytest.mark.once
def test_report_of_one_run(pair, tmp_path):
    done = run(LABO, "report", pair[1], "--out", tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the first is the baseline" not in text
    assert "What differs" not in text
