"""``--posterior`` in fairseq's own commands, against the formulas applied by hand to what the models predict."""

import contextlib
import io
import math
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq_runs import train_here

from labo_fairseq.checkpoints import load_checkpoint
from labo_fairseq.losses import label_smoothing_log_posterior, labo_log_posterior
from labo_fairseq.subprocesses import USER_DIR

TRAINED = {
    "labo": ("--criterion", "labo", "--smoothing-warmup-steps", "0", "--rho", "0.7"),
    "ls": ("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.2"),
}
#: log-probabilities (…, K) of a prediction → calibrated ones, as the criterions were trained
BACK = {
    "labo": lambda log_p: labo_log_posterior(log_p, tau=1.25, alpha="adaptive", rho=0.7),
    "ls": lambda log_p: label_smoothing_log_posterior(log_p, 0.2, over_others=True),
}


@pytest.fixture(scope="module")
def checkpoints(data, tmp_path_factory):
    """Two small models that have learned a little: method → checkpoint."""
    paths = {}
    for method, options in TRAINED.items():
        folder = tmp_path_factory.mktemp(method)
        short = ("--train-subset", "test", "--max-tokens", "4000", "--lr", "0.02", "--disable-validation")
        train_here(data, folder, *options, *short, updates=12)
        paths[method] = folder / "checkpoint_last.pt"
    return paths


def fairseq(command, data, *options):
    """The output of a command of fairseq, run in this process."""
    module = __import__(f"fairseq_cli.{command}", fromlist=["cli_main"])
    output, given = io.StringIO(), sys.argv
    sys.argv = [f"fairseq-{command}", str(data.binarized), "--user-dir", USER_DIR, *map(str, options)]
    try:
        with contextlib.redirect_stdout(output):
            module.cli_main()
    finally:
        sys.argv = given
    return output.getvalue()


def generated(data, paths, *options):
    """``(sentence, tokens, log-probabilities in base 2)`` of every hypothesis that fairseq-generate prints."""
    short = ("--gen-subset", "valid", "--max-len-b", "6", "--max-tokens", "2000")
    out = fairseq("generate", data, "--path", ":".join(map(str, paths)), *short, *options)
    hypotheses = re.findall(r"^H-(\d+)\t\S+\t(.*)$", out, re.MULTILINE)
    scores = re.findall(r"^P-(\d+)\t(.*)$", out, re.MULTILINE)
    assert [number for number, _ in hypotheses] == [number for number, _ in scores]
    return [
        (int(number), text.split(), [float(score) for score in row.split()])
        for (number, text), (_, row) in zip(hypotheses, scores)
    ]


def predictions(data, path, hypotheses):
    """For every hypothesis the log-probabilities (tokens, K) that the model predicts, float64."""
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    model.eval()
    task.load_dataset("valid")
    eos, rows = task.target_dictionary.eos(), []
    for number, words, _ in hypotheses:
        source = task.dataset("valid")[number]["source"][None]
        tokens = [task.target_dictionary.index(word) for word in words]
        with torch.no_grad():
            logits = model(source, torch.tensor([source.size(1)]), torch.tensor([[eos, *tokens]]))[0][0]
        rows.append((logits.double().log_softmax(-1), torch.tensor([*tokens, eos])))
    return rows


