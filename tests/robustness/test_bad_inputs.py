"""Bad inputs, a row each: one line, a non-zero exit, nothing half-written; and those that are taken as meant."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from types import SimpleNamespace

import campaign
import pytest
import yaml
from fairseq_runs import command, run

from labo_fairseq.cli import main
from labo_fairseq.data.prepared_corpus import Prepared
from labo_fairseq.data.types import DEFAULT_SCORING
from labo_fairseq.evaluation.runs import Run
from labo_fairseq.experiments.machines import Machines
from labo_fairseq.experiments.recipes import compose, find
from labo_fairseq.experiments.run import complete
from labo_fairseq.files import read_lines, write_lines

MEGABYTE = "wort " * 200_000
FILES = "--train train.de train.en --valid valid.de valid.en --test test.de test.en --bpe-operations 200 --workers 1"
CUSTOM = f"prepare custom de-en --destdir new {FILES}"
SETTINGS = [
    *("optimization.max_update=2", "optimization.update_freq=[1]", "dataset.max_tokens=1000"),
    *("model.encoder.layers=1", "model.decoder.layers=1", "model.encoder.embed_dim=32", "model.decoder.embed_dim=32"),
]


@pytest.fixture(scope="module")
def template(corpus, data, tmp_path_factory):
    """A folder with raw text, that text prepared, and a finished run on it."""
    folder = tmp_path_factory.mktemp("template")
    for split, pairs in corpus.items():
        for language, lines in zip(("de", "en"), zip(*pairs)):
            write_lines(folder / f"{split}.{language}", lines)
    shutil.copytree(data.folder, folder / "data")
    config = compose("bible_de-en_labo", SETTINGS)
    complete(Run(folder / "run", config, Prepared(folder / "data"), (("de", "en"),), "last"), Machines(gpus=0))
    return folder


@pytest.fixture
def place(template, tmp_path, monkeypatch):
    """A copy of the template that a test may spoil, and the folder that it runs in."""
    shutil.copytree(template, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("LABO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NUM_GPUS", "0")
    monkeypatch.delenv("LABO_DATA", raising=False)
    return tmp_path / "place"


def nothing(place, monkeypatch):
    """The template will do."""


def write(name, content):
    """The file ``name`` with other bytes or another text."""

    def make(place, monkeypatch):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def both(*makes):
    def make(place, monkeypatch):
        for make in makes:
            make(place, monkeypatch)

    return make


def append(name, text):
    def make(place, monkeypatch):
        with open(place / name, "a", encoding="utf-8", newline="\n") as file:
            file.write(text)

    return make


def remove(name):
    return lambda place, monkeypatch: (place / name).unlink()


def cut(name):
    """The first half of a file."""

    def make(place, monkeypatch):
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[: len(content) // 2])

    return make


def environment(name, value):
    return lambda place, monkeypatch: monkeypatch.setenv(name, value)


def stdin(content):
    def make(place, monkeypatch):
        standard = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)
        monkeypatch.setattr("sys.stdin", standard)

    return make


def archive(**member):
    """An archive of IWSLT'14 whose one member is no ordinary file of its name."""

    def make(place, monkeypatch):
        (place / "archives").mkdir()
        with tarfile.open(place / "archives" / "de-en.tgz", "w:gz") as tar:
            info = tarfile.TarInfo(member.pop("name", "de-en/train.tags.de-en.de"))
            for name, value in member.items():
                setattr(info, name, value)
            info.size = 0 if info.type != tarfile.REGTYPE else 3
            tar.addfile(info, io.BytesIO(b"in\n"))

    return make


