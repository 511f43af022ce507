"""Every translation task that fairseq ships, with each of the criterions, in the real fairseq-train.

Of two updates the first belongs to the smoothing warm-up. The loss that the task returns to the trainer, and the loss
in the log, equal the literal equation applied to what the model predicted, which ``task_recorder`` writes down; or the
training is refused in one line.
"""

import json
import math
import re
from functools import lru_cache
from pathlib import Path

import fairseq
import numpy as np
import pytest
import reference
import torch
from fairseq.data import Dictionary, data_utils
from fairseq.tasks import TASK_REGISTRY
from fairseq_runs import OPTIMIZATION, TRANSFORMER, inner
from fork_fairseq import fork, job, runner

PAD = 1
EPSILON = 0.2
RDROP_ALPHA = 3.0
WARMUP = ("--smoothing-warmup-steps", "1", "--label-smoothing", str(EPSILON))
SMALL = [option for option in TRANSFORMER if option != "--share-all-embeddings"][2:]

#: name of a column → its options, and its loss by logits, targets and the teacher's probabilities
CRITERIONS = {
    "labo": (
        ("--criterion", "labo", "--tau", "1.25"),
        lambda z, k, _: reference.objective(z, k, 1.25, reference.adaptive_alpha(z, 0.5)),
    ),
    "labo-tau2": (
        ("--criterion", "labo_label_smoothed_cross_entropy", "--tau", "2"),
        lambda z, k, _: reference.objective(z, k, 2, reference.adaptive_alpha(z, 0.5)),
    ),
    "cp": (
        ("--criterion", "confidence_penalty", "--beta", "0.4"),
        lambda z, k, _: reference.confidence_penalty(z, k, 0.4),
    ),
    "fl": (("--criterion", "focal_loss", "--gamma", "1.5"), lambda z, k, _: reference.focal(z, k, 1.5)),
    "afl": (
        ("--criterion", "anti_focal_loss", "--alpha", "1", "--gamma", "2"),
        lambda z, k, _: reference.anti_focal(z, k, 1, 2),
    ),
    "kd": (
        ("--criterion", "knowledge_distillation", "--alpha", "0.3"),
        lambda z, k, teacher: reference.distillation(z, k, teacher.exp(), 0.3),
    ),
    "labo-rdrop": (
        ("--criterion", "labo", "--tau", "1.25", "--rdrop-alpha", str(RDROP_ALPHA)),
        lambda z, k, _: reference.objective(z, k, 1.25, reference.adaptive_alpha(z, 0.5)),
    ),
}

#: those that differ from another in a number alone are trained on one Python
COLUMNS = [pytest.param(name, marks=[pytest.mark.once] if name in ("labo-tau2", "afl") else []) for name in CRITERIONS]

#: row, column → how the one line begins, a pattern
REFUSED = {
    **{
        ("translation_lev, non-autoregressive", column): r"NATransformerModel cannot be called with what this task "
        r"puts into a batch \(missing a required argument: 'tgt_tokens'\)"
        for column in CRITERIONS
    },
    **{
        ("semisupervised_translation", column): "fairseq's task semisupervised_translation fails in its first update"
        for column in CRITERIONS
    },
    **{
        (row, "kd"): r"--teacher-path \S+: it holds a model for every pair of languages"
        for row in ("multilingual_translation", "multilingual_translation_latent_depth")
    },
    ("translation_moe", "kd"): "this task calls the model with inputs of its own",
    ("translation_moe", "labo-rdrop"): "--rdrop-alpha needs every batch twice, and this task calls the model by itself",
    ("laser", "labo-rdrop"): "--rdrop-alpha needs every batch twice, and the LSTM in the encoder of this model",
}

