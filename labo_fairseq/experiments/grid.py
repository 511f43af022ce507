"""A grid of runs: corpus × direction × method × hyper-parameters × seed, as ``configs/experiments/NAME.yaml`` says.

For images: data set × network × method × hyper-parameters × seed. A grid is either for translation or for images.

baseline: ls                     # whom the report compares with
grid:
  - corpus: multi30k              # a name, or a YAML file that declares a corpus
    directions: [de-en, en-de]
    methods: [ls, labo]
    seeds: [1, 2, 3]
    hours: {cpu: 1.2, gpu: 0.1}  # of one run, on one core or one GPU; optional: the corpus declares its own
  - corpus: multi30k
    directions: [de-en]
    methods:                     # each with settings of its own
      ls: {criterion.label_smoothing: [0.05, 0.2]}
      labo: {criterion.tau: [1.15, 1.5]}
    seeds: [1]
    settings:                    # of all of them: every combination is a run
      optimization.lr: [[0.001], [0.003]]
  - corpus: multi30k
    directions: [de-en]
    methods: [kd]
    seeds: [1]
    teachers: [ce]               # the runs of these methods that are equal in all but the method and its settings

grid:
  - dataset: cifar100             # a name, or a YAML file that declares a data set
    networks: [resnet18]
    methods: [ls, kd]
    seeds: [1, 2, 3]
    teachers: [ce]
    teacher_network: resnext29   # optional: another network than the student's
"""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ..cli_types import LARGEST_SEED
from ..data.corpora.declaration import parse_hours
from ..errors import UserError
from ..evaluation.runs import RunResult
from ..files import configs
from ..yaml_files import check_keys, check_list, load_yaml
from .config import Config
from .kinds import KINDS, TRANSLATION, Kind, Subject
from .run_directory import as_written_today, differences

_KEYS = ("methods", "seeds", "settings", "teachers", "hours")
_TOP = ("title", "baseline", "grid")


@dataclass(frozen=True)
class Job:
    """One run of a grid."""

    kind: Kind
    corpus: str  # or the data set
    direction: str  # or the network
    method: str
    seed: int
    settings: Tuple[str, ...] = ()  # KEY=VALUE, what differs from the configuration
    teachers: Tuple["Job", ...] = ()
    smoke: bool = False  # as ``labo-fairseq run --smoke``
    hours: Dict[str, float] = field(default_factory=dict, compare=False)  # device → what the run is expected to take

    @property
    def subject(self) -> Subject:
        """The corpus and the direction, or the data set and the network."""
        return self.kind.find(self.corpus, self.direction, self.smoke)

    @property
    def corpus_name(self) -> str:
        """What the corpus calls itself; :attr:`corpus` may be a path."""
        return self.subject.name

    @property
    def variant(self) -> str:
        """The method with its settings: what a row of the report is called."""
        settings = (setting.split("=", 1) for setting in self.settings)
        return "-".join([self.method, *(f"{_SHORT.get(key, key)}{value}" for key, value in settings)])

    @property
    def name(self) -> str:
        """The folder of the run, see :meth:`.kinds.Subject.run_folder`."""
        return f"{self.variant}-seed{self.seed}{'-smoke' if self.smoke else ''}"

    def folder(self, root: Path) -> Path:
        return self.subject.run_folder(root, self.name)

    def arguments(self, root: Path) -> List[str]:
        """What ``labo-fairseq`` is called with to run or resume this experiment."""
        options = ["--criterion", self.method, "--seed", str(self.seed), "--folder", str(root), "--name", self.name]
        smoke = ["--smoke"] if self.smoke else []
        return ["run", self.corpus, self.direction, *options, *smoke, *self.settings, *self._teacher_path(root)]

    def _teacher_path(self, root: Path) -> List[str]:
        if not self.teachers:
            return []
        checkpoint = f"checkpoint_{self.subject.checkpoint}.pt"
        paths = (str(teacher.folder(root) / "checkpoints" / checkpoint) for teacher in self.teachers)
        return [f"criterion.teacher_path={':'.join(paths)}"]