def cut_archive(place, monkeypatch):
    lines = [hashlib.sha256(bytes([number % 256, number // 256])).hexdigest() for number in range(2000)]
    campaign.archive(place / "archives" / "de-en.tgz", {"de-en/train.tags.de-en.de": lines})
    cut("archives/de-en.tgz")(place, monkeypatch)


def packed(content):
    return gzip.compress(content)


def as_the_demos(place, monkeypatch):
    """The prepared text where ``run bible de-en`` looks for it, as if it were the Bible's."""
    shutil.copytree(place / "data", place / "bible" / "data-de-en")
    facts = place / "bible" / "data-de-en" / "prepared.json"
    content = json.loads(facts.read_text(encoding="utf-8"))
    recipe = find("bible", "de-en").recipe
    facts.write_text(json.dumps({**content, "recipe": recipe.to_json()}), encoding="utf-8")


def grid(**changes):
    block = {"corpus": "bible", "directions": ["de-en"], "methods": ["labo"], "seeds": [1], **changes}
    return write("grid.yaml", yaml.safe_dump({"grid": [block]}))


def hydra(**changes):
    """The configuration of the run as one file, with other groups."""

    def make(place, monkeypatch):
        config = yaml.safe_load((place / "run" / "training.yaml").read_text(encoding="utf-8"))
        config["checkpoint"]["save_dir"] = str(place / "run" / "checkpoints")
        config["task"]["data"] = str(place / "data" / "bin")
        config["optimization"]["max_update"] = 4
        config["hydra"]["run"]["dir"] = str(place / "run")
        (place / "training.yaml").write_text(yaml.safe_dump({**config, **changes}), encoding="utf-8")

    return make


def taught_by_the_run(place, monkeypatch):
    teacher = str(place / "run" / "checkpoints" / "checkpoint_last.pt")
    hydra(criterion={"_name": "knowledge_distillation", "teacher_path": teacher})(place, monkeypatch)


HYDRA = "fairseq-hydra-train --config-dir . --config-name training"
OTHER_CODES = append("data/codes", "q x\n")
ANALYSE = "analyse labels run Hund dog"

#: id → how the template is spoilt, the command, what its one line says
REFUSED = {
    # corpora
    "line counts that differ": (append("train.de", "mehr\n"), CUSTOM, "train.en ends after"),
    "an empty corpus": (both(write("train.de", ""), write("train.en", "")), CUSTOM, "train.en: they are empty"),
    "a blank corpus": (both(write("test.de", "\n \n"), write("test.en", "\n\n")), CUSTOM, "test.en: they are empty"),
    "a corpus of one line": (
        both(write("train.de", "a\n"), write("train.en", "b\n")),
        CUSTOM,
        "the training set: it is too small for BPE",
    ),
    "one line for training and validation": (
        both(write("train.de", "a b\n"), write("train.en", "b a\n")),
        CUSTOM.replace("--valid valid.de valid.en", "--validation-every 2"),
        "the valid set is empty",
    ),
    "latin-1": (write("train.de", "a\nüber".encode("latin-1")), CUSTOM, "train.de, line 2: no UTF-8 (byte 1)"),
    "UTF-16": (write("train.de", "a\nb".encode("utf-16")), CUSTOM, "train.de, line 1: no UTF-8 (byte 1)"),
    "half a character": (
        write("train.de", "a\nü".encode()[:-1]),
        CUSTOM,
        "train.de, line 2: no UTF-8 (byte 1)",
    ),
    "a line of a megabyte to be scored": (
        both(append("test.de", MEGABYTE + "\n"), append("test.en", "word\n")),
        CUSTOM,
        "of the test set has 1,000,000 characters, at most 20,000 (de)",
    ),
    "a word of 2,000 letters to be scored": (
        both(append("test.de", "wort\n"), append("test.en", "x" * 2000 + "\n")),
        CUSTOM,
        "of the test set has a word of 2,000 characters, at most 1,000 (en)",
    ),
    "2,000 words to be scored": (
        both(append("test.de", "qu " * 2000 + "\n"), append("test.en", "q\n")),
        CUSTOM,
        "subwords, at most 1,023 (de)",
    ),
    "a file that is not there": (remove("test.en"), CUSTOM, "there is no file test.en"),
    "no gzip": (
        write("train.de.gz", "text"),
        CUSTOM.replace("train.de", "train.de.gz"),
        "train.de.gz cannot be read after line 0",
    ),
    "a gzip that is cut": (
        both(write("train.de.gz", packed(MEGABYTE.encode())), cut("train.de.gz")),
        CUSTOM.replace("train.de", "train.de.gz"),
        "train.de.gz cannot be read after line 0",
    ),
    "files in the order of the other direction": (
        nothing,
        CUSTOM.replace("valid.de valid.en", "valid.en valid.de"),
        "--valid valid.en valid.de is in the wrong order for de-en: write valid.de valid.en",
    ),
    "a packed file of the other language": (
        write("train.en.gz", packed(b"word")),
        CUSTOM.replace("train.de", "train.en.gz"),
        "--train train.en.gz train.en: train.en.gz must be in de, but ends in .en",
    ),
    "a source as the target": (
        write("other.de", "wort"),
        CUSTOM.replace("test.en", "other.de"),
        "--test test.de other.de: other.de must be in en, but ends in .de",
    ),
    "a file as both languages": (
        nothing,
        CUSTOM.replace("train.en", "./train.de"),
        "--train train.de train.de: the same file twice; name two, SOURCE TARGET",
    ),
    "plain text in one file": (
        nothing,
        CUSTOM.replace("train.de train.en", "train.de"),
        "expected a tab between the two languages; one file with both must be TSV, TMX or zip, plain text takes two",
    ),
    "one language": (nothing, CUSTOM.replace("de-en", "de-de"), "'de-de' is no direction"),
    "no direction": (nothing, CUSTOM.replace("de-en", "german"), "'german' is no direction"),
    "no training set": (nothing, "prepare custom de-en", "no train set: name its files with --train"),
    "an unknown corpus": (nothing, "prepare iwslt15 de-en", "unknown corpus 'iwslt15': choose from bible, iwslt14, "),
    "an unknown direction": (nothing, "prepare iwslt14 en-it", "iwslt14 has no direction 'en-it': choose from"),
    # folders
    "a file in the place of the folder": (
        nothing,
        CUSTOM.replace("--destdir new", "--destdir test.de"),
        "test.de is a file: name another folder",
    ),
    "a folder below a file": (nothing, CUSTOM.replace("--destdir new", "--destdir test.de/x"), "test.de"),
    **{
        f"a folder that cannot be made: {arguments[:14]}": (
            make,
            arguments,
            "cannot be made there: choose another folder",
        )
        for make, arguments in (
            (nothing, CUSTOM.replace("--destdir new", "--destdir /proc/x/data")),
            (nothing, CUSTOM.replace("prepare", "run").replace("--destdir new", "--folder /proc/x")),
            (nothing, "report run --out /proc/x"),
            (nothing, f"{ANALYSE} --out /proc/x"),
            (grid(), "experiment grid.yaml --folder /proc/x"),
        )
    },
    "a folder with files of one's own": (
        write("new/thesis.txt", "years of work"),
        CUSTOM,
        "new holds thesis.txt, which no preparation made",
    ),
    "the folder that the text lies in": (nothing, CUSTOM.replace("--destdir new", "--destdir ."), "holds"),
    "a preparation with files of one's own": (
        write("data/raw/deep/thesis.txt", "years of work"),
        CUSTOM.replace("--destdir new", "--destdir data"),
        "data holds another text",
    ),
    "a run's folder with files of one's own": (
        both(as_the_demos, write("bible/de-en/labo-seed1/thesis.txt", "years of work")),
        "run bible de-en --folder . --fresh",
        "bible/de-en/labo-seed1 holds thesis.txt and no run",
    ),
    "a run's name that leads elsewhere": (nothing, "run bible de-en --name ../.. --fresh", "'../..' is no name"),
    # archives
    "a file of another size": (
        write("archives/train.de.gz", packed(b"")),
        "prepare multi30k de-en --archive-dir archives",
        "train.de.gz has 20 bytes, expected",
    ),
    "a wrong checksum": (
        write("archives/train.de.gz", bytes(637044)),
        "prepare multi30k de-en --archive-dir archives",
        "train.de.gz has sha256",
    ),
    "an archive that is cut": (
        cut_archive,
        "prepare iwslt14 de-en --archive-dir archives",
        "is damaged or no tar archive",
    ),
    "no archive": (
        write("archives/de-en.tgz", "<html>"),
        "prepare iwslt14 de-en --archive-dir archives",
        "is damaged or no tar archive",
    ),
    "no archive folder": (nothing, "prepare iwslt14 de-en --archive-dir none", "the archive folder none is not there"),
    "a list of archives that is none": (
        write("archives/iwslt14.yaml", "- a"),
        "prepare iwslt14 de-en --archive-dir archives",
        "iwslt14.yaml lists no archives",
    ),
    **{
        f"an archive's member: {name}": (
            archive(**member),
            "prepare iwslt14 de-en --archive-dir archives",
            "de-en.tgz holds no de-en/train.tags.de-en.de",
        )
        for name, member in {
            "outside of the folder": {"name": "../de-en/train.tags.de-en.de"},
            "at an absolute path": {"name": "/de-en/train.tags.de-en.de"},
            "a symbolic link": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
            "a hard link": {"type": tarfile.LNKTYPE, "linkname": "../../test.de"},
            "a device": {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
            "a pipe": {"type": tarfile.FIFOTYPE},
            "a folder": {"type": tarfile.DIRTYPE},
        }.items()
    },
    # options of commands
    "no processes": (nothing, f"{CUSTOM} --workers 0", "argument --workers: must be an integer ≥ 1 and ≤ 1,024, got 0"),
    "a million processes": (nothing, f"{CUSTOM} --workers 1000000", "≤ 1,024, got 1000000"),
    "no BPE": (nothing, f"{CUSTOM} --bpe-operations 0", "argument --bpe-operations: must be an integer ≥"),
    "every pair for validation": (nothing, f"{CUSTOM} --validation-every 1", "must be an integer ≥ 2, got 1"),
    "two validation sets": (nothing, f"{CUSTOM} --validation-every 9", "exclude each other"),
    "a ratio below 1": (nothing, f"{CUSTOM} --clean 0.5 1 60", "clean 0.5 1.0 60.0 is no rule"),
    "a maximum below the minimum": (nothing, f"{CUSTOM} --clean 2 60 1", "clean 2.0 60.0 1.0 is no rule"),
    "half a token": (nothing, f"{CUSTOM} --clean 2 1 2.5", "clean 2.0 1.0 2.5 is no rule"),
    "a ratio that is not a number": (
        nothing,
        f"{CUSTOM} --clean nan 1 60",
        "argument --clean: must be a finite number, got nan",
    ),
    "custom's options elsewhere": (nothing, "prepare bible de-en --lowercase", "--lowercase does not go with bible"),
    "other corpora's for custom": (nothing, f"{CUSTOM} --archive-dir .", "--archive-dir does not go with custom"),
    "an unknown option": (
        nothing,
        "translate --color=red",
        "unrecognized arguments: --color=red (labo-fairseq translate --help)",
    ),
    "an option of fairseq-train": (
        nothing,
        "run bible de-en --tau 1.15",
        "unrecognized arguments: --tau 1.15; the settings of a training are KEY=VALUE, e.g. criterion.tau=1.15 (labo-",
    ),
    "no width of the search": (nothing, "evaluate run --beam 0", "argument --beam: must be an integer ≥"),
    "a search of any width": (nothing, "translate run --beam 1000000000", "≤ 1,000, got 1000000000"),
    "half a beam": (nothing, "evaluate run --beam 2.5", "argument --beam: must be an integer ≥"),
    "a length penalty that is not a number": (nothing, "evaluate run --lenpen nan", "must be a finite number, got nan"),
    "a huge length penalty": (nothing, "evaluate run --lenpen 1e9", "must be between -10 and 10, got 1e9"),
    "the mean of nothing": (nothing, "evaluate run --average 0", "argument --average: must be an integer ≥"),
    "the mean of what is not there": (nothing, "evaluate run --average 100", "not 100"),
    "the mean of what is not there to translate with": (nothing, "translate run --average 100", "not 100"),
    "a mean and one checkpoint": (
        nothing,
        "evaluate run --average 1 --checkpoint last",
        "argument --checkpoint: not allowed with argument --average",
    ),
    "no samples": (nothing, "compare run run --samples 0", "argument --samples: must be an integer ≥"),
    "a run compared with itself": (nothing, "compare run run", "the run run is named twice: name another one"),
    "one run to compare": (nothing, "compare run", "a comparison needs at least two runs"),
    "a run twice": (nothing, "analyse frequency run run --out out", "the run run is named twice"),
    "no bins": (
        nothing,
        "analyse confidence run --bins 0",
        "argument --bins: must be an integer ≥ 1 and ≤ 1,000, got 0",
    ),
    "no tokens to show": (nothing, f"{ANALYSE} --top 0", "argument --top: must be an integer ≥ 1, got 0"),
    "more tokens than there are": (nothing, f"{ANALYSE} --top 99999 --out out", "top must be from 1 to the "),
    "no temperature": (nothing, f"{ANALYSE} --tau 0 --out out", "tau must be a finite number > 0, got 0.0"),
    "a smoothing mass above 1": (
        nothing,
        f"{ANALYSE} --alpha 1.5 --out out",
        "alpha must be 'adaptive' or a number in [0, 1], got 1.5",
    ),
    "a rho that is not a number": (nothing, f"{ANALYSE} --rho nan --out out", "rho must be in [0.5, 1], got nan"),
    "a language that is not the run's": (nothing, f"{ANALYSE} --source fr", "run does not translate from 'fr'"),
    "no translation of the sentence": (
        nothing,
        "analyse labels run Hund --out out",
        "run is a folder, not a sentence: TARGET is missing after RUN and SOURCE",
    ),
    "no sentence": (nothing, "analyse labels run  dog --out out", "the de text is empty"),
    "a sentence of a megabyte": (nothing, f"analyse labels run {'x' * 10**6} dog --out out", "1,000,000 characters"),
    "no workers": (
        nothing,
        "config bible_de-en_labo --data d --save-dir s --distributed-world-size 0",
        "must be an integer ≥ 1 and ≤ 1,024, got 0",
    ),
    "too many workers": (
        nothing,
        "config bible_de-en_labo --data d --save-dir s --distributed-world-size 1000",
        "1000 workers would get",
    ),
    "a configuration on no prepared text": (
        nothing,
        "config bible_de-en_labo --data run --save-dir s",
        "run holds no prepared corpus: make it with 'labo-fairseq prepare'",
    ),
    "a configuration that is not there": (nothing, "config x --data d --save-dir s", "no configuration 'x'"),
    "a negative seed": (
        nothing,
        "run bible de-en --seed -1",
        "argument --seed: must be an integer ≥ 0 and ≤ 4,294,967,295, got -1",
    ),
    "a number of GPUs that is none": (environment("NUM_GPUS", "many"), "run bible de-en", "NUM_GPUS is 'many'"),
    "GPUs that are not there": (environment("NUM_GPUS", "999"), "run bible de-en", "999 GPUs were asked for and"),
    "fp16 without a GPU": (nothing, "run bible de-en common.fp16=true", "common.fp16 needs a GPU"),
    # settings
    **{
        f"run {options}": (nothing, f"run bible de-en {options}", message)
        for options, message in {
            "criterion.tau=-1": "tau must be a finite number > 0, got -1.0",
            "criterion.tau=abc": "could not be converted to Float",
            "criterion.rho=inf": "rho must be in [0.5, 1], got inf",
            "criterion.alpha=2": "alpha must be 'adaptive' or a number in [0, 1], got 2",
            "criterion.tua=1": "unknown setting criterion.tua: choose from alpha, ",
            "optimization.lrr=1": "unknown setting optimization.lrr: choose from ",
            "criterion.smoothing_warmup_steps=-1": "smoothing-warmup-steps must be ≥ 0, got -1",
            "criterion.label_smoothing=1": "label-smoothing must be in [0, 1), got 1.0",
            "criterion._name=x": "there is no criterion 'x'",
            "criterion=x": "'criterion=x': the method is chosen with --criterion",
            "model=huge": "there is no model 'huge': choose from transformer_base, ",
            "checkpoint=3": "checkpoint is a group of settings, not one",
            "--criterion ls criterion.label_smoothing=2": "label-smoothing must be in [0, 1), got 2.0",
            "--criterion cp criterion.beta=nan": "beta must be a finite number ≥ 0, got nan",
            "--criterion fl criterion.gamma=-1": "gamma must be a finite number ≥ 0, got -1.0",
            "--criterion afl criterion.alpha=inf": "alpha must be a finite number ≥ 0, got inf",
            "--criterion kd criterion.alpha=1.1": "alpha must be in [0, 1], got 1.1",
            "optimization.max_update=0": "optimization.max_update or optimization.max_epoch must be",
            "optimization.update_freq=2": "optimization.update_freq must be one whole number",
            "optimization.lr=[nan]": "optimization.lr must be numbers above 0",
            "criterionn.tau=1": "unknown group of settings criterionn: choose from ",
            "checkpoint.no_save=true": "checkpoint.no_save leaves no checkpoint to resume from or to score",
            "checkpoint.no_last_checkpoints=true": "checkpoint.no_last_checkpoints leaves no checkpoint",
            "dataset.max_tokens=0": "dataset.max_tokens must be an integer of at least 1",
            "common.seed=7": "common.seed is set with --seed",
            "criterion.tau=1.1 criterion.tau=1.2": "criterion.tau is set twice",
            "--seed 1 --seed 2": "argument --seed: given twice",
            "--criterion ls --crit ce": "given twice, and only one can be used",
            "criterion.tau": "invalid override 'criterion.tau': expected KEY=VALUE, e.g. criterion.tau=1.15",
            "criterion.tau=[": "do not fit: while parsing",
            "--criterion kd": "distillation needs a teacher",
            "--criterion kd criterion.teacher_path=gone.pt": "no teacher gone.pt: train it first",
        }.items()
    },
    **{
        f"a mistake before a text that cannot be read: {option}": (
            write("train.de", b"\xff"),
            f"{CUSTOM.replace('prepare', 'run').replace('--destdir', '--folder')} {option}",
            message,
        )
        for option, message in {
            "criterion.tua=1": "unknown setting criterion.tua: choose from alpha, ",
            "--criterion maxsup": "unknown method 'maxsup': choose from ",
        }.items()
    },
    "no validation where the best checkpoint is scored": (
        nothing,
        "run multi30k de-en dataset.disable_validation=true",
        "dataset.disable_validation leaves no best checkpoint, which is the one scored: leave it out",
    ),
    "a teacher that is no checkpoint": (
        write("teacher.pt", "text"),
        "run bible de-en --criterion kd criterion.teacher_path=teacher.pt",
        "teacher.pt cannot be read as a checkpoint",
    ),
    # grids
    "a grid that is no YAML": (write("grid.yaml", "["), "experiment grid.yaml", "grid.yaml is no YAML"),
    "a grid in latin-1": (write("grid.yaml", "ü".encode("latin-1")), "experiment grid.yaml", "grid.yaml is no YAML"),
    "a grid that is not there": (nothing, "experiment x", "no experiment 'x': name a YAML file, or one of"),
    **{
        f"a grid with {changes}": (grid(**changes), "experiment grid.yaml --dry-run", message)
        for changes, message in (
            ({"settings": {"criterion.tau": [float("nan")]}}, "block 1 of the grid: the settings criterion.tau=nan"),
            ({"settings": {"criterion.rho": [0.5, 0.1]}}, "rho must be in [0.5, 1], got 0.1"),
            ({"settings": {"optimization.update_freq": [2]}}, "optimization.update_freq must be one whole number"),
            ({"settings": {5: [1]}}, "unknown group of settings 5: choose from "),
            ({"seeds": [-1]}, "a seed must be an integer from 0 to 4294967295, got -1"),
            ({"seeds": [True]}, "4294967295, got True"),
            ({"hours": {"cpu": "long"}}, "hours of cpu is 'long': it must be a number above 0"),
            ({"hours": {"gpu": float("nan")}}, "hours of gpu is nan: it must be a number above 0"),
            ({"teachers": "ls"}, "teachers must be a list of at least one"),
            ({"methods": ["kd"], "teachers": ["x"]}, "unknown method 'x'"),
            ({"methods": [["ls"]]}, "unknown method \"['ls']\""),
            ({"methods": {"ls": None, "x": {}}}, "unknown method 'x'"),
            ({"methods": {"ls": ["x"]}}, "the settings of ls must be KEY: [VALUE, ...]"),
            ({"methods": ["kd"], "teachers": [["ce"]]}, "unknown method ['ce']"),
            ({"methods": ["kd"], "teachers": [{"ce": 1}]}, "unknown method {'ce': 1}"),
            ({"corpus": ["bible"]}, "unknown corpus \"['bible']\""),
            ({"directions": [{"de": "en"}]}, "bible has no direction"),
        )
    },
    "no jobs at a time": (grid(), "experiment grid.yaml --jobs 0", "argument --jobs: must be an integer ≥"),
    "no GPUs per run": (
        grid(),
        "experiment grid.yaml --gpus-per-run 0",
        "argument --gpus-per-run: must be an integer ≥",
    ),
    "more GPUs per run than there are": (
        grid(),
        "experiment grid.yaml --gpus-per-run 999",
        "999 GPUs per run were asked",
    ),
    "one run of a plan for SLURM": (grid(), "experiment grid.yaml --slurm --only 0", "--slurm submits the whole plan"),
    "a run that is not in the plan": (grid(), "experiment grid.yaml --only 7", "grid has no run 7"),
    "a report of no run": (grid(), "experiment report grid.yaml --folder .", "no run of grid below . is finished"),
    # finished runs
    "no run": (nothing, "evaluate data", "no finished run in data: its result.json is not there"),
    "no run anywhere": (nothing, "translate data", "no finished run in data: train one with 'labo-fairseq run"),
    "a result that is cut": (cut("run/result.json"), "evaluate run", "run/result.json is damaged"),
    "a checkpoint that is cut": (
        cut("run/checkpoints/checkpoint_last.pt"),
        "evaluate run --checkpoint last",
        "checkpoint_last.pt cannot be read as a checkpoint",
    ),
    "a checkpoint that is gone": (
        remove("run/checkpoints/checkpoint_last.pt"),
        "evaluate run --checkpoint last",
        "checkpoint_last.pt is not there",
    ),
    "a damaged checkpoint to analyse": (
        cut("run/checkpoints/checkpoint_last.pt"),
        f"{ANALYSE} --out out",
        "checkpoint_last.pt cannot be read as a checkpoint",
    ),
    "a damaged checkpoint to translate with": (
        both(cut("run/checkpoints/checkpoint_last.pt"), stdin(b"Hund\n")),
        "translate run",
        "checkpoint_last.pt cannot be read as a checkpoint",
    ),
    "facts that are cut": (cut("data/prepared.json"), "evaluate run", "data/prepared.json is damaged"),
    "no data": (
        lambda place, monkeypatch: shutil.rmtree(place / "data"),
        "compare run run",
        "data holds no prepared corpus",
    ),
    "codes of another corpus": (OTHER_CODES, "evaluate run", "data/codes is of another corpus"),
    "codes of another corpus to report on": (OTHER_CODES, "report run --out out", "data/codes is of another corpus"),
    "codes of another corpus to translate with": (
        both(OTHER_CODES, stdin(b"Hund\n")),
        "translate run",
        "data/codes is of another corpus",
    ),
    "codes of another corpus to train with": (
        both(as_the_demos, append("bible/data-de-en/codes", "q x\n")),
        "run bible de-en --folder .",
        "bible/data-de-en/codes is of another corpus",
    ),
    "a dictionary of another corpus": (append("data/bin/dict.en.txt", "q 1\n"), "evaluate run", "dict.en.txt is of"),
    "a dictionary that is gone": (remove("data/bin/dict.de.txt"), "evaluate run", "dict.de.txt is gone"),
    "data prepared again from another text": (
        both(append("data/codes", "q x\n"), lambda place, monkeypatch: write_facts_again(place)),
        "evaluate run",
        "data/codes is of another corpus",
    ),
    "a stream in latin-1": (
        stdin(b"Hund\n\xfcber\n"),
        "translate run --beam 1",
        "standard input, line 2: no UTF-8 (byte 1)",
    ),
    "a stream with a line of a megabyte": (
        stdin(b"Hund\n" + MEGABYTE.encode()),
        "translate run --beam 1",
        "standard input, line 2: a sentence has 1,000,000 characters, at most 20,000: cut it into several",
    ),
    # fairseq's own commands with the plugin
    "a checkpoint of another criterion": (
        hydra(criterion={"_name": "label_smoothed_cross_entropy"}),
        HYDRA,
        "Criterion does not match; please reset the optimizer",
    ),
    "a checkpoint of another dictionary": (
        both(hydra(), append("data/bin/dict.de.txt", "q 1\n"), append("data/bin/dict.en.txt", "q 1\n")),
        HYDRA,
        "its model has other parameters",
    ),
    "a teacher with another vocabulary": (
        both(taught_by_the_run, append("data/bin/dict.de.txt", "q 1\n"), append("data/bin/dict.en.txt", "q 1\n")),
        HYDRA,
        "checkpoint_last.pt: it was trained with dictionaries of another size",
    ),
}


def write_facts_again(place):
    data = Prepared(place / "data")
    data.write_metadata(data.recipe, data.pairs, data.tests, DEFAULT_SCORING)


def tree(folder):
    """Every file's digest, but for locks and what Hydra always writes."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "hydra_train.log")
    }


def called(arguments, capsys):
    """Exit status and lines of a command; in this process where it is ours."""
    if arguments[0].startswith("fairseq"):
        done = run(command(arguments[0]), *arguments[1:])
        return done.returncode, done.stdout.splitlines()
    try:
        status = main(arguments)
    except SystemExit as end:  # argparse's
        status = end.code
    shown = capsys.readouterr()
    return status, shown.err.replace("\r", "\n").splitlines()


@pytest.mark.parametrize(("make", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(place, monkeypatch, capsys, make, arguments, message):
    make(place, monkeypatch)
    before = tree(place)
    status, lines = called(arguments.split(" "), capsys)
    assert status, "it was accepted"
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert sum(line.startswith("labo-fairseq") for line in lines) == (not arguments.startswith("fairseq"))
    assert tree(place) == before


SEPARATORS = "\u2028\u2029\x85\r\x0b\x0c\x1c\x1d\x1e"
CONTROLS = "\x00\x01\x08\x1f"

#: id → the file that is spoilt, and how: what comes out of it is that of the clean file
ACCEPTED = {
    "a byte order mark": ("train.de", lambda text: "\ufeff" + text),
    "CRLF": ("train.en", lambda text: text.replace("\n", "\r\n")),
    "separators of lines that are none": (
        "valid.de",
        lambda text: text.replace(" ", " " + SEPARATORS[:3]).replace(", ", f",{SEPARATORS} "),
    ),
    "NUL and control characters": ("valid.en", lambda text: text.replace("e", f"{CONTROLS}e")),
    "a last line without an end": ("test.de", lambda text: text[:-1]),
    "all of them": (
        "test.en",
        lambda text: "\ufeff" + text.replace(" ", f"{CONTROLS} {SEPARATORS}").replace("\n", " \r\n"),
    ),
}


@pytest.fixture(scope="module")
def spoilt(template, tmp_path_factory):
    """The template's text with all of this in it, and a pair for training with a line of a megabyte, prepared."""
    folder = tmp_path_factory.mktemp("spoilt")
    names = [f"{split}.{language}" for split in ("train", "valid", "test") for language in ("de", "en")]
    for name in names:
        (folder / name).write_bytes((template / name).read_bytes())
    for language, line in (("de", MEGABYTE), ("en", "word")):
        append(f"train.{language}", line + "\n")(folder, None)
    for name, spoil in ACCEPTED.values():
        (folder / name).write_bytes(spoil((folder / name).read_text(encoding="utf-8")).encode())
    arguments = CUSTOM.replace("--destdir new", f"--destdir {folder / 'data'}").split()
    assert main([str(folder / argument) if argument in names else argument for argument in arguments]) == 0
    return Prepared(folder / "data")


@pytest.mark.parametrize(("name", "spoil"), ACCEPTED.values(), ids=ACCEPTED)
def test_taken_as_it_is_meant(template, spoilt, name, spoil):
    clean = Prepared(template / "data")
    split, language = name.split(".")
    for place in ("tokens", "subwords"):
        one, other = (list(read_lines(getattr(corpus, place)(split, language))) for corpus in (clean, spoilt))
        assert one == other
    # fairseq's text mode and the tools that read the raw text see as many lines
    assert len(list(read_lines(spoilt.raw(split, language)))) == clean.pairs[split]
    for ending in ("bin", "idx"):
        file = f"{split}.de-en.{language}.{ending}"
        assert (clean.binarized / file).read_bytes() == (spoilt.binarized / file).read_bytes()


def test_a_line_of_a_megabyte_is_left_out_of_the_training(template, spoilt):
    assert spoilt.pairs == Prepared(template / "data").pairs
    assert spoilt.digests == Prepared(template / "data").digests


def test_translations_of_what_is_accepted(place, monkeypatch, capfd):
    """A line for a line, and the same for what means the same."""
    lines = ["\ufeffIm Anfang war", "Im Anfang\u2028war\r", f"Im\x85Anfang{CONTROLS} war", "", "Im Anfang war"]
    stdin("\n".join(lines).encode())(place, monkeypatch)
    assert main(["translate", "run", "--beam", "1"]) == 0
    first, *others = capfd.readouterr().out.split("\n")
    assert others == [first, first, "", first, ""]
