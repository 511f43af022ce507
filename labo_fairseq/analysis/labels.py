"""The label that each token of a translation would be trained with: figure 1c of the paper."""

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..losses.labo import check_options, labo_terms
from ..reporting.table import Table


@dataclass(frozen=True)
class Labelling:
    """The options of a label; τ, α and ρ as :func:`labo_fairseq.losses.labo.labo_terms` takes them."""

    tau: float = 1.25
    alpha: Union[str, float] = "adaptive"
    rho: float = 0.5
    epsilon: float = 0.1  # mass of the uniform label smoothing shown beside it

    def __str__(self) -> str:
        alpha = f"α adaptive, ρ = {self.rho:g}" if self.alpha == "adaptive" else f"α = {float(self.alpha):g}"
        return f"τ = {self.tau:g}, {alpha}, ε = {self.epsilon:g}"


@dataclass(frozen=True)
class Share:
    """What a label gives one token."""

    token: str
    p_star: float  # of the smoothing distribution
    label: float  # of the smoothed label P̂ = (1−α)·onehot(k) + α·P*
    uniform: float  # of uniform label smoothing, (1−ε)·onehot(k) + ε/K


@dataclass(frozen=True)
class Position:
    """One token of the translation, given those before it."""

    right: Share  # of the token that stands here
    probability: float  # that the model gives it
    alpha: float
    entropy: float  # H(p), in bits
    top: List[Share]  # the most probable tokens of P*, in decreasing order

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)


def label_positions(
    logits: Tensor, target: Tensor, symbols: Sequence[str], labelling: Labelling, top: int = 5
) -> List[Position]:
    """The labels of one sentence, for each of its tokens.

    Args:
        logits: (T, K).
        target: (T,), int64.
        symbols: K names of the classes.
        top: how many tokens of P* to name, at most K.

    Raises:
        UserError: an option out of range.
    """
    try:
        check_options(labelling.tau, labelling.alpha, labelling.rho)
        if not 0 <= labelling.epsilon <= 1:
            raise ValueError(f"epsilon is {labelling.epsilon}: it must lie in [0, 1]")
        if not 1 <= top <= logits.size(-1):
            raise ValueError(f"top is {top}: it must lie between 1 and the {logits.size(-1)} tokens of the vocabulary")
    except ValueError as error:
        raise UserError(str(error)) from None
    z, k = logits.double(), logits.size(-1)
    terms = labo_terms(z, target, labelling.tau, labelling.alpha, labelling.rho)
    p_star = torch.softmax(z / labelling.tau, dim=-1)

    def share(position: int, token: int) -> Share:
        mass, alpha = p_star[position, token].item(), terms.alpha[position].item()
        right = float(token == target[position])
        return Share(
            symbols[token],
            mass,
            (1 - alpha) * right + alpha * mass,
            (1 - labelling.epsilon) * right + labelling.epsilon / k,
        )

    return [
        Position(
            share(position, int(target[position])),
            (-terms.nll[position]).exp().item(),
            terms.alpha[position].item(),
            terms.entropy[position].item() / np.log(2),
            [share(position, token) for token in p_star[position].topk(top).indices.tolist()],
        )
        for position in range(len(target))
    ]


def label_table(positions: Sequence[Position], caption: str) -> Table:
    """A row a position."""
    rows = []
    for number, each in enumerate(positions, 1):
        # no-break spaces: a token, its number and the dot stay on one line
        top = "\u00a0· ".join(f"{share.token}\u00a0{share.p_star:.3f}" for share in each.top)
        values = (each.alpha, each.entropy, each.probability, each.right.p_star, each.right.label, each.right.uniform)
        rows.append((f"{number} {each.right.token}", *(f"{value:.3f}" for value in values), top))
    header = ("token", "α", "H", "p", "P*", "label", "LS", f"{len(positions[0].top)} most probable tokens of P*")
    return Table(caption, header, rows)