#: how a setting is called in the name of a run: the paper's symbol where it has one
_SHORT = {
    "criterion.tau": "tau",
    "criterion.alpha": "alpha",
    "criterion.rho": "rho",
    "criterion.rdrop_alpha": "rdrop",
    "criterion.epsilon": "epsilon",
    "network.width": "width",
    "training.epochs": "epochs",
    "criterion.smoothing_warmup_steps": "warmup",
}


@dataclass(frozen=True)
class Grid:
    """All runs of an experiment, teachers before their students."""

    name: str
    title: str
    baseline: str  # variant that the others are compared with
    jobs: Tuple[Job, ...]

    @property
    def kind(self) -> Kind:
        """Of all its runs."""
        return self.jobs[0].kind


def load_grid(name: str, smoke: bool = False) -> Grid:
    """The grid in the file ``name``, or of that name in ``configs/experiments``.

    Args:
        smoke: its smoke runs, whose logs and report lie in a directory of their own.

    Raises:
        UserError: no such file, or one that describes no grid: the message says where.
    """
    path = Path(name)
    if not path.is_file():
        path = configs() / "experiments" / f"{name}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise UserError(f"no experiment {name!r}: name a YAML file, or one of {shipped}")
    content = load_yaml(path)
    try:
        _refuse_keys_of_blocks(content)
        check_keys(content, _TOP, {"grid"})
        blocks = check_list(content["grid"], "grid")
        # a run that two blocks name is one run
        jobs = tuple(
            dict.fromkeys(
                job for number, block in enumerate(blocks, 1) for job in _jobs(block, number, smoke, path.parent)
            )
        )
        known = set(jobs)
        missing = sorted({teacher.name for job in jobs for teacher in job.teachers if teacher not in known})
        if missing:
            raise UserError(f"the teachers {', '.join(missing)} are no runs of this grid")
        if len({job.kind for job in jobs}) > 1:
            raise UserError("a grid must hold either corpora or data sets of images: write two grids")
        baseline = content.get("baseline", jobs[0].variant)
        variants = list(dict.fromkeys(job.variant for job in jobs))
        if baseline not in variants:
            # of the same method, with the settings that are part of its name
            near = [one for one in variants if one.split("-")[0] == str(baseline).split("-")[0]] or variants
            raise UserError(f"the baseline {baseline!r} is none of its methods: choose from {', '.join(near)}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    ordered = sorted(jobs, key=lambda job: bool(job.teachers))
    name, title = path.stem, content.get("title", path.stem)
    if smoke:
        name, title = f"{name}-smoke", f"{title} (smoke test, meaningless scores)"
    return Grid(name, title, baseline, tuple(ordered))


def _refuse_keys_of_blocks(content: Any) -> None:
    """UserError where the keys of a block stand beside ``grid``."""
    keys = [key for kind in KINDS for key in kind.keys]
    misplaced = [key for key in (*keys, *_KEYS) if isinstance(content, dict) and key in content]
    if misplaced:
        raise UserError(f"{', '.join(misplaced)} must stand in the items of the list below grid:, not beside it")


def result_of(job: Job, root: Path) -> Optional[RunResult]:
    """The result of the finished run of ``job``; None where it is not finished.

    Raises:
        UserError: it was made with other settings than the job's.
    """
    path = job.folder(root) / "result.json"
    if not path.exists():
        return None
    result = RunResult.read(path)
    differing = [
        # where the teachers lie is not a setting of the method
        name
        for name in differences(_config_of(job), as_written_today(result.settings)["config"])
        if name != "criterion.teacher_path"
    ]
    if differing:
        raise UserError(f"{path.parent} holds a run with another {', '.join(sorted(differing))}: move it away")
    return result


@lru_cache(maxsize=None)  # asked for by the plan, the scheduler and its end
def _config_of(job: Job) -> Config:
    return job.subject.config(job.method, job.seed, job.settings, job.smoke)


def _jobs(block: Any, number: int, smoke: bool, folder: Path) -> Iterator[Job]:
    try:
        kind = next((one for one in KINDS if isinstance(block, dict) and one.keys[0] in block), TRANSLATION)
        what, where = kind.keys
        check_keys(block, (what, where, *_KEYS, *kind.own_keys), [what, where, "methods", "seeds"])
        corpus = str(block[what])
        # the path of a corpus file is relative to the grid's directory
        if (folder / corpus).is_file():
            corpus = os.path.relpath(folder / corpus)
        methods, seeds = _methods(block["methods"], _choices(block.get("settings", {}), "settings")), _seeds(block)
        taught = check_list(block["teachers"], "teachers") if "teachers" in block else []
        own_hours = parse_hours(block["hours"]) if "hours" in block else {}
        for direction in check_list(block[where], where):
            subject = kind.find(corpus, str(direction), smoke)
            teaching = kind.find(corpus, str(block.get("teacher_network", direction)), smoke)
            _check_methods(subject, methods, taught)
            for method, choices in methods.items():
                its_teachers = taught if subject.takes_teachers(method) else []
                hours = {**_hours(subject, method, teaching, its_teachers), **own_hours}
                for chosen in product(*choices):
                    changed = _changed(subject, method, chosen)
                    shared = [pair for pair in chosen if not pair[0].startswith("criterion.")]
                    of_teachers = {teacher: _changed(teaching, teacher, shared) for teacher in its_teachers}
                    for seed in seeds:
                        teachers = tuple(
                            Job(kind, corpus, teaching.argument, teacher, seed, settings, smoke=smoke)
                            for teacher, settings in of_teachers.items()
                        )
                        yield Job(kind, corpus, subject.argument, method, seed, changed, teachers, smoke, hours)
    except UserError as error:
        raise UserError(f"block {number} of the grid: {error}") from None


#: the values of every setting, each with the setting's name
_Choices = List[List[Tuple[str, Any]]]


def _choices(settings: Any, name: str) -> _Choices:
    if not isinstance(settings, dict):
        raise UserError(f"{name} must be KEY: [VALUE, ...]")
    return [[(str(key), value) for value in check_list(values, key)] for key, values in settings.items()]


def _methods(value: Any, shared: _Choices) -> Dict[str, _Choices]:
    """Method → its own choices and those that all share."""
    given = value if isinstance(value, dict) and value else {str(method): {} for method in check_list(value, "methods")}
    methods = {
        str(method): [*shared, *_choices(own or {}, f"the settings of {method}")] for method, own in given.items()
    }
    for method, choices in methods.items():
        names = [values[0][0] for values in choices]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{name} stands in settings and in those of {method}")
    return methods


def _seeds(block: Dict[str, Any]) -> List[int]:
    seeds = check_list(block["seeds"], "seeds")
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"a seed must be an integer from 0 to {LARGEST_SEED}, got {seed!r}")
    return seeds


