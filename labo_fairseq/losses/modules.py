"""The losses as modules, in the place of :class:`torch.nn.CrossEntropyLoss` in any PyTorch trainer."""

import math
from typing import Any, Dict, List, Optional, Union

import torch
from torch import Tensor, nn

from .blockwise import accumulator
from .fused_linear import linear_labo_terms_with
from .label_smoothing import check_smoothing
from .labo import ADAPTIVE, LaboOptions, Objective, labo_log_posterior_with, labo_terms_with, uniform_smoothing


class _TokenLoss(nn.Module):
    """What the modules share: weights of classes and tokens, the classes that smoothing may reach, the reduction."""

    weight: Optional[Tensor]
    smoothing_support: Optional[Tensor]

    def __init__(
        self,
        ignore_index: Optional[int],
        reduction: str,
        weight: Optional[Tensor],
        smoothing_support: Optional[Tensor],
        smoothing: Objective,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        if weight is not None and weight.dim() != 1:
            raise ValueError(f"weight must have the shape (K,), got {tuple(weight.shape)}")
        if smoothing_support is not None:
            if smoothing_support.dim() != 1 or smoothing_support.dtype != torch.bool:
                kind = f"{tuple(smoothing_support.shape)}, {smoothing_support.dtype}"
                raise ValueError(f"smoothing_support must be (K,), torch.bool, got {kind}")
            if not smoothing_support.any():
                raise ValueError("smoothing_support must hold at least one class, got none")
        self.ignore_index, self.reduction, self._smoothing = ignore_index, reduction, smoothing
        self.register_buffer("weight", weight)
        self.register_buffer("smoothing_support", smoothing_support, persistent=False)

    @property
    def label_smoothing(self) -> Union[str, float]:
        """The mass ε of label smoothing."""
        return self._smoothing.alpha

    @property
    def options(self) -> Objective:
        """Those of the objective at this moment."""
        raise NotImplementedError

    @property
    def _last_options(self) -> Objective:
        """Those that the last update was made with."""
        return self.options

    def log_posterior(self, logits: Tensor, dim: int = -1) -> Tensor:
        """Calibrated log-probabilities, in closed form, of a model that was trained with this loss.

        The prediction of a regularized model is not what it believes; this inverts the objective, with nothing
        fitted, and keeps 1 % of the prediction, so that no class becomes impossible (see :mod:`.posterior`). It is
        for evaluation and decoding, in the place of ``log_softmax``.

        Args:
            logits: any shape.
            dim: the dimension of the classes.

        Returns:
            Of the shape of the logits; float32, or float64 for float64. With a class ``weight``, that of the classes
            as frequent as they are: the order then is not that of the prediction.

        Raises:
            ValueError: α is 1, or the number of classes does not fit the weights.
        """
        rows = logits.movedim(dim, -1)
        self._check_classes(rows.size(-1))
        log_y = labo_log_posterior_with(self._last_options, rows, self.smoothing_support)
        if self.weight is not None:
            # the minimum is that of the distribution in which a class is as frequent as its weight makes it
            log_weight = self.weight.to(log_y.dtype).log()
            log_y = (log_y - log_weight).masked_fill(self.weight == 0, -math.inf).log_softmax(dim=-1)
        return log_y.movedim(-1, dim)

    def _check_classes(self, k: int) -> None:
        for name in ("weight", "smoothing_support"):
            of_classes = getattr(self, name)
            if of_classes is not None and of_classes.size(0) != k:
                raise ValueError(f"{name} must have the shape ({k},) of the classes, got {tuple(of_classes.shape)}")

    def _weights(self, target: Tensor, token_weight: Optional[Tensor]) -> Optional[Tensor]:
        """The factor of the loss of each token, (N,), or None for 1.

        Args:
            target: class indices of any shape, N elements.
            token_weight: of the same shape.
        """
        flat = None
        if token_weight is not None:
            if token_weight.shape != target.shape:
                shape = tuple(target.shape)
                raise ValueError(
                    f"token_weight must have the shape of the tokens {shape}, got {tuple(token_weight.shape)}"
                )
            flat = token_weight.reshape(-1)
        if self.weight is None:
            return flat
        index = target.reshape(-1)
        if self.ignore_index is not None:
            index = index.masked_fill(index.eq(self.ignore_index), 0)
        return self.weight[index] if flat is None else self.weight[index] * flat

    def _reduce(self, loss: Tensor, target: Tensor, divisor: Optional[Tensor]) -> Tensor:
        """The losses (N,), weighted already, as ``reduction`` says, for a ``target`` of N indices."""
        if self.reduction == "none":
            return loss.view(target.shape)
        total = loss.sum()
        return total if divisor is None else total / divisor.to(loss.dtype)

    def _given_divisor(self, divisor: Union[Tensor, float, None], like: Tensor) -> Optional[Tensor]:
        """What a caller gives the mean to divide by, (), on the device of ``like``, 1 in the place of 0."""
        if divisor is None:
            return None
        if self.reduction != "mean":
            raise ValueError(f"divisor needs reduction='mean', got {self.reduction!r}")
        divisor = torch.as_tensor(divisor, device=like.device).detach()
        return divisor.masked_fill(divisor == 0, 1)

    def _divisor(self, target: Tensor, weights: Optional[Tensor]) -> Optional[Tensor]:
        """Of the mean: the weights of the tokens that are not ignored, or their number, (), and 1 where that is 0."""
        if self.reduction != "mean":
            return None
        kept = torch.ones_like(target, dtype=torch.bool) if self.ignore_index is None else target.ne(self.ignore_index)
        total = kept.sum() if weights is None else weights.masked_fill(~kept.reshape(-1), 0).sum()
        return total.masked_fill(total == 0, 1)


class LaboLoss(_TokenLoss):
    """LABO as a drop-in for :class:`torch.nn.CrossEntropyLoss`, in any PyTorch trainer.

    Examples:
        >>> loss = LaboLoss(tau=1.25)(logits, target)

    Shapes are those of ``CrossEntropyLoss``: logits (K), (N, K) or (N, K, d1, …), target (), (N) or (N, d1, …), or
    distributions over the classes, floating point and of the shape of the logits. The one difference: the mean over
    no token at all is 0, not NaN.

    The smoothing warm-up (Algorithm 1) is in here: with ``warmup_steps=5000`` the loss is that of
    ``CrossEntropyLoss(label_smoothing=0.1)`` until :meth:`step` was called 5,000 times, once after every optimizer
    update. ``state_dict`` holds the count. Where it ends the loss becomes another function, and the
    cross-entropy rises: choose the best model by its accuracy, or by BLEU.

    Args:
        tau, alpha, rho, z_loss: see :class:`LaboOptions`.
        ignore_index: targets of this value have no loss and no gradient; None ignores nothing.
        reduction: ``"mean"`` over the tokens that are not ignored, by their weights, ``"sum"`` or ``"none"``.
        weight: (K,), of the tokens by their class. Smoothing takes no notice of it, while PyTorch's label smoothing
            weighs the classes that it gives mass to as well.
        warmup_steps: optimizer updates of plain label smoothing before LABO takes over.
        label_smoothing: its mass ε in [0, 1).
        smoothing_support: (K,), bool: the classes that smoothing may give mass to, such as the words that occur in
            the target language (masked label smoothing, Chen et al., 2022).

    Raises:
        ValueError: an option out of range, or shapes that do not fit.
    """

    def __init__(
        self,
        tau: float = 1.25,
        alpha: Union[str, float] = ADAPTIVE,
        rho: float = 0.5,
        ignore_index: Optional[int] = -100,
        reduction: str = "mean",
        weight: Optional[Tensor] = None,
        warmup_steps: int = 0,
        label_smoothing: float = 0.1,
        smoothing_support: Optional[Tensor] = None,
        z_loss: float = 0.0,
    ) -> None:
        smoothing = uniform_smoothing(check_smoothing(label_smoothing), z_loss)
        super().__init__(ignore_index, reduction, weight, smoothing_support, smoothing)
        self._labo = LaboOptions(tau, alpha, rho, z_loss)
        self.updates = 0
        self.warmup_steps = warmup_steps

    @property
    def options(self) -> Objective:
        return self._smoothing if self.warming_up else self._labo

    @property
    def _last_options(self) -> Objective:
        return self._smoothing if self.warmup_steps and self.updates <= self.warmup_steps else self._labo

    @property
    def tau(self) -> float:
        return self._labo.tau

    @property
    def alpha(self) -> Union[str, float]:
        return self._labo.alpha

    @property
    def rho(self) -> float:
        return self._labo.rho

    @property
    def warmup_steps(self) -> int:
        """Optimizer updates of plain label smoothing before LABO takes over; may be set."""
        return self._warmup_steps

    @warmup_steps.setter
    def warmup_steps(self, steps: int) -> None:
        if steps < 0 or steps != int(steps):
            raise ValueError(f"warmup_steps must be an integer ≥ 0, got {steps}")
        self._warmup_steps = steps
        self.set_updates(self.updates)

    def step(self) -> None:
        """Count an optimizer update; to be called after it, as the ``step`` of a learning-rate scheduler is."""
        self.set_updates(self.updates + 1)

    def set_updates(self, updates: int) -> None:
        """Say how many optimizer updates were made, where a trainer counts them itself."""
        self.updates = updates
        # what torch.compile looks at: it does not change with every update
        self.warming_up = updates < self.warmup_steps

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        token_weight: Optional[Tensor] = None,
        divisor: Union[Tensor, float, None] = None,
    ) -> Tensor:
        """The loss.

        Args:
            token_weight: of the shape of the target less its classes, the weights of the tokens. The mean divides by
                their sum.
            divisor: (), what the mean divides by instead, such as the tokens of all micro-batches of an update. A
                factor of the loss afterwards gives the same, with one more pass over the gradient. 0 stands for 1.
        """
        divisor = self._given_divisor(divisor, logits)
        rows = logits if logits.dim() == 1 else logits.movedim(1, -1)
        soft = target.is_floating_point()
        if logits.dim() == 0 or target.shape != (logits.shape if soft else rows.shape[:-1]):
            shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}"
            raise ValueError(f"logits and target must be (N, K, …) and (N, …), or both (N, K, …), got {shapes}")
        self._check_classes(rows.size(-1))
        flat = rows.reshape(-1, rows.size(-1))
        if soft:
            distribution = target if target.dim() == 1 else target.movedim(1, -1)
            return self._soft_loss(flat, distribution, token_weight, divisor)
        target = target.long()
        weights = self._weights(target, token_weight)
        divisor = self._divisor(target, weights) if divisor is None else divisor
        usual_scale = None if divisor is None or weights is not None else 1 / divisor.to(accumulator(flat))
        loss = labo_terms_with(
            self.options, flat, target.reshape(-1), self.ignore_index, self.smoothing_support, usual_scale
        ).loss
        return self._reduce(loss if weights is None else loss * weights, target, divisor)

    def _soft_loss(
        self, flat: Tensor, distribution: Tensor, token_weight: Optional[Tensor], divisor: Optional[Tensor]
    ) -> Tensor:
        """The loss of logits (N, K) for distributions (…, K).

        A class weight changes the distribution to ∝ w·q, and weighs the token by what it is normalized by: the loss
        with α = 0 is −Σ_j w_j·q_j·log p_j then, as PyTorch's is.
        """
        shape = distribution.shape[:-1]
        mass = distribution.reshape(flat.shape).to(torch.promote_types(flat.dtype, torch.float32))
        mass = mass if self.weight is None else mass * self.weight
        total = mass.sum(dim=-1)
        label = mass / total.masked_fill(total == 0, 1.0)[:, None]
        loss = labo_terms_with(self.options, flat, label, None, self.smoothing_support).loss * total
        if token_weight is not None:
            if token_weight.shape != shape:
                got = tuple(token_weight.shape)
                raise ValueError(f"token_weight must have the shape of the tokens {tuple(shape)}, got {got}")
            loss = loss * token_weight.reshape(-1)
        if self.reduction == "none":
            return loss.view(shape)
        if self.reduction == "sum":
            return loss.sum()
        if divisor is None:
            divisor = torch.as_tensor(max(len(loss), 1)) if token_weight is None else token_weight.sum()
        return loss.sum() / divisor.masked_fill(divisor == 0, 1)

    def _save_to_state_dict(self, destination: Dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.warmup_steps:
            destination[prefix + "updates"] = torch.tensor(self.updates)

    def _load_from_state_dict(
        self, state_dict: Dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: List[str], *rest: Any
    ) -> None:
        updates = state_dict.pop(prefix + "updates", None)
        if updates is not None:
            self.set_updates(int(updates))
        elif self.warmup_steps:
            missing.append(prefix + "updates")
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)

    def extra_repr(self) -> str:
        warmup = f", warmup_steps={self.warmup_steps}" if self.warmup_steps else ""
        return f"tau={self.tau}, alpha={self.alpha}, rho={self.rho}, reduction={self.reduction!r}{warmup}"


