"""``--posterior``: let fairseq's commands use calibrated probabilities in place of the predictions of a model.

A model that was trained with a regularized loss predicts another distribution than it believes in; see
:mod:`labo_fairseq.losses.posterior`. With the option, ``fairseq-generate``, ``fairseq-interactive``,
``fairseq-validate`` and ``fairseq-eval-lm`` take the latter. The checkpoint of a model tells with which criterion and
options it was trained. In an ensemble every prediction is turned back by itself, and these are averaged;
``--temperature`` then applies to what was turned back. A language model of ``--lm-path`` predicts as it was trained.
"""

import argparse
from functools import wraps
from typing import Any, Callable, Dict, List, Optional

import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.configs import CommonEvalConfig
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor, nn

from ..fairseq_patches.command_line import argument, arguments
from .posterior import LogPosterior, log_posterior_of

OPTION = "--posterior"

_MANY = 1 << 16  # classes: options that do not suit so many suit no vocabulary


class PosteriorProbabilities:
    """In place of the ``get_normalized_probs`` of a model."""

    def __init__(self, model: nn.Module, log_posterior: LogPosterior) -> None:
        self._predictions: Any = model.get_normalized_probs
        self._log_posterior = log_posterior
        #: fairseq's generator has divided the logits by it
        self.temperature = 1.0

    def __call__(self, net_output: Any, log_probs: bool, sample: Optional[Dict[str, Any]] = None) -> Tensor:
        log_p = self._predictions(net_output, True, sample)
        # log-probabilities are logits, whose softmax is the prediction
        log_y = self._log_posterior(log_p * self.temperature)
        if self.temperature != 1:
            log_y = (log_y / self.temperature).log_softmax(dim=-1)
        return log_y if log_probs else log_y.exp()


def add_posterior_option() -> None:
    """Give the option to fairseq's commands that load models, and let it have its effect where they load them."""
    options.gen_parser_from_dataclass = _with_option(options.gen_parser_from_dataclass)
    checkpoint_utils.load_model_ensemble_and_task = _with_posteriors(checkpoint_utils.load_model_ensemble_and_task)
    SequenceGenerator.__init__ = _telling_temperature(SequenceGenerator.__init__)


class _ReadLater(argparse.Action):
    """Leaves nothing in the parsed arguments: the configurations of fairseq have no room for it."""

    def __call__(self, *_: Any) -> None:
        pass


def _with_option(add_arguments: Callable) -> Callable:
    @wraps(add_arguments)
    def added(parser: argparse.ArgumentParser, dataclass: Any, *args: Any, **kwargs: Any) -> None:
        add_arguments(parser, dataclass, *args, **kwargs)
        if isinstance(dataclass, CommonEvalConfig):  # what all commands have that load a model
            text = "use the calibrated probabilities that follow from what the model predicts and how it was trained"
            parser.add_argument(OPTION, action=_ReadLater, nargs=0, default=argparse.SUPPRESS, help=text)

    return added


def _with_posteriors(load_models: Callable) -> Callable:
    @wraps(load_models)
    def loaded(filenames: List[str], *args: Any, **kwargs: Any) -> Any:
        if OPTION not in arguments() or filenames == [argument("--lm-path")]:
            return load_models(filenames, *args, **kwargs)
        trained: List[LogPosterior] = []
        load_state = checkpoint_utils.load_checkpoint_to_cpu

        def noted(path: str, *args: Any, **kwargs: Any) -> Dict[str, Any]:
            state = load_state(path, *args, **kwargs)
            criterion, updates = state["cfg"]["criterion"], state["optimizer_history"][-1]["num_updates"]
            log_posterior = log_posterior_of(criterion, updates)
            if log_posterior is None:
                raise SystemExit(
                    f"{OPTION}: {path} was trained with --criterion {criterion['_name']}: what such a model predicts "
                    "is not enough to turn it back"
                )
            try:
                log_posterior(torch.zeros(_MANY))
            except ValueError as error:
                raise SystemExit(f"{OPTION}: {path}: {error}") from None
            trained.append(log_posterior)
            return state

        checkpoint_utils.load_checkpoint_to_cpu = noted
        try:
            models, *rest = load_models(filenames, *args, **kwargs)
        finally:
            checkpoint_utils.load_checkpoint_to_cpu = load_state
        # a model may lie in several files; and the teachers of a criterion, which it has read by itself, in none
        for model, log_posterior in zip(models, trained[:: len(trained) // len(models) or 1]):
            # validation of several language pairs asks the model of each
            for part in (model, *getattr(model, "models", {}).values()):
                part.get_normalized_probs = PosteriorProbabilities(part, log_posterior)
        return (models, *rest)

    return loaded


def _telling_temperature(init: Callable) -> Callable:
    @wraps(init)
    def built(generator: SequenceGenerator, *args: Any, **kwargs: Any) -> None:
        init(generator, *args, **kwargs)
        for model in generator.model.models:
            if isinstance(model.get_normalized_probs, PosteriorProbabilities):
                model.get_normalized_probs.temperature = generator.temperature

    return built
