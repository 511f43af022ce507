"""The paper's corpora from archive to BLEU, as users run them, on archives of the campaigns' layout."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import campaign
import pytest
import yaml
from fairseq_runs import assert_same_parameters, command, finished, parameters, read_csv, run, side_by_side

from labo_fairseq.cli import main
from labo_fairseq.data.moses import lowercase, tokenize
from labo_fairseq.data.prepared_corpus import Prepared
from labo_fairseq.evaluation.runs import load_run
from labo_fairseq.experiments.recipes import find, run_config
from labo_fairseq.experiments.run_directory import as_written_today
from labo_fairseq.files import read_lines
from labo_fairseq.reporting.training_log import read_curves
from labo_fairseq.subprocesses import free_port

LABO = command("labo-fairseq")
RUNS_OF_0_1 = Path(__file__).parents[1] / "data" / "runs_of_0_1.json"


def prepare(corpus, direction, archives, folder, *options):
    done = run(LABO, "prepare", corpus, direction, "--archive-dir", archives, "--destdir", folder, *options)
    assert done.returncode == 0, done.stdout[-3000:]
    return Prepared(folder), done.stdout


@pytest.mark.once
@pytest.mark.parametrize(
    ("build", "source", "tests"),
    [(campaign.iwslt14_de_en, "de", 6750), (campaign.iwslt14_en_fr, "fr", 4493)],
    ids=["de-en", "fr-en"],
)
def test_iwslt14(tmp_path, build, source, tests):
    """The sizes that are known, the rule of fairseq's script on the rest, and lower case."""
    data, shown = prepare("iwslt14", f"{source}-en", build(tmp_path / "archives"), tmp_path / "data")
    assert data.pairs["test"] == tests
    kept = data.pairs["train"] + data.pairs["valid"]
    assert data.pairs["valid"] == kept // 23
    for language in (source, "en"):
        assert data.tests == ["test"]
        raw, tokens = (list(read_lines(place("train", language))) for place in (data.raw, data.tokens))
        assert lowercase(tokenize(language, raw[:50])) == tokens[:50]
        assert all(1 <= len(line.split()) <= 175 for line in tokens)
    pairs = zip(*(read_lines(data.tokens("train", language)) for language in (source, "en")))
    assert all(2 / 3 <= len(a.split()) / len(b.split()) <= 1.5 for a, b in pairs)
    assert f"{data.pairs['train']:,} pairs" in shown
    assert sum(1 for line in read_lines(data.codes) if not line.startswith("#version")) <= 10000


@pytest.mark.once
def test_wmt14(tmp_path):
    archives = campaign.wmt14(tmp_path / "archives")
    data, _ = prepare("wmt14", "de-en", archives, tmp_path / "data", "--smoke")
    assert data.recipe["source"] == "en"
    assert data.recipe["target"] == "de"
    for language in ("en", "de"):
        lengths = [len(line.split()) for line in read_lines(data.subwords("train", language))]
        assert max(lengths) <= 250
    # the dash of "a-b" is a token of its own, and the ampersand is escaped
    text = "\n".join(read_lines(data.tokens("train", "en")))
    assert "@-@" in text
    assert "&apos;" in text


TESTS = ["test_2016_flickr", "test_2017_flickr", "test_2017_mscoco"]


def test_run_ends_with_scores(multi30k):
    folder, shown = multi30k
    for method in ("labo", "ls"):
        result = json.loads((finished(folder, method) / "result.json").read_text(encoding="utf-8"))
        assert list(result["evaluation"]["tests"]) == TESTS
        for name, scores in result["evaluation"]["tests"].items():
            assert [score["name"] for score in scores] == ["BLEU", "chrF2", "BLEU (tokenised)"]
            lines = list(read_lines(finished(folder, method) / "translations" / f"{name}.en"))
            assert len(lines) == 50
            for score in scores:
                assert f"{score['value']:.2f}  ({score['signature']})" in shown[method]
    config = yaml.safe_load((finished(folder) / "training.yaml").read_text(encoding="utf-8"))
    assert config["criterion"]["_name"] == "labo"
    assert (finished(folder) / "training.png").exists()


