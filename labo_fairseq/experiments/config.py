"""Configurations of ``fairseq-hydra-train``: composed from ``configs/``, fitted to the machine."""

import math
import os
from copy import deepcopy
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..checkpoints import load_checkpoint
from ..cli_types import LARGEST_SEED
from ..data.prepared_corpus import Prepared
from ..errors import UserError
from ..files import configs
from ..subprocesses import USER_DIR
from .machines import Machines

Config = Dict[str, Any]

_UNSET = "???"  # Hydra's word for a value that must be given
_LEAST_TOKENS = 256


def merge_files(
    groups: Mapping[str, str], method: str, settings: Mapping[str, Any], overrides: Sequence[str] = ()
) -> Config:
    """One file of each of Hydra's groups, a corpus' own ``settings``, and ``overrides`` on top.

    The files serve ``fairseq-hydra-train --config-dir`` as they are. They are merged here as Hydra merges them, without
    its global state and its two versions.

    Args:
        groups: group → file.
        settings: dotted key → value; one that the method does not have, such as a smoothing warm-up, is left out.
        overrides: values such as ``criterion.tau=1.15``, and whole files such as ``model=transformer_base``.

    Raises:
        UserError: no such file, or an override that is not KEY=VALUE or does not fit.
    """
    for override in overrides:
        if "=" not in override.lstrip("="):
            raise UserError(f"invalid override {override!r}: expected KEY=VALUE, e.g. criterion.tau=1.15")
    chosen, values = {**groups, "criterion": method}, []
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "criterion":
            raise UserError(f"{override!r}: the method is chosen with --criterion")
        if key in chosen:
            chosen[key] = value
        else:
            values.append(override)
    try:
        files = {group: _load(group, file) for group, file in chosen.items()}
        schedule = _of_method(files.pop("schedule"), files["criterion"])
        own = OmegaConf.create({})
        for key, value in settings.items():
            section, _, name = str(key).partition(".")
            if section != "criterion" or name in files["criterion"]["criterion"]:
                OmegaConf.update(own, str(key), value, merge=False)
        config = OmegaConf.merge(*files.values(), schedule, own)
        merged: Any = OmegaConf.to_container(OmegaConf.merge(config, OmegaConf.from_dotlist(values)))
        plain: Any = OmegaConf.to_container(config)
        _check(plain, merged)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise _misfit(overrides, error) from None
    return merged


def check_with_fairseq(config: Config, overrides: Sequence[str] = ()) -> None:
    """See that fairseq will take ``config``, which ``overrides`` are part of, as far as its types tell.

    Raises:
        UserError: it will not.
    """
    from ..criterions.validation import check_settings  # fairseq takes seconds

    try:
        check_settings(config)
    except (OmegaConfBaseException, ValueError) as error:
        raise _misfit(overrides, error) from None


def _misfit(overrides: Sequence[str], error: Exception) -> UserError:
    return UserError(f"the settings {' '.join(overrides)} do not fit: {str(error).splitlines()[0]}")


def has_warmup(method: str) -> bool:
    """Whether a method's file names a smoothing warm-up."""
    return "smoothing_warmup_steps" in _load("criterion", method)["criterion"]


def takes_teachers(method: str) -> bool:
    """Whether a method's file names a teacher, which it leaves to be given."""
    declared: Any = OmegaConf.to_container(_load("criterion", method))
    return "teacher_path" in declared["criterion"]


def _load(group: str, name: str) -> Any:
    """The file of that name in a group of ``configs/``."""
    names = sorted(path.stem for path in (configs() / group).glob("*.yaml"))
    if name not in names:
        raise ValueError(f"there is no {group} {name!r}: choose from {', '.join(names)}")
    return OmegaConf.load(configs() / group / f"{name}.yaml")


def _of_method(schedule: Any, method: Any) -> Any:
    """``schedule`` without what ``method`` does not have: a smoothing warm-up, for one."""
    criterion = {key: value for key, value in schedule.get("criterion", {}).items() if key in method["criterion"]}
    return {**schedule, "criterion": criterion}


def _check(config: Config, merged: Config) -> None:
    """ValueError where ``merged``, which is ``config`` with settings, cannot be trained with.

    So what is wrong is said in one line, and before a corpus is prepared; see also :func:`check_with_fairseq`.
    """
    for name, section in config.items():
        if isinstance(section, dict) and not isinstance(merged[name], dict):
            raise ValueError(f"{name} is a group of settings, not one")
    optimization, frequency = merged["optimization"], merged["optimization"].get("update_freq")
    if not _counts(merged["dataset"].get("max_tokens")):
        raise ValueError("dataset.max_tokens must be an integer of at least 1")
    if not (isinstance(frequency, list) and len(frequency) == 1 and _counts(frequency[0])):
        raise ValueError("optimization.update_freq must be one whole number of at least 1 in brackets, as in [2]")
    lengths = [optimization[name] for name in ("max_update", "max_epoch") if optimization.get(name) is not None]
    if not (lengths and all(map(_counts, lengths))):
        raise ValueError("optimization.max_update or optimization.max_epoch must be an integer of at least 1")
    rates = optimization.get("lr")
    if not (isinstance(rates, list) and rates and all(type(rate) in (int, float) and 0 < rate < 1e9 for rate in rates)):
        raise ValueError("optimization.lr must be numbers above 0 in brackets, as in [0.001]")
    seed = merged["common"].get("seed", 1)
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"common.seed is {seed}: it must be an integer from 0 to {LARGEST_SEED}")
    for name in ("no_save", "no_last_checkpoints"):
        if merged.get("checkpoint", {}).get(name):
            raise ValueError(f"checkpoint.{name} leaves no checkpoint to resume from or to score: leave it out")


