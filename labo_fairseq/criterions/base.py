"""What the criterions share: options, masking, warm-up, R-Drop, logging."""

import logging
import math
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Tuple

import torch
from fairseq import utils
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics
from torch import Tensor

from ..fairseq_patches.command_line import as_written
from ..losses.blockwise import Quantity, check_not_negative
from ..losses.label_smoothing import label_smoothing_terms
from ..losses.rdrop import rdrop_terms
from .passes import two_passes
from .refusals import FirstBatches, one_line_errors, refuse_diverged, refuse_model, refuse_output, refuse_task

logger = logging.getLogger(__name__)

ENTROPY = Quantity("entropy of p", "bits")  # as fairseq does with its losses
#: fairseq's name in the log for D of :mod:`..losses.rdrop`
_RDROP_KL = "rdrop_kl_loss"
_DIVERGENCE = {_RDROP_KL: Quantity("divergence of two passes", "bits")}


@dataclass
class RegularizedConfig(LabelSmoothedCrossEntropyCriterionConfig):
    label_smoothing: float = field(
        default=0.1,
        metadata={"help": "epsilon of the uniform label smoothing used during the smoothing warm-up"},
    )
    smoothing_warmup_steps: int = field(
        default=0,
        metadata={"help": "optimizer updates trained with uniform label smoothing before this loss takes over"},
    )
    rdrop_alpha: float = field(
        default=0.0,
        metadata={
            "help": "R-Drop (Wu et al., 2021): every batch goes through the model twice, and the divergence of the two "
            "predictions p and q, which dropout makes differ, is part of the loss: (L(p) + L(q))/2 + "
            "alpha/2 * (KL(p||q) + KL(q||p))/2, in the smoothing warm-up as well. 0 is off, the paper takes 5 for "
            "translation. An update needs twice the time and memory; where that is too much, halve --max-tokens and "
            "double --update-freq"
        },
    )


def check_warmup(cfg: Any) -> None:
    """ValueError names the first option that fairseq's label smoothing shares with ours and that is out of range."""
    if not 0 <= getattr(cfg, "label_smoothing", 0) < 1:
        raise ValueError(f"label-smoothing must be in [0, 1), got {cfg.label_smoothing}")
    for name in ("smoothing_warmup_steps", "ignore_prefix_size"):
        if getattr(cfg, name, 0) < 0:
            raise ValueError(f"{name.replace('_', '-')} must be ≥ 0, got {getattr(cfg, name)}")


class UpdateCounter:
    """Number of optimizer updates made before the current one, as the trainer knows it.

    fairseq tells a criterion nothing about updates, but its trainer calls ``task.train_step`` once for every
    micro-batch with ``update_num``, which it restores from a checkpoint and which every worker shares. The
    counter listens there, on this task object alone, so it needs no state of its own.

    Args:
        watch: given the loss of every micro-batch before the optimizer sees its gradient.
    """

    def __init__(self, task: Any, watch: Callable[[Tensor], None]) -> None:
        #: None until the first training step: a model that is only evaluated
        self.num_updates = None
        train_step = task.train_step

        @wraps(train_step)
        def counted(sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, **kwargs: Any) -> Any:
            self.num_updates = update_num
            done = train_step(
                sample=sample, model=model, criterion=criterion, optimizer=optimizer, update_num=update_num, **kwargs
            )
            # after the backward pass: a GPU has both in its queue while this waits for the value
            watch(torch.as_tensor(done[0]))  # tasks that make several losses in a step return the number of their sum
            return done

        task.train_step = counted