@pytest.mark.parametrize("corpus", ["multi30k", "bible"])
def test_a_finished_run_of_version_0_1_is_the_same_run(corpus):
    """Its settings, written down by revision 416e5d9, are those that the same command has today."""
    theirs = json.loads(RUNS_OF_0_1.read_text(encoding="utf-8"))[corpus]
    setup = find(corpus, "de-en")
    config = run_config(setup, "labo", 1, smoke=True)
    assert json.loads(json.dumps(config)) == as_written_today(theirs)["config"]
    assert [list(direction) for direction in setup.directions] == theirs["directions"]
    assert setup.training.checkpoint == theirs["checkpoint"]


def test_the_preparation_of_version_0_1_is_the_same(multi30k):
    theirs = json.loads(RUNS_OF_0_1.read_text(encoding="utf-8"))["multi30k"]
    settings = json.loads((multi30k[0] / "multi30k/de-en/labo-seed1-smoke/settings.json").read_text(encoding="utf-8"))
    assert settings == theirs


def test_run_again_repeats_nothing(multi30k):
    folder, shown = multi30k
    log = finished(folder) / "train.log"
    before = log.stat().st_mtime_ns
    options = ("--smoke", "--archive-dir", campaign.shared("multi30k"), "--folder", folder)
    done = run(LABO, "run", "multi30k", "de-en", *options)
    assert done.stdout.strip() == shown["labo"][shown["labo"].index("source / reference") :].strip()
    assert log.stat().st_mtime_ns == before


def test_evaluate_with_an_average_and_another_search(multi30k):
    place = finished(multi30k[0])
    done = run(LABO, "evaluate", place, "--average", "2", "--beam", "1", "--lenpen", "0.6", "--json")
    assert done.returncode == 0, done.stdout[-3000:]
    evaluation = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert evaluation["checkpoint"] == "checkpoint_average2.pt"
    assert (evaluation["beam"], evaluation["lenpen"]) == (1, 0.6)
    assert list(evaluation["tests"]) == TESTS
    kept = place / "evaluations" / "average2-beam1-lenpen0.6" / "scores.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == evaluation


@pytest.fixture
def their_own(multi30k, tmp_path):
    """The run, and the files of its main test set as the user's own."""
    place = finished(multi30k[0])
    data = load_run(place).data
    paths = [tmp_path / f"my-test.2024.{language}" for language in ("de", "en")]
    for path in paths:
        shutil.copy(data.raw(TESTS[0], path.suffix[1:]), path)
    return place, data, paths


@pytest.mark.once
def test_evaluate_and_compare_on_other_files_as_on_the_test_sets(multi30k, their_own, capsys):
    place, data, paths = their_own
    first = json.loads((place / "result.json").read_text(encoding="utf-8"))["evaluation"]
    assert main(["evaluate", str(place), "--json", "--test", *map(str, paths)]) == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert evaluation == {**first, "tests": {"my-test": first["tests"][TESTS[0]]}}
    (mine,) = (place / "evaluations" / "tests").iterdir()
    for language in ("de", "en"):
        for kind in ("raw", "tok", "bpe"):
            made = (mine / kind / f"my-test.{language}").read_bytes()
            assert made == (data.folder / kind / f"{TESTS[0]}.{language}").read_bytes()
        for ending in ("bin", "idx"):
            name = f"test.de-en.{language}.{ending}"
            assert (mine / "bin" / name).read_bytes() == (data.binarized / name).read_bytes()
    # both languages in one file, in the other order of commands: found as done
    sides = [path.read_text(encoding="utf-8").splitlines() for path in paths]
    table = paths[0].with_name("my-test.tsv")
    table.write_text("".join("\t".join(pair) + "\n" for pair in zip(*sides)), encoding="utf-8")
    assert main(["evaluate", str(place), "--json", "--test", str(table)]) == 0
    assert json.loads(capsys.readouterr().out) == evaluation
    assert list((place / "evaluations" / "tests").iterdir()) == [mine]
    # and compared, as on the test set of the corpus
    folders = [str(finished(multi30k[0], method)) for method in ("ls", "labo")]
    compared = []
    for test in ([TESTS[0]], list(map(str, paths))):
        assert main(["compare", *folders, "--samples", "50", "--json", "--test", *test]) == 0
        compared.append(json.loads(capsys.readouterr().out))
    assert compared[1] == compared[0]
    assert main(["compare", folders[0], "--test", *map(str, paths)]) == 1
    assert "a comparison needs at least two runs" in capsys.readouterr().err
    assert json.loads((place / "result.json").read_text(encoding="utf-8"))["evaluation"] == first


