"""The settings of a training, checked as fairseq will check them, before anything is built."""

from dataclasses import fields, is_dataclass
from typing import Any, Dict

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import OmegaConf

from .base import check_warmup

_UNSET = "???"  # Hydra's word for a value that must be given, later perhaps


def check_settings(config: Dict[str, Any]) -> None:
    """See that fairseq will take ``config``, a configuration of ``fairseq-hydra-train``, as far as its types tell.

    Raises:
        ValueError: no such criterion or setting, or an option out of range.
        OmegaConfBaseException: a value of another type.
    """
    _refuse_unknown(config, FairseqConfig)
    for group in fields(FairseqConfig):
        if is_dataclass(group.type):
            _refuse_unknown(config.get(group.name) or {}, group.type, group.name)
    OmegaConf.merge(OmegaConf.structured(FairseqConfig), config)
    types = {group: registry["dataclass_registry"] for group, registry in REGISTRIES.items()}
    types["task"] = TASK_DATACLASS_REGISTRY
    merged = {}
    for group, known in types.items():
        name = str(config.get(group, {}).get("_name"))
        if name in known:  # models, and the oldest tasks, tell no types
            _refuse_unknown(config[group], known[name], group)
            merged[group] = OmegaConf.merge(OmegaConf.structured(known[name]), config[group])
    if "criterion" not in merged:
        raise ValueError(f"there is no criterion {config['criterion'].get('_name')!r}")
    for option, value in config["criterion"].items():
        if value == _UNSET:
            merged["criterion"][option] = "given later"
    # fairseq's own label smoothing takes any number
    check = getattr(CRITERION_REGISTRY[config["criterion"]["_name"]], "check", check_warmup)
    check(merged["criterion"])


def _refuse_unknown(settings: Dict[str, Any], known: Any, group: str = "") -> None:
    """ValueError where one of ``settings`` is no field of the dataclass ``known``."""
    names = {field.name for field in fields(known)}
    unknown = next((name for name in settings if name not in names), None)
    if unknown is not None:
        choices = ", ".join(sorted(name for name in names if not name.startswith("_")))
        what = f"setting {group}.{unknown}" if group else f"group of settings {unknown}"
        raise ValueError(f"unknown {what}: choose from {choices}")