DIRECTION = ("--source-lang", "de", "--target-lang", "en")
PAIRS = ("--lang-pairs", "de-en,en-de")
MASKED = ("--mask", "0.3", "--mask-length", "subword", "--replace-length", "1", "--tokens-per-sample", "64")
#: name of a row → folder of its data, and its options
TASKS = {
    "translation": ("text", ("--task", "translation", *TRANSFORMER)),
    "translation, pointer-generator": (
        "text",
        (
            *("--task", "translation", "--arch", "transformer_pointer_generator", "--alignment-layer", "-1"),
            *("--share-all-embeddings", "--source-position-markers", "10", *SMALL),
        ),
    ),
    "translation_from_pretrained_bart": (
        "text",
        ("--task", "translation_from_pretrained_bart", "--arch", "mbart_base", "--langs", "de,en", *DIRECTION, *SMALL),
    ),
    "translation_from_pretrained_xlm": ("xlm", ("--task", "translation_from_pretrained_xlm", *TRANSFORMER)),
    "translation_lev": ("text", ("--task", "translation_lev", *TRANSFORMER)),
    "translation_lev, non-autoregressive": (
        "text",
        ("--task", "translation_lev", "--arch", "nonautoregressive_transformer", *SMALL),
    ),
    "translation_multi_simple_epoch": (
        "pairs",
        (
            *("--task", "translation_multi_simple_epoch", "--langs", "de,en", *PAIRS, "--encoder-langtok", "src"),
            *("--decoder-langtok", "--sampling-method", "concat", *TRANSFORMER),
        ),
    ),
    "multilingual_translation": (
        "text",
        ("--task", "multilingual_translation", "--arch", "multilingual_transformer", *PAIRS, *SMALL),
    ),
    "multilingual_translation_latent_depth": (
        "text",
        (
            *("--task", "multilingual_translation_latent_depth", "--arch", "latent_multilingual_transformer"),
            *("--share-encoders", "--share-decoders", *PAIRS, *SMALL),
        ),
    ),
    "semisupervised_translation": (
        "text",
        ("--task", "semisupervised_translation", "--arch", "multilingual_transformer", *PAIRS, *SMALL),
    ),
    "online_backtranslation": (
        "text",
        (
            *("--task", "online_backtranslation", "--mono-langs", "de,en", "--valid-lang-pairs", "de-en"),
            *("--max-tokens", "100", "--max-tokens-valid", "400", *TRANSFORMER),  # it translates every batch
        ),
    ),
    "noisy_channel_translation": ("text", ("--task", "noisy_channel_translation", *TRANSFORMER)),
    "translation_moe": ("text", ("--task", "translation_moe", "--num-experts", "2", *TRANSFORMER)),
    "simul_text_to_text": ("text", ("--task", "simul_text_to_text", *TRANSFORMER)),
    "simul_speech_to_text": (
        "speech",
        ("--task", "simul_speech_to_text", "--arch", "convtransformer", "--config-yaml", "config.yaml", *SMALL),
    ),
    "speech_to_text": (
        "speech",
        (
            *("--task", "speech_to_text", "--arch", "s2t_transformer", "--config-yaml", "config.yaml"),
            *("--conv-channels", "16", *SMALL),
        ),
    ),
    "speech_to_speech": (
        "units",
        (
            *("--task", "speech_to_speech", "--arch", "s2ut_transformer", "--config-yaml", "config.yaml"),
            *("--target-is-code", "--target-code-size", "20", "--vocoder", "code_hifigan"),
            *("--conv-channels", "16", *SMALL),
        ),
    ),
    "laser": (
        "laser.json",
        (
            *("--task", "laser", "--arch", "laser_lstm", "--encoder-embed-dim", "32", "--encoder-hidden-size", "32"),
            *("--decoder-embed-dim", "32", "--decoder-hidden-size", "32", "--decoder-lang-embed-dim", "8"),
            "--disable-validation",
        ),
    ),
    "denoising": ("text", ("--task", "denoising", "--arch", "bart_base", *MASKED, *SMALL)),
    "multilingual_denoising": (
        "monolingual",
        ("--task", "multilingual_denoising", "--arch", "bart_base", "--langs", "de,en", *MASKED, *SMALL),
    ),
    "language_modeling": (
        "text",
        (
            *("--task", "language_modeling", "--arch", "transformer_lm", "--tokens-per-sample", "64"),
            *("--decoder-layers", "1", "--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "32"),
            *("--decoder-attention-heads", "2", "--dropout", "0.1"),
        ),
    ),
}

#: rows that some fairseq, as pip installs it, cannot train with its own criterion; fairseq-train ends in a traceback
FRAGILE = ("simul_text_to_text", "simul_speech_to_text", "denoising", "multilingual_denoising")
FAIRSEQ = "fairseq's own"


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory):
    """The data of every row: one text as fairseq's tasks want it, under their names; features are noise."""
    root = tmp_path_factory.mktemp("tasks")
    link(root / "path" / "examples", Path(fairseq.__path__[0]) / "examples")
    for path in data.binarized.iterdir():
        link(root / "text" / path.name, path)
        link(root / "pairs" / path.name, path)
    dictionary = Dictionary.load(str(data.binarized / "dict.en.txt"))
    lines = {}
    for folder in ("text", "monolingual"):
        link(root / folder / "dict.txt", data.binarized / "dict.en.txt")
    for split in ("train", "valid"):
        for language in ("de", "en"):
            stem = data.binarized / f"{split}.de-en.{language}"
            sentences = data_utils.load_indexed_dataset(str(stem), dictionary)
            lines[split, language] = [dictionary.string(sentence) for sentence in sentences]
            (root / f"{split}.{language}").write_text("\n".join(lines[split, language]) + "\n", encoding="utf-8")
            for extension in ("bin", "idx"):
                binary = data.binarized / f"{split}.de-en.{language}.{extension}"
                link(root / "text" / language / f"{split}.{extension}", binary)
                link(root / "monolingual" / language / f"{split}.{extension}", binary)
                if language == "en":
                    link(root / "text" / f"{split}.{extension}", binary)
    preprocess = (*DIRECTION, "--trainpref", root / "train", "--validpref", root / "valid")
    shared = ("--srcdict", data.binarized / "dict.en.txt", "--tgtdict", data.binarized / "dict.en.txt")
    xlm = ("--task", "translation_from_pretrained_xlm", "--joined-dictionary", "--destdir", root / "xlm")
    lazy = ("--dataset-impl", "lazy", *shared, "--destdir", root / "laser" / "corpus" / "de-en")
    jobs = [job(root, options[0].strip("-"), "preprocess", (*preprocess, *options)) for options in (xlm, lazy)]
    assert fork(jobs) == [0, 0], [Path(job["log"]).read_text()[-2000:] for job in jobs]
    stem = str(root / "laser" / "corpus" / "de-en" / "train.de-en.")
    pair = {"id": 0, "src": stem + "de", "tgt": stem + "en"}
    vocabulary = str(data.binarized / "dict.en.txt")
    settings = {"src_vocab": vocabulary, "tgt_vocab": vocabulary, "train": [pair]}
    (root / "laser.json").write_text(json.dumps(settings), encoding="utf-8")
    noise = np.random.default_rng(1)
    for folder in ("speech", "units"):
        (root / folder).mkdir()
        (root / folder / "config.yaml").write_text(
            "vocab_filename: dict.txt\ninput_feat_per_channel: 8\ninput_channels: 1\n", encoding="utf-8"
        )
        link(root / folder / "dict.txt", data.binarized / "dict.en.txt")
    for split in ("train", "valid"):
        speech = ["id\taudio\tn_frames\ttgt_text\tspeaker"]
        units = ["id\tsrc_audio\tsrc_n_frames\ttgt_audio\ttgt_n_frames"]
        for number, sentence in enumerate(lines[split, "en"][:20]):
            frames = 20 + number
            features = root / f"{split}{number}.npy"
            np.save(features, noise.standard_normal((frames, 8)).astype(np.float32))
            speech.append(f"{number}\t{features}\t{frames}\t{sentence}\tone")
            codes = noise.integers(20, size=10 + number % 3)
            units.append(f"{number}\t{features}\t{frames}\t{' '.join(map(str, codes))}\t{len(codes)}")
        (root / "speech" / f"{split}.tsv").write_text("\n".join(speech) + "\n", encoding="utf-8")
        (root / "units" / f"{split}.tsv").write_text("\n".join(units) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def training(folders):
    """Row, column → status, log, and what ``task_recorder`` wrote down, of a training that runs when asked for."""
    # a training that fails saves a checkpoint all the same
    unsaved = ("--save-dir", folders / "unsaved", "--no-save", "--disable-validation")
    numbers = {row: number for number, row in enumerate(TASKS)}

    @lru_cache(maxsize=None)
    def train(row, column):
        folder, options = TASKS[row]
        number = numbers[row]
        if column == FAIRSEQ:
            rest = ("--criterion", "label_smoothed_cross_entropy", *unsaved)
        else:
            rest = (*CRITERIONS[column][0], *WARMUP)
            rest += ("--save-dir", folders / f"save{number}") if column == "labo" else unsaved
        if column == "kd":
            teacher = "translation" if (row, "labo") in REFUSED else row
            train(teacher, "labo")
            rest += ("--teacher-path", folders / f"save{numbers[teacher]}" / "checkpoint_last.pt")
        common = (
            *(folders / folder, "--user-dir", Path(__file__).parents[1] / "task_recorder", *OPTIMIZATION, *options),
            *("--max-update", "2", "--no-epoch-checkpoints"),
        )
        asked = job(folders, f"{number}-{column}", "train", (*common, *rest))
        status = run(asked)
        record = Path(asked["env"]["RECORD"])
        log = Path(asked["log"]).read_text(encoding="utf-8")
        return status, log, torch.load(record) if record.exists() else []

    with runner(["fairseq-train"], (folders / "path", Path(__file__).parents[2])) as run:
        yield train


def skip_where_fairseq_fails(training, row):
    if row in FRAGILE and training(row, FAIRSEQ)[0] != 0:
        pytest.skip("this fairseq does not train it with its own criterion either")


def label_smoothing(log_p, target, _):
    """fairseq's, of which the target has less than in the paper's: 1 − ε."""
    other = EPSILON / (log_p.size(-1) - 1)
    nll = -log_p.gather(-1, target[:, None]).squeeze(-1)
    return (1 - EPSILON - other) * nll - other * log_p.sum(-1)


def literal(loss_of, rows):
    """The sum over the tokens, and their number; with R-Drop a row has two predictions of each token."""
    total = tokens = 0
    for log_p, target, teacher in rows:
        kept = target != PAD
        given = None if teacher is None else teacher[kept].double()
        passes = [part[kept].double() for part in log_p.split(len(target))]
        loss = sum(loss_of(part, target[kept], given) for part in passes) / len(passes)
        if len(passes) == 2:
            loss = loss + RDROP_ALPHA / 2 * reference.rdrop(*passes)
        total += loss.sum().item()
        tokens += int(kept.sum())
    return total, tokens


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", TASKS)
def test_it_trains_with_the_loss_of_the_criterion_or_is_refused_in_one_line(training, row, column):
    skip_where_fairseq_fails(training, row)
    status, log, updates = training(row, column)
    if (row, column) in REFUSED:
        assert status == 1
        assert "Traceback" not in log
        assert not updates
        (line,) = re.findall(r"^(?:labo|\w+_loss|confidence_penalty|knowledge_distillation): .*", log, re.MULTILINE)
        assert re.match(REFUSED[row, column], line.split(": ", 1)[1])
        return
    assert status == 0, log[-3000:]
    if "rdrop" in column:
        assert all(len(log_p) == 2 * len(target) for _, rows in updates for log_p, target, _ in rows)
    records = inner(log)
    for number, loss_of in ((1, label_smoothing), (2, CRITERIONS[column][1])):
        returned, rows = updates[number - 1]
        expected, tokens = literal(loss_of, rows)
        assert rows, "no decoder was seen"
        assert returned == pytest.approx(expected, rel=1e-5)
        assert float(records[number]["loss"]) == pytest.approx(expected / tokens / math.log(2), abs=2e-3)


@pytest.mark.once
@pytest.mark.parametrize("row", [row for row in TASKS if (row, "labo") not in REFUSED])
def test_the_loss_depends_on_tau_once_the_warmup_is_over(training, row):
    """By more than the tolerance above, though an untrained model hardly differs from the uniform distribution."""
    skip_where_fairseq_fails(training, row)
    for column, other in (("labo", "labo-tau2"), ("labo-tau2", "labo")):
        _, (returned, rows) = training(row, column)[2]
        assert returned != pytest.approx(literal(CRITERIONS[other][1], rows)[0], rel=4e-5)


def test_the_table_is_complete():
    """A task that a fairseq adds is to get its row."""
    known = {options[options.index("--task") + 1] for _, options in TASKS.values()}
    translate = {name for name in TASK_REGISTRY if re.search(r"translation|simul|speech_to_|denoising$", name)}
    assert translate <= known