@pytest.mark.parametrize(
    ("methods", "options"),
    [
        (("labo",), ("--beam", "1")),
        (("ls",), ("--beam", "3", "--nbest", "2")),
        (("labo",), ("--beam", "2", "--temperature", "1.7")),
        (("labo", "ls"), ("--beam", "2")),
        (("labo", "ls"), ("--beam", "2", "--temperature", "0.6")),
        (("labo",), ("--beam", "2", "--nbest", "2", "--sampling", "--seed", "1")),
        (("labo", "ls"), ("--score-reference",)),
    ],
    ids=["greedy", "n-best", "temperature", "ensemble", "both", "sampling", "reference"],
)
def test_generation(data, checkpoints, methods, options):
    hypotheses = generated(data, [checkpoints[method] for method in methods], *options, "--posterior")
    assert len({number for number, *_ in hypotheses}) == 20
    temperature = float(options[options.index("--temperature") + 1]) if "--temperature" in options else 1.0
    by_model = []
    for method in methods:
        rows = predictions(data, checkpoints[method], hypotheses)
        by_model.append([((BACK[method](log_p) / temperature).log_softmax(-1), labels) for log_p, labels in rows])
    for (_, _, scores), *models in zip(hypotheses, *by_model):
        mean = torch.stack([log_y for log_y, _ in models]).logsumexp(0) - math.log(len(models))
        expected = mean.gather(-1, models[0][1][:, None])[:, 0] / math.log(2)
        assert scores == pytest.approx(expected.tolist(), abs=2e-3)


def test_off_by_default(data, checkpoints):
    hypotheses = generated(data, [checkpoints["labo"]], "--beam", "1")
    for (_, _, scores), (log_p, labels) in zip(hypotheses, predictions(data, checkpoints["labo"], hypotheses)):
        expected = log_p.gather(-1, labels[:, None])[:, 0] / math.log(2)
        assert scores == pytest.approx(expected.tolist(), abs=2e-3)


@pytest.mark.parametrize("method", ["labo", "ls"])
def test_validation(data, checkpoints, method):
    """Its nll is that of the calibrated probabilities; accuracy stays."""
    options = ("--path", checkpoints[method], "--task", "translation", "--max-tokens", "2000", "--log-format", "json")
    lines = [fairseq("validate", data, *options, *more) for more in ((), ("--posterior",))]
    nll = [float(re.findall(r'"valid_nll_loss": "([^"]+)"', line)[-1]) for line in lines]
    references = generated(data, [checkpoints[method]], "--score-reference")
    rows = predictions(data, checkpoints[method], references)
    for value, back in zip(nll, (lambda log_p: log_p, BACK[method])):
        picked = torch.cat([back(log_p).gather(-1, labels[:, None])[:, 0] for log_p, labels in rows])
        assert value == pytest.approx(-picked.mean().item() / math.log(2), abs=2e-3)


def test_interactive(data, checkpoints, monkeypatch):
    text = data.subwords("valid", "de").read_text(encoding="utf-8")
    scores = []
    for more in ((), ("--posterior",)):
        monkeypatch.setattr("fileinput.input", lambda **_: contextlib.nullcontext(text.splitlines()))
        options = ("--path", checkpoints["labo"], "--beam", "2", "--max-len-b", "6", "--buffer-size", "100")
        out = fairseq("interactive", data, *options, "--max-tokens", "2000", *more)
        scores.append({int(n): float(s) for n, s in re.findall(r"^H-(\d+)\t(\S+)", out, re.MULTILINE)})
    batch = generated(data, [checkpoints["labo"]], "--beam", "2", "--posterior")
    assert len(batch) == len(scores[1]) == 20
    for number, _, tokens in batch:
        assert scores[1][number] == pytest.approx(sum(tokens) / len(tokens), abs=2e-3)
    assert scores[0] != scores[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": "1"}, "alpha must be < 1, got 1: labels had no part"),
        ({"_name": "knowledge_distillation"}, "what such a model predicts is not enough to turn it back"),
        (
            {"_name": "label_smoothed_cross_entropy", "label_smoothing": 1.0},
            r"label_smoothing must be in \[0, 1\), got 1\.0",
        ),
    ],
)
def test_what_cannot_be_turned_back_is_told_in_one_line(data, checkpoints, tmp_path, options, message):
    state = load_checkpoint(checkpoints["labo"])
    state["cfg"]["criterion"].update(options)
    torch.save(state, tmp_path / "one.pt")
    with pytest.raises(SystemExit, match=rf"^--posterior: .*one\.pt.*{message}"):
        generated(data, [tmp_path / "one.pt"], "--posterior")


def changed(checkpoint, path, **options):
    """The checkpoint as of a training with other options of the criterion."""
    state = load_checkpoint(checkpoint)
    state["cfg"]["criterion"].update(options)
    torch.save(state, path)
    return path