def _counts(value: Any) -> bool:
    return type(value) is int and value > 0


def for_machines(config: Config, machines: Machines) -> Config:
    """``config`` with the number of workers that ``machines`` allow, and their precision unless it names one itself.

    The configuration says how many tokens an update sees: ``max_tokens`` times ``update_freq``. However many workers
    share them, it stays that many: fewer micro-batches first, and smaller ones where there is only one.

    Raises:
        UserError: no GPU is used and the precision needs one, or see :func:`for_workers`.
    """
    fitted = deepcopy(config)
    common = fitted.setdefault("common", {})
    named = [name for name in _PRECISIONS if name in common]
    halves = [name for name in named if common[name] and "bf16" not in name]
    if machines.used_gpus:
        common.update({} if named else _fastest_precision(machines.used_gpus))
    elif halves:
        raise UserError(f"common.{halves[0]} needs a GPU, and none is used here: leave it out")
    else:
        common["cpu"] = True
    return for_workers(fitted, machines.workers)


def for_workers(config: Config, workers: int) -> Config:
    """``config`` for so many workers that make the same updates as one.

    Raises:
        UserError: a worker would get too little for the longest sentences.
    """
    tokens, (frequency,) = config["dataset"]["max_tokens"], config["optimization"]["update_freq"]
    shared = math.ceil(frequency / workers)
    share = tokens * frequency // (workers * shared)
    if workers > 1 and share < _LEAST_TOKENS:
        raise UserError(
            f"{workers} workers would get {share} tokens each of an update of {tokens * frequency}, fewer than a long "
            "sentence has: use fewer, or raise dataset.max_tokens or optimization.update_freq"
        )
    fitted = deepcopy(config)
    fitted.setdefault("distributed_training", {})["distributed_world_size"] = workers
    fitted["dataset"]["max_tokens"] = share
    fitted["optimization"]["update_freq"] = [shared]
    return fitted


_PRECISIONS = ("fp16", "memory_efficient_fp16", "amp", "bf16", "memory_efficient_bf16")


def _fastest_precision(gpus: int) -> Config:
    major = min(torch.cuda.get_device_capability(number)[0] for number in range(gpus))
    if major >= 8:
        return {"bf16": True}
    return {"fp16": True} if major == 7 else {}


def with_teachers(config: Config, folder: Path) -> Config:
    """``config`` with the paths of its teachers, if it has any, relative to ``folder``, where the run will lie.

    So the settings of a run are the same wherever the runs lie and whoever names them from where.

    Raises:
        UserError: no teacher is named, or one is not there or no checkpoint.
    """
    paths = config["criterion"].get("teacher_path")
    if paths is None:
        return config
    if paths == _UNSET:
        raise UserError("distillation needs a teacher: criterion.teacher_path=CHECKPOINT, several separated by ':'")
    for path in paths.split(":"):
        if not Path(path).is_file():
            raise UserError(f"no teacher {path}: train it first")
        load_checkpoint(Path(path))
    told = deepcopy(config)
    told["criterion"]["teacher_path"] = ":".join(os.path.relpath(path, folder) for path in paths.split(":"))
    return told


def with_paths(config: Config, data: Prepared, save_dir: Path) -> Config:
    """``config`` with the plugin, the data and the folder for checkpoints; absolute, since Hydra changes folders.

    Teachers are those of :func:`with_teachers`, for a run in the folder that ``save_dir`` lies in.
    """
    whole = deepcopy(config)
    whole["common"]["user_dir"] = USER_DIR
    whole["task"]["data"] = str(data.binarized.resolve())
    whole.setdefault("checkpoint", {})["save_dir"] = str(save_dir.resolve())
    if "teacher_path" in whole["criterion"]:
        teachers = whole["criterion"]["teacher_path"].split(":")
        whole["criterion"]["teacher_path"] = ":".join(str((save_dir.parent / path).resolve()) for path in teachers)
    # Hydra would keep a dated folder of every start
    whole["hydra"] = {"run": {"dir": str(save_dir.resolve().parent)}, "output_subdir": None}
    return whole


def to_yaml(config: Config) -> str:
    """``config`` as YAML, for ``fairseq-hydra-train --config-dir FOLDER --config-name NAME``."""
    return OmegaConf.to_yaml(OmegaConf.create(config))
