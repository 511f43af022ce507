"""A grid of runs: corpus × direction × method × hyper-parameters × seed, as ``configs/experiments/NAME.yaml`` says.

baseline: ls                     # whom the report compares with
grid:
  - corpus: multi30k
    directions: [de-en, en-de]
    methods: [ls, labo]
    seeds: [1, 2, 3]
    hours: 1.2                   # of one run, for the estimate of --dry-run; optional
  - corpus: multi30k
    directions: [de-en]
    methods: [labo]
    seeds: [1]
    settings:                    # every combination of these
      criterion.tau: [1.15, 1.25]
  - corpus: multi30k
    directions: [de-en]
    methods: [kd]
    seeds: [1]
    teachers: [ce]               # the runs of these methods with the same corpus, direction and seed
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import yaml

from ..errors import UserError
from ..evaluation.runs import RunResult
from ..files import configs, methods
from .config import Config, compose
from .recipes import SETUPS, find, run_config, run_folder
from .run import differences

_KEYS = ("corpus", "directions", "methods", "seeds", "settings", "teachers", "hours")
_TOP = ("title", "baseline", "grid")


@dataclass(frozen=True)
class Job:
    """One run of a grid."""

    corpus: str
    direction: str
    method: str
    seed: int
    settings: Tuple[str, ...] = ()  # KEY=VALUE, what differs from the configuration
    teachers: Tuple["Job", ...] = ()
    smoke: bool = False  # as ``labo-fairseq run --smoke``
    hours: Optional[float] = field(default=None, compare=False)  # what the grid's author expects it to take

    @property
    def variant(self) -> str:
        """The method with its settings: what a row of the report is called."""
        settings = (setting.split("=", 1) for setting in self.settings)
        return "-".join([self.method, *(f"{_SHORT.get(key, key)}{value}" for key, value in settings)])

    @property
    def name(self) -> str:
        """The folder of the run, see :func:`.recipes.run_folder`."""
        return f"{self.variant}-seed{self.seed}{'-smoke' if self.smoke else ''}"

    def folder(self, root: Path) -> Path:
        return run_folder(root, self.corpus, self.direction, self.name)

    def arguments(self, root: Path) -> List[str]:
        """What ``labo-fairseq`` is called with to run or resume this experiment."""
        options = ["--criterion", self.method, "--seed", str(self.seed), "--folder", str(root), "--name", self.name]
        smoke = ["--smoke"] if self.smoke else []
        return ["run", self.corpus, self.direction, *options, *smoke, *self.settings, *self._teacher_path(root)]

    def _teacher_path(self, root: Path) -> List[str]:
        if not self.teachers:
            return []
        checkpoint = f"checkpoint_{SETUPS[self.corpus].checkpoint}.pt"
        paths = (str(teacher.folder(root) / "checkpoints" / checkpoint) for teacher in self.teachers)
        return [f"criterion.teacher_path={':'.join(paths)}"]


#: how a setting is called in the name of a run: the paper's symbol where it has one
_SHORT = {
    "criterion.tau": "tau",
    "criterion.alpha": "alpha",
    "criterion.rho": "rho",
    "criterion.smoothing_warmup_steps": "warmup",
}


@dataclass(frozen=True)
class Grid:
    """All runs of an experiment, teachers before their students."""

    name: str
    title: str
    baseline: str  # variant that the others are compared with
    jobs: Tuple[Job, ...]


def load_grid(name: str, smoke: bool = False) -> Grid:
    """The grid in the file ``name``, or of that name in ``configs/experiments``.

    Raises:
        UserError: no such file, or one that describes no grid: the message says where.
    """
    path = Path(name)
    if not path.is_file():
        path = configs() / "experiments" / f"{name}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(each.stem for each in path.parent.glob("*.yaml")))
        raise UserError(f"no experiment {name!r}: name a YAML file, or one of {shipped}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    try:
        _check_keys(content, _TOP, ["grid"])
        blocks = _list(content["grid"], "grid")
        # a run that two blocks name is one run
        jobs = tuple(
            dict.fromkeys(job for number, block in enumerate(blocks, 1) for job in _jobs(block, number, smoke))
        )
        missing = sorted({teacher.name for job in jobs for teacher in job.teachers if teacher not in jobs})
        if missing:
            raise UserError(f"the teachers {', '.join(missing)} are no runs of this grid")
        baseline = content.get("baseline", jobs[0].variant)
        if baseline not in [job.variant for job in jobs]:
            raise UserError(f"the baseline {baseline!r} is none of its methods")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    ordered = sorted(jobs, key=lambda job: bool(job.teachers))
    return Grid(path.stem, content.get("title", path.stem), baseline, tuple(ordered))


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
        for name in differences(_config_of(job), result.settings["config"])
        if name != "criterion.teacher_path"
    ]
    if differing:
        raise UserError(f"{path.parent} holds a run with another {', '.join(sorted(differing))}: move it away")
    return result


@lru_cache(maxsize=None)  # asked for by the plan, the scheduler and its end
def _config_of(job: Job) -> Config:
    return run_config(job.corpus, job.direction, job.method, job.seed, job.settings, job.smoke)


def _jobs(block: Any, number: int, smoke: bool) -> Iterator[Job]:
    try:
        _check_keys(block, _KEYS, ["corpus", "directions", "methods", "seeds"])
        corpus = block["corpus"]
        settings = block.get("settings", {})
        if not isinstance(settings, dict):
            raise UserError("settings must be KEY: [VALUE, ...]")
        hours = block.get("hours")
        if hours is not None and not (isinstance(hours, (int, float)) and 0 < hours < math.inf):
            raise UserError(f"hours is {hours!r}: it must be a number above 0")
        choices = [[(str(key), value) for value in _list(values, key)] for key, values in settings.items()]
        taught = _list(block["teachers"], "teachers") if "teachers" in block else []
        for direction, method, chosen, seed in product(
            *(_list(block["directions"], "directions"), _list(block["methods"], "methods")),
            *(product(*choices), _list(block["seeds"], "seeds")),
        ):
            find(str(corpus), str(direction))
            for each in (method, *taught):
                if each not in methods():
                    raise UserError(f"unknown method {each!r}: choose from {', '.join(methods())}")
            if type(seed) is not int or not 0 <= seed < 1 << 32:
                raise UserError(f"a seed must be an integer from 0 to {(1 << 32) - 1}, got {seed!r}")
            teachers = tuple(Job(corpus, direction, each, seed, smoke=smoke) for each in taught)
            if (method == "kd") != bool(teachers):
                raise UserError("method kd, and no other, needs teachers")
            changed = _changed(f"{corpus}_{direction}_{method}", chosen)
            yield Job(corpus, direction, method, seed, changed, teachers, smoke, hours)
    except UserError as error:
        raise UserError(f"block {number} of the grid: {error}") from None


def _changed(configuration: str, settings: Sequence[Tuple[str, Any]]) -> Tuple[str, ...]:
    """The ``settings`` that say something else than the configuration: so a default has one name, not two.

    Raises:
        UserError: they do not fit, see :func:`compose`.
    """
    if not settings:
        return ()
    config = _default(configuration)
    changed = tuple(f"{key}={value}" for key, value in settings if _value(config, key) != value)
    compose(configuration, changed)
    return changed


@lru_cache(maxsize=None)  # a grid asks for it once a run
def _default(configuration: str) -> Dict[str, Any]:
    return compose(configuration)


def _value(config: Dict[str, Any], key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _check_keys(value: Any, known: Sequence[str], needed: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{value!r} is no set of KEY: VALUE")
    unknown, missing = sorted(map(str, set(value) - set(known))), sorted(set(needed) - set(value))
    if unknown:
        raise UserError(f"unknown key {', '.join(unknown)}: choose from {', '.join(sorted(known))}")
    if missing:
        raise UserError(f"no {', '.join(missing)}")


def _list(value: Any, name: str) -> List[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{name} must be a list of at least one")
    return value
