"""All settings of one image experiment: a declared data set, a network, a method, and what the user changes."""

from copy import deepcopy
from dataclasses import asdict
from typing import Any, Collection, Dict, Sequence

import yaml
from torch import nn

from ..errors import UserError
from ..yaml_files import check_keys, parse_yaml
from .datasets import DATA, READERS, DatasetDeclaration
from .methods import Context, build_method, method_defaults
from .networks import NETWORKS, network_defaults
from .training import Pixels, TrainingRecipe, check_mixing
from .transforms import Augmentation

Settings = Dict[str, Any]

#: images of a smoke test: of the training set, of any other
SMOKE_IMAGES = (200, 100)
_SMOKE_TRAINING = {"epochs": 2, "batch": 50}
_SMOKE_WIDTHS = {"mobilenetv2": 0.25}
_SMOKE_SIDE = {"size": 32, "resize": 36}


def compose(
    declaration: DatasetDeclaration,
    network: str,
    method: str,
    seed: int,
    overrides: Sequence[str] = (),
    smoke: bool = False,
) -> Settings:
    """The settings of a run, as its ``settings.json`` holds them.

    Args:
        network: a name, or MODULE:FUNCTION.
        overrides: KEY=VALUE, such as ``criterion.tau=1.15`` or ``training.epochs=30``.

    Raises:
        UserError: an unknown name, or a value out of range; the message names the setting.
    """
    known = network_defaults(network)
    _check_declared(declaration, network, known)
    declared = declaration.networks.get(network, declaration.networks.get("default", {}))
    settings: Settings = {
        "dataset": declaration.name,
        "network": {"name": network, **known, **{key: value for key, value in declared.items() if key in known}},
        "criterion": {"name": method, **method_defaults(method)},
        "data": {**DATA, **declaration.data},
        "training": {**asdict(TrainingRecipe()), **declaration.training},
        "augmentation": {**asdict(Augmentation()), **declaration.augmentation},
        "normalization": {"mean": list(declaration.mean), "std": list(declaration.std)},
        "seed": seed,
        "smoke": smoke,
    }
    sides = settings["data"] if "resize" in declaration.data else DATA
    if smoke:
        settings["training"].update(_SMOKE_TRAINING)
        settings["data"].update(_SMOKE_SIDE)
        sides = _SMOKE_SIDE
        if "width" in known:
            settings["network"]["width"] = _SMOKE_WIDTHS.get(network, 8)
    size, resize = sides["size"], sides["resize"]
    for override in overrides:
        _refuse_unheeded(declaration, override)
        _apply(settings, override)
    if not any(override.startswith("data.resize=") for override in overrides):
        settings["data"]["resize"] = _resized(size, resize, settings["data"]["size"])
    _check(settings)
    settings["training"]["milestones"] = list(settings["training"]["milestones"])
    return settings


def _resized(size: Any, resize: Any, new_size: Any) -> Any:
    """What ``new_size`` in the place of ``size`` makes of ``resize``: as much of an image is cut away.

    Of small images, whose ``size`` alone was set, next to nothing would be left.
    """
    numbers = all(type(value) is int and value > 0 for value in (size, resize, new_size))
    return round(new_size * resize / size) if numbers else resize


def recipe_of(settings: Settings) -> TrainingRecipe:
    """How to train."""
    training = settings["training"]
    return TrainingRecipe(**{**training, "milestones": tuple(training["milestones"])})


def pixels_of(settings: Settings) -> Pixels:
    """What happens to the images."""
    mean, std = (tuple(settings["normalization"][name]) for name in ("mean", "std"))
    return Pixels(Augmentation(**settings["augmentation"]), mean, std)


def options_of(section: Dict[str, Any]) -> Dict[str, Any]:
    """A section such as ``network`` without its name."""
    return {key: value for key, value in section.items() if key != "name"}


def _check_declared(declaration: DatasetDeclaration, network: str, known: Collection[str]) -> None:
    """UserError where the declaration of a data set has a setting that nothing takes."""
    every = {option for name in NETWORKS for option in network_defaults(name)}
    sections = {
        "training": (declaration.training, asdict(TrainingRecipe())),
        "augmentation": (declaration.augmentation, asdict(Augmentation())),
        f"networks.{network}": (declaration.networks.get(network, {}), known),
        # of any network, each of which takes what it knows
        "networks.default": (declaration.networks.get("default", {}), every.union(known)),
    }
    for name, (value, options) in sections.items():
        try:
            check_keys(value, options)
        except UserError as error:
            raise UserError(f"the data set {declaration.name} declares {name} wrongly: {error}") from None


def _refuse_unheeded(declaration: DatasetDeclaration, override: str) -> None:
    """UserError where an override sets what the images of this kind have not."""
    key = override.partition("=")[0]
    section, _, name = key.partition(".")
    heeded = READERS[declaration.reader].settings
    if section == "data" and name in DATA and name not in heeded:
        known = ", ".join(f"data.{one}" for one in heeded)
        raise UserError(f"{key} has no effect on {declaration.name}: it has {known}")


def _apply(settings: Settings, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"invalid override {override!r}: expected KEY=VALUE, e.g. criterion.tau=1.15")
    section, _, name = key.partition(".")
    changeable = {one for one, value in settings.items() if isinstance(value, dict)} - {"normalization"}
    if section not in changeable:
        raise UserError(f"unknown setting {key}: it must begin with one of {', '.join(sorted(changeable))}")
    if name not in options_of(settings[section]):
        known = ", ".join(f"{section}.{one}" for one in options_of(settings[section])) or "nothing to set"
        raise UserError(f"unknown setting {key}: {settings[section].get('name', section)} has {known}")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        raise UserError(f"the value of {key} cannot be read: {text}") from None
    if isinstance(value, str):
        value = _number(value)
    default = settings[section][name]
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    settings[section][name] = value


def _number(text: str) -> Any:
    """YAML takes inf for a word."""
    try:
        return float(text)
    except ValueError:
        return text


def _check(settings: Settings) -> None:
    """UserError where a value is out of range."""
    checks = {"training": TrainingRecipe, "augmentation": Augmentation}
    for section, check in checks.items():
        values = deepcopy(settings[section])
        try:
            check(**values)
        except (TypeError, ValueError) as error:
            raise UserError(f"{section}.{error}") from None
    # a method checks its options when it is built, for whatever training
    anything = Context(classes=2, images=2, epochs=1, updates=1, build=nn.Identity, teacher=nn.Identity())
    method = build_method(settings["criterion"]["name"], anything, options_of(settings["criterion"]))
    check_mixing(recipe_of(settings), method)
    data = settings["data"]
    for name, least in (("validation", 0), ("test", 0), ("size", 8), ("resize", 8)):
        if type(data[name]) is not int or data[name] < least:
            raise UserError(f"data.{name} must be an integer of at least {least}, got {data[name]}")
    if data["resize"] < data["size"]:
        raise UserError(f"data.resize must be at least data.size, {data['size']}, got {data['resize']}")
    if not isinstance(data["verify"], bool):
        raise UserError(f"data.verify must be true or false, got {data['verify']}")