def _check_methods(subject: Subject, methods: Dict[str, _Choices], teachers: Sequence[str]) -> None:
    """UserError where a method is unknown, or teachers are missing or useless."""
    for method in (*methods, *teachers):
        if method not in subject.methods():
            raise UserError(f"unknown method {method!r}: choose from {', '.join(subject.methods())}")
    students = [method for method in methods if subject.takes_teachers(method)]
    if students and not teachers:
        raise UserError(f"method {students[0]} needs teachers")
    if teachers and not students:
        raise UserError(f"method {next(iter(methods))} takes no teachers")


def _hours(subject: Subject, method: str, teaching: Subject, teachers: Sequence[str]) -> Dict[str, float]:
    """What a run is expected to take; the forward pass of a teacher is a third of a training step of it."""
    return {
        device: hours + sum(teaching.hours(teacher).get(device, hours) / 3 for teacher in teachers)
        for device, hours in subject.hours(method).items()
    }


def _changed(subject: Subject, method: str, settings: Sequence[Tuple[str, Any]]) -> Tuple[str, ...]:
    """The ``settings`` that say something else than the configuration: so a default has one name, not two.

    Raises:
        UserError: they do not fit, see :meth:`.kinds.Subject.config`.
    """
    if not settings:
        return ()
    config = subject.plain(method)
    changed = tuple(f"{key}={value}" for key, value in settings if _value(config, key) != value)
    subject.plain(method, changed)
    return changed


def _value(config: Dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