class RegularizedCriterion(LabelSmoothedCrossEntropyCriterion):
    """Uniform label smoothing for ``--smoothing-warmup-steps`` updates, then the loss of a subclass.

    The warm-up is fairseq's own criterion, inherited. Validation computes the objective of the update just
    made; a model that is only evaluated (``fairseq-validate``) counts as past its warm-up.
    """

    #: what error messages begin with
    name: str
    #: maps the options of a training to a function logits → log posterior; None if logits alone do not determine it
    log_posterior: Optional[Callable[[Any], Callable[[Tensor], Tensor]]] = None
    #: what chooses models unless the user names another. The loss is another function after the warm-up, and the nll is
    #: lowest before: what comes then makes a model less confident, and better
    validation_metric = "accuracy"
    #: fields of the terms whose means over the tokens are logged, once the warm-up is past
    watched: ClassVar[Dict[str, Quantity]] = {"entropy": ENTROPY}

    def __init__(self, cfg: Any, task: Any) -> None:
        with one_line_errors(self.name):
            self.check(cfg)
        refuse_task(self.name, task)
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        if type(task).__name__ == "TranslationMoETask":  # of an example, which may not be there to be imported
            self.validation_metric = "loss"
            logger.warning(
                as_written(
                    "translation_moe logs no accuracy: the best checkpoint goes by the loss, which means the same in "
                    "every update only with --smoothing-warmup-steps 0"
                )
            )
        self.cfg = cfg
        self.updates = UpdateCounter(
            task, lambda loss: refuse_diverged(self.name, loss, (self.updates.num_updates or 0) + 1)
        )
        #: whether the softmax of the model's output is its prediction; None until the first batch
        self._gives_logits: Optional[bool] = None
        self._first_batches = FirstBatches(self.name, self.ignore_prefix_size)

    @classmethod
    def check(cls, cfg: Any) -> None:
        """ValueError, which begins with the name of the option, where one is out of range."""
        check_warmup(cfg)
        check_not_negative("rdrop-alpha", cfg.rdrop_alpha)

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> Any:
        """A named tuple of ``loss``, ``nll`` and what is watched, (tokens,) each, 0 where the target is padding.

        Args:
            logits: (tokens, K). With R-Drop there are twice the tokens of ``sample``: those of one pass, then those of
                the other.
            target: (tokens,).
        """
        raise NotImplementedError

    @property
    def report_accuracy(self) -> bool:
        """Whether the accuracy is logged: in validation always, in training with ``--report-accuracy``."""
        return self._report_accuracy or not self.training

    @report_accuracy.setter
    def report_accuracy(self, wanted: bool) -> None:
        self._report_accuracy = wanted

    @property
    def rdrop_alpha(self) -> float:
        """The weight of R-Drop where it has a part: validation has no dropout."""
        return self.cfg.rdrop_alpha if self.training else 0.0

    @property
    def warming_up(self) -> bool:
        done = self.updates.num_updates
        return done is not None and done < self.cfg.smoothing_warmup_steps

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Loss of a batch (summed, or (tokens, 1) if not ``reduce``), its sample size and what to log."""
        refuse_model(self.name, model, sample)
        if self.rdrop_alpha:
            return self._forward_twice(model, sample, reduce)
        if self.warming_up:
            loss, sample_size, logging_output = super().forward(model, sample, reduce=reduce)
            self.count_tokens(logging_output, self.without_prefix(sample["target"]))
            return loss, sample_size, logging_output
        net_output = model(**sample["net_input"])
        logits, target = self.get_logits_and_target(model, net_output, sample)
        terms = self.get_terms(logits, target, sample)
        return self.summarize(terms, target, sample, reduce, lambda: logits.argmax(-1))

    def _forward_twice(self, model: Any, sample: Dict[str, Any], reduce: bool) -> Tuple[Tensor, int, Dict[str, Any]]:
        """:meth:`forward` with R-Drop, in which label smoothing has its part as well as what comes after it."""
        net_output, passes = self.predict_twice(model, sample)
        logits, target = self.get_logits_and_target(model, net_output, passes)
        if self.warming_up:
            terms: Any = label_smoothing_terms(
                logits, target, self.eps, over_others=True, ignore_index=self.padding_idx
            )
        else:
            terms = self.get_terms(logits, target, sample)
        target = target[: len(target) // 2]
        terms, divergence = rdrop_terms(terms, logits, target, self.rdrop_alpha, self.padding_idx)
        return self.summarize_twice(terms, divergence, target, sample, reduce, lambda: logits[: len(target)].argmax(-1))

    def predict_twice(self, model: Any, sample: Dict[str, Any], **arguments: Any) -> Tuple[Any, Dict[str, Any]]:
        """Run the model on the doubled batch; return its output and that batch.

        The program ends with one line where the batch has something that cannot be doubled, and where the model wants
        the sentences sorted.
        """
        with one_line_errors(self.name):
            passes = two_passes(sample)
        try:
            return model(**passes["net_input"], **arguments), passes
        except Exception as error:  # torch's RuntimeError, or what a model made of it
            if "sorted in decreasing order" not in f"{error} {error.__context__}":
                raise
            raise SystemExit(
                as_written(
                    f"{self.name}: --rdrop-alpha needs every batch twice, and the LSTM in the encoder of this model "
                    "wants its sentences sorted by length, which they are not in such a batch: leave it out"
                )
            ) from None

    def summarize_twice(
        self,
        terms: Any,
        divergence: Tensor,
        target: Tensor,
        sample: Dict[str, Any],
        reduce: bool,
        likeliest: Callable[[], Tensor],
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """What :meth:`forward` returns with R-Drop, of what :func:`..losses.rdrop.rdrop_terms` does.

        All is per token of the batch: what is logged is the mean of the passes, the accuracy that of the first.
        """
        loss, sample_size, logging_output = self.summarize(terms, target, sample, reduce, likeliest)
        logging_output[_RDROP_KL] = divergence.sum()
        return loss, sample_size, logging_output

    def compute_loss(
        self, model: Any, net_output: Any, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Tensor]:
        """Loss and nll of what a model put out, each summed, or (tokens, 1) if not ``reduce``.

        fairseq's warm-up goes through it, and so do tasks that call the model themselves (``translation_moe``).
        """
        if self.rdrop_alpha:
            raise SystemExit(
                as_written(
                    f"{self.name}: --rdrop-alpha needs every batch twice, and this task calls the model by itself, as "
                    "translation_moe does for every expert: leave it out"
                )
            )
        logits, target = self.get_logits_and_target(model, net_output, sample)
        if self.warming_up:
            return super().compute_loss(model, net_output, sample, reduce=reduce)
        terms = self.get_terms(logits, target, sample)
        if reduce:
            return terms.loss.sum(), terms.nll.sum()
        return terms.loss.unsqueeze(-1), terms.nll.unsqueeze(-1)

    def summarize(
        self, terms: Any, target: Tensor, sample: Dict[str, Any], reduce: bool, likeliest: Callable[[], Tensor]
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """What :meth:`forward` returns of the terms; ``likeliest`` returns the most probable class of each token."""
        loss = terms.loss.sum() if reduce else terms.loss.unsqueeze(-1)
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        mask = target.ne(self.padding_idx)
        logging_output = {
            "loss": loss.data,
            "nll_loss": terms.nll.sum() if reduce else terms.nll.unsqueeze(-1),
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        self.count_tokens(logging_output, target)
        if not self.warming_up:
            for name in self.watched:
                logging_output[name] = getattr(terms, name).sum()
        if self.report_accuracy:
            logging_output["n_correct"] = utils.item(likeliest().eq(target).logical_and(mask).sum())
            logging_output["total"] = utils.item(mask.sum())
        return loss, sample_size, logging_output

    def count_tokens(self, logging_output: Dict[str, Any], target: Tensor) -> None:
        """Let what is logged be divided by the tokens of ``target`` (tokens,) that count, which are no padding.

        The sample size that the gradient is divided by stays fairseq's, which counts ignored prefixes: with them, too,
        the smoothing warm-up is the training that fairseq's label smoothing makes.
        """
        counted = target.ne(self.padding_idx).sum()
        logging_output["counted_ntokens"] = counted
        if not self.sentence_avg:
            logging_output["sample_size"] = counted
        if not self.training:
            logging_output["validating"] = 1
        else:
            self._first_batches.see(counted)

    def get_logits_and_target(self, model: Any, net_output: Any, sample: Dict[str, Any]) -> Tuple[Tensor, Tensor]:
        """Logits (tokens, K) and targets (tokens,) without the ignored prefix; padding is still in both.

        A model may put out something else, and say by ``get_normalized_probs`` what it means: the pointer-generator
        puts out probabilities. Its log-probabilities are logits as well, for their softmax is the prediction.
        """
        output, target = self.get_output_and_target(model, net_output, sample)
        if self._gives_logits is None:
            self._gives_logits = _are_logits(model, net_output)
        if not self._gives_logits:
            output = self.without_prefix(model.get_normalized_probs(net_output, log_probs=True))
        return output, target

    def get_output_and_target(self, model: Any, net_output: Any, sample: Dict[str, Any]) -> Tuple[Tensor, Tensor]:
        """Rows of the model's output and targets (tokens,) without the ignored prefix; padding is still in both.

        The program ends with one line where these are not one row for every token.
        """
        output = net_output[0] if isinstance(net_output, (tuple, list)) else net_output
        target = model.get_targets(sample, net_output)
        refuse_output(self.name, model, output, target)
        return self.without_prefix(output), self.without_prefix(target)

    def without_prefix(self, tensor: Tensor) -> Tensor:
        """(sentences, positions, …) as (tokens, …), less the first ``--ignore-prefix-size`` positions."""
        return tensor[:, self.ignore_prefix_size :].flatten(0, 1)

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """What fairseq's label smoothing logs, and the means of what is watched, entropies in bits.

        All are means over the tokens that count, or with ``--sentence-avg`` the loss over sentences.
        """
        logs = [{**log, "ntokens": log.get("counted_ntokens", log.get("ntokens", 0))} for log in logging_outputs]
        if any(log.get("validating") for log in logs):
            metrics.log_derived("ppl", cls._perplexity_of_validation)
        if any("nll_loss" in log for log in logs):
            super().reduce_metrics(logs)
        else:  # a task that makes its own log; fairseq would say 0
            loss, sample_size = (sum(log.get(name, 0) for log in logs) for name in ("loss", "sample_size"))
            metrics.log_scalar("loss", loss / sample_size / math.log(2), sample_size, round=3)
        n = sum(log["ntokens"] for log in logs)
        for name, quantity in {**cls.watched, **_DIVERGENCE}.items():
            if n > 0 and all(name in log for log in logs):
                mean = sum(log[name] for log in logs) / n
                metrics.log_scalar(name, mean / math.log(2) if quantity.unit == "bits" else mean, n, round=3)

    @classmethod
    def _perplexity_of_validation(cls, meters: Any) -> float:
        """fairseq's perplexity; the program ends with one line where no token counted, and there is none."""
        if not meters["nll_loss"].count > 0:
            raise SystemExit(
                as_written(
                    f"{cls.name}: no target token of this set is left to validate on: --ignore-prefix-size must be "
                    "less than the length of its target sentences"
                )
            )
        return utils.get_perplexity(meters["nll_loss"].avg)


@torch.no_grad()
def _are_logits(model: Any, net_output: Any) -> bool:
    """Whether the prediction is the softmax of the output, judged by the first position of every sentence."""
    first: Any
    if torch.is_tensor(net_output):
        first = logits = net_output[:, :1]
    else:
        logits = net_output[0][:, :1]
        first = (logits, *net_output[1:])
    if "get_normalized_probs" in vars(model):  # it has been told to give others
        return False
    log_p = model.get_normalized_probs(first, log_probs=True)
    return torch.allclose(log_p.float(), logits.float().log_softmax(-1), atol=1e-3, equal_nan=True)


def quantities(criterion: Mapping[str, Any]) -> Dict[str, Quantity]:
    """What trainings with these settings log in addition to fairseq's values: name in the log → what it is."""
    watched = getattr(CRITERION_REGISTRY.get(criterion["_name"]), "watched", {})
    return {**watched, **_DIVERGENCE} if criterion.get("rdrop_alpha") else watched