GOOD = (b"eins\n", b"one\n")


@pytest.mark.once
@pytest.mark.parametrize(
    ("texts", "names", "message"),
    [
        (GOOD, ("x.en", "x.de"), "is in the wrong order for de-en"),
        (GOOD, ("x.de", "x.en", "x.en"), "--test takes one file with both languages, or two files"),
        (GOOD, ("x.de", "none.en"), "there is no file"),
        ((b"", b""), ("x.de", "x.en"), "no sentence in "),
        ((b"eins\nzwei\n", b"one\n"), ("x.de", "x.en"), "x.en ends after 1 sentences"),
        ((b"\xff\n", b"one\n"), ("x.de", "x.en"), "UTF-8"),
        (
            (b"eins\n" + b"x " * 2000 + b"\n", b"one\ntwo\n"),
            ("x.de", "x.en"),
            "line 2 of the test set x: a sentence has 2,000 subwords, at most 1,023: cut it into several",
        ),
    ],
)
def test_files_that_are_no_test_set(multi30k, tmp_path, capsys, texts, names, message):
    place = finished(multi30k[0])
    before = sorted(place.rglob("*"))
    for language, text in zip(("de", "en"), texts):
        (tmp_path / f"x.{language}").write_bytes(text)
    assert main(["evaluate", str(place), "--test", *(str(tmp_path / name) for name in names)]) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("labo-fairseq")]
    assert len(error) == 1
    assert message in error[0]
    left = set(place.rglob("*")) - set(before)
    assert all(path.is_dir() or path.name == ".lock" for path in left), "nothing half-written"


@pytest.mark.once
def test_compare(multi30k):
    done = run(LABO, "compare", *(finished(multi30k[0], method) for method in ("ls", "labo")), "--samples", "50")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "ls-seed1-smoke" in done.stdout
    assert "bs:50" in done.stdout, "the signature says how it was tested"
    done = run(LABO, "compare", finished(multi30k[0]), finished(multi30k[0], "ls"), "--test", "x")
    assert done.returncode == 1
    assert "has no test set 'x': choose from test_2016_flickr, " in done.stdout


@pytest.mark.once
def test_the_benchmark_of_tables_reports_copies_of_a_run(multi30k):
    program = Path(__file__).parents[2] / "benchmarks" / "report.py"
    done = run(sys.executable, program, finished(multi30k[0]), "--seeds", "2")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "14 runs, 28 cells: " in done.stdout


@pytest.mark.once
def test_the_benchmark_of_generation_scores_beside_the_commands_of_others(multi30k, tmp_path):
    program = Path(__file__).parents[2] / "benchmarks" / "generation.py"
    done = run(sys.executable, program, finished(multi30k[0]), "--rounds", "1", "--out", tmp_path / "generation.json")
    assert done.returncode == 0, done.stdout[-2000:]
    written = json.loads((tmp_path / "generation.json").read_text(encoding="utf-8"))
    assert (written["sentences"], written["tests"]) == (150, 3)
    for name in ("labo-fairseq", "plain"):
        assert written[name]["sentences_per_second"] == pytest.approx(150 / written["rounds"][0][name]["wall"])
        assert written[name]["processor"] > 0


