"""What the posterior does to a model's NLL and calibration, by its floor, and how long it takes.

  python benchmarks/posterior.py --train train.en.gz --valid val.en.gz      both; lines of text
  python benchmarks/posterior.py                                            the time alone

A small neural language model (the three words before, width 64, vocabulary 5,000) is trained with each loss, and its
predictions on the validation lines are scored: NLL in bits and expected calibration error (15 bins) of p and of the
posterior with several floors ε, each the share of p in it. "impossible" counts validation words that get probability 0
without a floor.

time   median over the rounds of (processor time / that of two ``softmax`` of the same logits in the same round).
"""

import argparse
import gzip
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from labo_fairseq.losses import (
    anti_focal_log_posterior,
    anti_focal_terms,
    confidence_penalty_log_posterior,
    confidence_penalty_terms,
    focal_log_posterior,
    focal_terms,
    label_smoothing_log_posterior,
    labo_log_posterior,
    labo_terms,
)
from labo_fairseq.losses.posterior import FLOOR

FLOORS = (1e-6, 1e-4, 1e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2)
CONTEXT, WIDTH = 3, 64

#: name → (loss of each token, log posterior)
METHODS: Dict[str, Tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "LABO": (lambda z, t: labo_terms(z, t).loss, labo_log_posterior),
    "LABO, τ 1.15": (lambda z, t: labo_terms(z, t, 1.15).loss, lambda z: labo_log_posterior(z, 1.15)),
    "LABO, α 0.1": (lambda z, t: labo_terms(z, t, alpha=0.1).loss, lambda z: labo_log_posterior(z, alpha=0.1)),
    "LS, ε 0.1": (
        lambda z, t: cross_entropy(z, t, reduction="none", label_smoothing=0.1),
        lambda z: label_smoothing_log_posterior(z, 0.1),
    ),
    "CP, β 0.1": (lambda z, t: confidence_penalty_terms(z, t).loss, confidence_penalty_log_posterior),
    "focal, γ 2": (lambda z, t: focal_terms(z, t).loss, focal_log_posterior),
    "anti-focal": (lambda z, t: anti_focal_terms(z, t).loss, anti_focal_log_posterior),
}


class Model(nn.Sequential):
    """The words before → logits of the next."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__(
            nn.Embedding(vocabulary, WIDTH),
            nn.Flatten(),
            nn.Linear(CONTEXT * WIDTH, 2 * WIDTH),
            nn.ReLU(),
            nn.Linear(2 * WIDTH, vocabulary),
        )


def read(path: Path) -> List[List[str]]:
    """Words of each line."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    return [line.lower().split() for line in text.split("\n")[:-1]]


def examples(lines: List[List[str]], numbers: Dict[str, int]) -> Tuple[Tensor, Tensor]:
    """Contexts (N, 3) and the words that follow, (N,); 0 stands before a line and after it, 1 for a rare word."""
    before, following = [], []
    for line in lines:
        ids = [0] * CONTEXT + [numbers.get(word, 1) for word in line] + [0]
        for end in range(CONTEXT, len(ids)):
            before.append(ids[end - CONTEXT : end])
            following.append(ids[end])
    return torch.tensor(before), torch.tensor(following)


def train(loss: Callable[[Tensor, Tensor], Tensor], data: Tuple[Tensor, Tensor], vocabulary: int, steps: int) -> Model:
    """A model after ``steps`` updates."""
    torch.manual_seed(1)
    model = Model(vocabulary)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    before, following = data
    for _ in range(steps):
        chosen = torch.randint(len(following), (256,))
        optimizer.zero_grad()
        loss(model(before[chosen]), following[chosen]).mean().backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def score(p: Tensor, target: Tensor) -> Tuple[float, float]:
    """NLL in bits and expected calibration error in percent of probabilities (N, K)."""
    nll = -p.gather(-1, target[:, None]).log2().mean().item()
    confidence, best = p.max(dim=-1)
    gap = best.eq(target).double() - confidence
    bins = (confidence * 15).long().clamp(max=14)
    return nll, 100 * sum(gap[bins == b].sum().abs().item() for b in range(15)) / len(target)


def measure_floors(train_path: Path, valid_path: Path, steps: int, methods: List[str]) -> None:
    lines = read(train_path)
    counts = Counter(word for line in lines for word in line)
    words = ["</s>", "<unk>", *(word for word, _ in counts.most_common(4998))]
    numbers = {word: number for number, word in enumerate(words)}
    data, (before, target) = examples(lines, numbers), examples(read(valid_path), numbers)
    print(f"{len(data[1])} words to train on, {len(target)} to validate, vocabulary {len(words)}, {steps} updates")
    print(f"{'':<14}{'p':>14}" + "".join(f"{f'ε {floor:g}':>14}" for floor in FLOORS) + f"{'impossible':>12}")
    for name in methods:
        loss, log_posterior = METHODS[name]
        model = train(loss, data, len(words), steps)
        with torch.no_grad():
            logits = model(before).double()
            p = logits.softmax(-1)
            # the floor that is built in is taken out again
            y = ((log_posterior(logits).exp() - FLOOR * p) / (1 - FLOOR)).clamp(min=0)
        impossible = y.gather(-1, target[:, None]).lt(1e-12).sum().item()
        cells = [score(p, target), *(score((1 - floor) * y + floor * p, target) for floor in FLOORS)]
        print(
            f"{name:<14}" + "".join(f"{nll:>8.3f}{error:>5.1f}%" for nll, error in cells) + f"{impossible:>12}",
            flush=True,
        )


def measure_times(tokens: int, vocabulary: int, dtype: torch.dtype, rounds: int) -> None:
    logits = (3 * torch.randn(tokens, vocabulary)).to(dtype)
    functions: Dict[str, Callable[[Tensor], object]] = {name: posterior for name, (_, posterior) in METHODS.items()}
    functions["two softmax"] = lambda z: (z.softmax(-1).amax(), z.softmax(-1).amax())
    times: Dict[str, List[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.process_time()
            with torch.no_grad():
                function(logits)
            if number:
                times[name].append(time.process_time() - start)
    print(f"\n{tokens} x {vocabulary}, {dtype}, {torch.get_num_threads()} threads, / two softmax")
    for name in METHODS:
        print(f"{name:<14}{statistics.median(m / b for m, b in zip(times[name], times['two softmax'])):>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, help="text to train on, plain or .gz")
    parser.add_argument("--valid", type=Path, help="text to validate on")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=3000, help="updates of each model (default: %(default)s)")
    parser.add_argument("--shape", type=int, nargs=2, default=(2048, 10000), metavar=("N", "K"))
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.train and arguments.valid:
        measure_floors(arguments.train, arguments.valid, arguments.steps, arguments.methods)
    for dtype in (torch.float32, torch.bfloat16):
        measure_times(*arguments.shape, dtype, arguments.rounds)


if __name__ == "__main__":
    main()