def test_more_smoothing_than_two_classes_could_bear(data, checkpoints, tmp_path):
    much = changed(checkpoints["ls"], tmp_path / "much.pt", label_smoothing=0.6)
    hypotheses = generated(data, [much], "--beam", "1", "--posterior")
    for (_, _, scores), (log_p, labels) in zip(hypotheses, predictions(data, much, hypotheses)):
        log_y = label_smoothing_log_posterior(log_p, 0.6, over_others=True)
        assert scores == pytest.approx((log_y.gather(-1, labels[:, None])[:, 0] / math.log(2)).tolist(), abs=2e-3)


def test_a_language_model_for_fusion_predicts_as_it_was_trained(data, checkpoints, tmp_path):
    links = {path.name: path for path in data.binarized.iterdir()}
    links["dict.txt"] = links["dict.en.txt"]
    for split in ("test", "valid"):
        links.update({f"{split}.{end}": links[f"{split}.de-en.en.{end}"] for end in ("bin", "idx")})
    for name, path in links.items():
        (tmp_path / name).symlink_to(path)
    small = ("--task", "language_modeling", "--arch", "transformer_lm", "--decoder-layers", "1")
    small += ("--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "32", "--decoder-attention-heads", "2")
    short = ("--tokens-per-sample", "64", "--train-subset", "test", "--disable-validation", "--lr", "0.02")
    text, options = SimpleNamespace(binarized=tmp_path), (*short, "--criterion", "cross_entropy")
    train_here(text, tmp_path / "lm", *options, updates=5, model=small)
    scores = {}
    for name, criterion in (("other", {"_name": "adaptive_loss"}), ("labo", {"_name": "labo", "alpha": "0.5"})):
        lm = changed(tmp_path / "lm" / "checkpoint_last.pt", tmp_path / f"{name}.pt", **criterion)
        options = ("--lm-path", lm, "--lm-weight", "0.5", "--beam", "2", "--posterior")
        scores[name] = generated(text, [checkpoints["labo"]], *options)
    assert scores["other"] == scores["labo"]
    assert scores["other"] != generated(data, [checkpoints["labo"]], "--beam", "2", "--posterior")


def test_validation_of_several_language_pairs(data, tmp_path):
    """The mean over the tokens of all pairs."""
    task = ("--task", "multilingual_translation", "--lang-pairs", "de-en,en-de")
    small = ("--arch", "multilingual_transformer", "--encoder-layers", "1", "--decoder-layers", "1")
    small += tuple(f"--{side}-{size}-dim=32" for side in ("encoder", "decoder") for size in ("embed", "ffn-embed"))
    short = ("--train-subset", "test", "--max-tokens", "1000", "--lr", "0.02", "--disable-validation")
    train_here(data, tmp_path, *task, *small, *TRAINED["labo"], *short, updates=12)
    options = ("--path", tmp_path / "checkpoint_last.pt", *task, "--max-tokens", "1000", "--log-format", "json")
    lines = [fairseq("validate", data, *options, *more) for more in ((), ("--posterior",))]
    nll = [float(re.findall(r'"valid_nll_loss": "([^"]+)"', line)[-1]) for line in lines]
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "checkpoint_last.pt")])
    model.eval()
    task.load_dataset("valid")
    rows = []
    for pair, dataset in task.dataset("valid").datasets.items():
        for number in range(len(dataset)):
            sample = dataset.collater([dataset[number]])
            with torch.no_grad():
                logits = model.models[pair](**sample["net_input"])[0][0]
            rows.append((logits.double().log_softmax(-1), sample["target"][0]))
    assert len(rows) == 40
    for value, back in zip(nll, (lambda log_p: log_p, BACK["labo"])):
        picked = torch.cat([back(log_p).gather(-1, labels[:, None])[:, 0] for log_p, labels in rows])
        assert value == pytest.approx(-picked.mean().item() / math.log(2), abs=2e-3)