def test_evaluate_with_calibrated_probabilities(multi30k):
    place = finished(multi30k[0])
    done = run(LABO, "evaluate", place, "--beam", "1", "--posterior", "--json")
    assert done.returncode == 0, done.stdout[-3000:]
    evaluation = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert evaluation["posterior"]
    kept = place / "evaluations" / "best-beam1-lenpen1-posterior" / "scores.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == evaluation
    first = json.loads((place / "result.json").read_text(encoding="utf-8"))["evaluation"]
    assert "posterior" not in first, "as in the results of earlier versions"


@pytest.mark.parametrize("more", [(), ("--posterior",), ("--average", "2", "--lenpen", "0.6")])
def test_translate_with_the_run(multi30k, more):
    done = subprocess.run(
        [LABO, "translate", str(finished(multi30k[0])), "--beam", "1", *more],
        input="Ein Hund läuft.\n\n",
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert [bool(line) for line in done.stdout.split("\n")] == [True, False, False]


def test_two_workers_make_the_updates_of_one(multi30k, tmp_path):
    """Two workers that share a batch as 'labo-fairseq config' cuts it: the same losses, the same model."""
    data = multi30k[0] / "multi30k" / "data-de-en-smoke"
    settings = [
        *("optimization.max_update=4", "optimization.update_freq=[2]", "common.log_interval=1", "common.cpu=true"),
        *("optimization.lr=[0.5]", "model.dropout=0"),
        *("criterion.smoothing_warmup_steps=2", "dataset.disable_validation=true", "task.eval_bleu=false"),
        *("distributed_training.distributed_backend=gloo", "distributed_training.ddp_backend=legacy_ddp"),
        *("checkpoint.best_checkpoint_metric=loss", "checkpoint.maximize_best_checkpoint_metric=false"),
        *("model.encoder.layers=1", "model.decoder.layers=1", "dataset.max_tokens=600"),
    ]
    records, models = [], []
    for workers in (1, 2):
        place = tmp_path / str(workers)
        place.mkdir()
        options = ("--distributed-world-size", workers, "--data", data, "--save-dir", place / "save")
        done = run(LABO, "config", "multi30k_de-en_labo", *settings, *options)
        assert done.returncode == 0, done.stdout
        # plain gradient descent: Adam makes whole steps of the rounding errors where the gradient is 0
        config = yaml.safe_load(done.stdout)
        config["optimizer"] = {"_name": "sgd", "lr": [0.5], "momentum": 0.0, "weight_decay": 0.0}
        config["lr_scheduler"] = {"_name": "fixed"}
        (place / "training.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        assert config["optimization"]["update_freq"] == [2 // workers]
        train = [command("fairseq-hydra-train"), "--config-dir", place, "--config-name", "training"]
        # without GPUs torchrun is none of fairseq's ways to start: each worker is told its rank
        meet = (
            f"distributed_training.distributed_init_method='tcp://127.0.0.1:{free_port()}'",
            "distributed_training.distributed_no_spawn=true",
        )
        ranks = [(*meet, f"distributed_training.distributed_rank={rank}") for rank in range(2)]
        records.append(side_by_side([*train, *rank] for rank in (ranks if workers == 2 else [()])))
        models.append(parameters(place / "save"))
    for name in ("loss", "nll_loss", "alpha", "wpb"):
        one, two = ([values[name] for values in record.values() if name in values] for record in records)
        assert two == pytest.approx(one, abs=2e-3), name
    assert sorted(records[0]) == sorted(records[1]) == [1, 2, 3, 4]
    assert_same_parameters(models[1], models[0], rtol=1e-4, atol=1e-5)


def test_iwslt17_in_one_model(tmp_path, capsys):
    archives = campaign.iwslt17(tmp_path / "archives")
    options = ("--criterion", "labo", "--smoke", "--archive-dir", archives, "--folder", tmp_path / "runs")
    done = run(LABO, "run", "iwslt17", "multilingual", *options)
    assert done.returncode == 0, done.stdout[-3000:]
    place = tmp_path / "runs" / "iwslt17" / "multilingual" / "labo-seed1-smoke"
    result = json.loads((place / "result.json").read_text(encoding="utf-8"))
    assert list(result["evaluation"]["tests"]) == ["test.de-en", "test.fr-en"]
    data = Prepared(tmp_path / "runs" / "iwslt17" / "data-multilingual-smoke")
    files = [str(data.raw("test.fr-en", language)) for language in ("fr", "en")]
    assert main(["evaluate", str(place), "--json", "--test", *files]) == 0
    assert json.loads(capsys.readouterr().out)["tests"] == {"test.fr-en": result["evaluation"]["tests"]["test.fr-en"]}
    dictionaries = {(data.binarized / f"dict.{language}.txt").read_bytes() for language in ("de", "en", "fr")}
    assert len(dictionaries) == 1
    assert all("@@" not in line for line in read_lines(place / "translations" / "test.fr-en.en"))
    log = (place / "train.log").read_text(encoding="utf-8")
    assert "__de__" in log or "langtok" in log
    assert max(len(line.split()) for line in read_lines(data.subwords("train.fr-en", "fr"))) <= 250
    # and its report: every set in both directions
    done = run(LABO, "report", place)
    assert done.returncode == 0, done.stdout[-3000:]
    rows = [row for row in read_csv(place / "analysis" / "confidence.csv") if row["part"] == "all"]
    assert [row["test"] for row in rows] == ["valid.de-en", "test.de-en", "valid.fr-en", "test.fr-en"]
    # the training measured the same accuracy, which it would not with other tokens of the languages
    known = read_curves(place / "train.log")["valid"]["accuracy"].values()
    valid = [(int(row["forced_tokens"]), float(row["forced_accuracy"])) for row in rows if "valid" in row["test"]]
    right, all_tokens = sum(tokens * share for tokens, share in valid), sum(tokens for tokens, _ in valid)
    assert 100 * right / all_tokens == pytest.approx(max(known), abs=0.02)


def test_custom(tmp_path):
    """The user's own files, whatever they are called."""
    names = {}
    for split, lines in {"train": 400, "valid": 30, "test": 20}.items():
        names[split] = []
        for language in ("de", "en"):
            path = tmp_path / f"{split} text.{language}"
            path.write_text("\n".join(campaign.ted_text(language)[:lines]) + "\n", encoding="utf-8")
            names[split].append(path)
    files = [option for split, paths in names.items() for option in (f"--{split}", *paths)]
    options = ("--bpe-operations", "200", "--clean", "2", "1", "60", "--lowercase")
    done = run(LABO, "prepare", "custom", "de-en", *files, *options, "--destdir", tmp_path / "data")
    assert done.returncode == 0, done.stdout[-3000:]
    data = Prepared(tmp_path / "data")
    assert (data.pairs["valid"], data.pairs["test"]) == (30, 20)
    assert 200 < data.pairs["train"] <= 400
    assert (data.binarized / "train.de-en.de.bin").exists()


def test_an_unknown_setting_is_shown_and_leaves_a_run_that_can_be_mended(multi30k):
    options = ("--smoke", "--archive-dir", campaign.shared("multi30k"), "--folder", multi30k[0], "--seed", "9")
    done = run(LABO, "run", "multi30k", "de-en", "criterion.taux=2", *options)
    assert done.returncode == 1
    assert "taux" in done.stdout
    assert "Traceback" not in done.stdout