class _LinearLoss(_TokenLoss):
    """The loss of a linear layer's output, for both classes below, whose docstrings have the shapes."""

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Optional[Tensor] = None,
        token_weight: Optional[Tensor] = None,
        divisor: Union[Tensor, float, None] = None,
    ) -> Tensor:
        divisor = self._given_divisor(divisor, hidden)
        if target.is_floating_point():
            raise ValueError("target must be class indices, got distributions: take LaboLoss of the logits for these")
        if target.shape != hidden.shape[:-1]:
            raise ValueError(
                f"hidden and target must be (…, D) and (…), got {tuple(hidden.shape)} and {tuple(target.shape)}"
            )
        self._check_classes(weight.size(0))
        target = target.long()
        weights = self._weights(target, token_weight)
        rows = hidden.reshape(-1, hidden.size(-1))
        fixed = weights is not None and not weights.requires_grad
        loss = linear_labo_terms_with(
            *(self.options, rows, weight, target.reshape(-1), self.ignore_index, bias),
            support=self.smoothing_support,
            token_weight=weights if fixed else None,
        ).loss
        weighted = loss if fixed or weights is None else loss * weights
        return self._reduce(weighted, target, self._divisor(target, weights) if divisor is None else divisor)


class LinearLaboLoss(_LinearLoss, LaboLoss):  # type: ignore[misc]  # whose forward takes logits
    """:class:`LaboLoss` of a linear layer's output, for large vocabularies: the logits are never whole in memory.

    Examples:
        >>> loss = LinearLaboLoss(tau=1.25)(hidden, layer.weight, target, layer.bias)

    Shapes: hidden (…, D), weight (K, D), the layer's and not the weights of the classes, target (…), bias (K) or None,
    token_weight (…) or None; ``divisor`` is that of ``LaboLoss``. The options are those of ``LaboLoss``; targets are
    class indices.

    Raises:
        ValueError: an option out of range, or shapes that do not fit.
    """


class LinearCrossEntropyLoss(_LinearLoss):
    """:class:`torch.nn.CrossEntropyLoss` of a linear layer's output: the logits are never whole in memory.

    Examples:
        >>> loss = LinearCrossEntropyLoss(label_smoothing=0.1)(hidden, layer.weight, target, layer.bias)

    Shapes are those of :class:`LinearLaboLoss`.

    Args:
        weight, ignore_index, reduction, smoothing_support, z_loss: see :class:`LaboLoss`. With a ``weight``, label
            smoothing is not PyTorch's, which weighs the classes that it gives mass to as well.
        label_smoothing: the mass ε in [0, 1), spread over all K classes.

    Raises:
        ValueError: an option out of range, or shapes that do not fit.
    """

    def __init__(
        self,
        weight: Optional[Tensor] = None,
        ignore_index: Optional[int] = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        smoothing_support: Optional[Tensor] = None,
        z_loss: float = 0.0,
    ) -> None:
        smoothing = uniform_smoothing(check_smoothing(label_smoothing), z_loss)
        super().__init__(ignore_index, reduction, weight, smoothing_support, smoothing)

    @property
    def options(self) -> Objective:
        return self._smoothing

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"
