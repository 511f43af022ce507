"""Time and memory of LABO's losses, forward and backward, as ratios to fairseq's label smoothing.

  python benchmarks/loss.py                                     both CPU shapes in float32
  python benchmarks/loss.py --dtypes float32 bfloat16 float16
  python benchmarks/loss.py --device cuda --shapes 2048x10000 4096x40000 8192x131072

Four comparisons per shape (tokens x vocabulary). "logits": from given logits to their gradient. "baselines": the same
for the other methods of the paper, a teacher's probabilities being given. "rdrop": the same with R-Drop, half of the
tokens being the second pass of the others; "plain" is autograd through the operations of fairseq's criterion.
"projection": from hidden states and the weight of the output layer to the gradients of both, the logits being made on
the way.

time     median over the rounds of (time / time of fairseq's label smoothing in the same round); in a round every
         method runs once, so that whatever else the machine does meets all of them. "cpu" is the same of processor
         time, which other programs on the machine disturb less. On a GPU a method runs five times in a round, one after
         the other, so that the host is ahead as in a training.
memory   extra peak memory (above the inputs), over that of fairseq's label smoothing. On a CPU: the peak of the
         resident set, reset after the inputs are made, each method in a fresh process. On a GPU: the allocator's.
floor    the least that a gradient takes: logits read once and it written once, which is what copying the logits
         moves, and on a CPU two exponentials of every logit, in float32 and in cache, of p and of P*. Both are
         measured in every round (the rows "copy", "exponentials"); the column is the share of the method's time that
         they would take.

Absolute times are shown on a GPU alone. Liger-Kernel and cut-cross-entropy join in where they are installed.
"""

import argparse
import gc
import logging
import platform
import statistics
import time
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, one_hot

from labo_fairseq.files import atomic_write, write_json
from labo_fairseq.losses import (
    anti_focal_terms,
    confidence_penalty_terms,
    distillation_terms,
    focal_terms,
    label_smoothing_terms,
    labo_terms,
    linear_labo_terms,
    rdrop_terms,
)
from labo_fairseq.losses.blockwise import row_blocks
from labo_fairseq.losses.labo import LaboOptions
from labo_fairseq.losses.rdrop import linear_rdrop_terms

EPSILON, TAU, RHO, PAD, RDROP = 0.1, 1.25, 0.5, 1, 5.0
BASE = "fairseq LS"


class Case(NamedTuple):
    """What is measured on."""

    tokens: int
    vocabulary: int
    hidden: int
    dtype: str
    device: str


class Inputs(NamedTuple):
    logits: Tensor  # (N, K)
    hidden: Tensor  # (N, D)
    weight: Tensor  # (K, D)
    target: Tensor  # (N,)
    teacher: Tensor  # (N, K), probabilities


def fairseq_ls(logits: Tensor, target: Tensor) -> Tensor:
    log_p = utils.log_softmax(logits, dim=-1)
    return label_smoothed_nll_loss(log_p, target, EPSILON, ignore_index=PAD)[0]


def torch_ls(logits: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(logits, target, ignore_index=PAD, reduction="sum", label_smoothing=EPSILON)


def literal(logits: Tensor, target: Tensor) -> Tensor:
    """Eq. 14 with P* of Eq. 15, P̂ of Eq. 6 and α of Eq. 16 as they are written, in the dtype of the logits."""
    k = logits.size(-1)
    log_k = torch.tensor(float(k)).log().item()
    p = logits.softmax(-1)
    log_p = logits.log_softmax(-1)
    with torch.no_grad():
        p_star = p ** (1 / TAU) / (p ** (1 / TAU)).sum(-1, keepdim=True)
        alpha = 1 - RHO * -(p * log_p).sum(-1, keepdim=True) / log_k
        label = (1 - alpha) * one_hot(target, k) + alpha * p_star
        divergence = (p_star * (k * p_star).log()).sum(-1, keepdim=True)
    loss = -(label * log_p).sum(-1, keepdim=True) + alpha * TAU * divergence
    return loss.masked_fill(target.eq(PAD)[:, None], 0.0).sum()


def labo(logits: Tensor, target: Tensor) -> Tensor:
    return labo_terms(logits, target, TAU, rho=RHO, ignore_index=PAD).loss.sum()


@torch.no_grad()
def labo_value_only(logits: Tensor, target: Tensor) -> Tensor:
    return labo(logits, target)


def from_logits() -> Dict[str, Callable[[Inputs], Tensor]]:
    methods = {
        BASE: lambda x: fairseq_ls(x.logits, x.target),
        "torch LS": lambda x: torch_ls(x.logits, x.target),
        "Eq. 14 literally": lambda x: literal(x.logits, x.target),
        "LABO": lambda x: labo(x.logits, x.target),
        "LABO, evaluation": lambda x: labo_value_only(x.logits, x.target),
    }
    if torch.cuda.is_available() and find_spec("liger_kernel"):
        from liger_kernel.transformers import LigerCrossEntropyLoss

        liger = LigerCrossEntropyLoss(ignore_index=PAD, label_smoothing=EPSILON, reduction="sum")
        # it overwrites the logits with their gradient: the values of later rounds differ, the work does not
        methods["Liger LS"] = lambda x: liger(x.logits, x.target)
    return methods


def baselines() -> Dict[str, Callable[[Inputs], Tensor]]:
    return {
        BASE: lambda x: fairseq_ls(x.logits, x.target),
        "CP": lambda x: confidence_penalty_terms(x.logits, x.target, ignore_index=PAD).loss.sum(),
        "focal": lambda x: focal_terms(x.logits, x.target, ignore_index=PAD).loss.sum(),
        "anti-focal": lambda x: anti_focal_terms(x.logits, x.target, ignore_index=PAD).loss.sum(),
        "KD": lambda x: distillation_terms(x.logits, x.target, x.teacher, ignore_index=PAD).loss.sum(),
    }


def plain_rdrop(logits: Tensor, target: Tensor) -> Tensor:
    """fairseq's criterion label_smoothed_cross_entropy_with_rdrop, the target being that of both passes."""
    loss = fairseq_ls(logits, target)
    log_p, log_q = utils.log_softmax(logits, dim=-1).chunk(2)
    p, q = utils.softmax(logits, dim=-1).chunk(2)
    padding = target[: len(p)].eq(PAD)[:, None]
    one, other = (kl_div(*pair, reduction="none").masked_fill_(padding, 0.0).sum() for pair in ((log_p, q), (log_q, p)))
    return loss + RDROP * (one + other) / 2


def closed_rdrop(terms: Any, x: Inputs) -> Tensor:
    return rdrop_terms(terms, x.logits, one_pass(x.target), RDROP, PAD)[0].loss.sum()


def one_pass(target: Tensor) -> Tensor:
    return target[: len(target) // 2]


def both_passes(target: Tensor) -> Tensor:
    return one_pass(target).repeat(2)


def with_rdrop() -> Dict[str, Callable[[Inputs], Tensor]]:
    return {
        BASE: lambda x: fairseq_ls(x.logits, both_passes(x.target)),
        "LS, plain R-Drop": lambda x: plain_rdrop(x.logits, both_passes(x.target)),
        "LS, R-Drop": lambda x: closed_rdrop(
            label_smoothing_terms(x.logits, both_passes(x.target), EPSILON, over_others=True, ignore_index=PAD), x
        ),
        "LABO, R-Drop": lambda x: closed_rdrop(
            labo_terms(x.logits, both_passes(x.target), TAU, rho=RHO, ignore_index=PAD), x
        ),
    }


def from_hidden() -> Dict[str, Callable[[Inputs], Tensor]]:
    methods = {
        BASE: lambda x: fairseq_ls(x.hidden @ x.weight.t(), x.target),
        "LABO": lambda x: labo(x.hidden @ x.weight.t(), x.target),
        "LABO, fused": lambda x: linear_labo_terms(
            x.hidden, x.weight, x.target, TAU, rho=RHO, ignore_index=PAD
        ).loss.sum(),
        "LS, plain R-Drop": lambda x: plain_rdrop(x.hidden @ x.weight.t(), both_passes(x.target)),
        "LABO, R-Drop, fused": lambda x: linear_rdrop_terms(
            LaboOptions(TAU, rho=RHO), RDROP, x.hidden, x.weight, one_pass(x.target), PAD
        )[0].loss.sum(),
    }
    if torch.cuda.is_available() and find_spec("liger_kernel"):
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        liger = LigerFusedLinearCrossEntropyLoss(ignore_index=PAD, label_smoothing=EPSILON, reduction="sum")
        methods["Liger LS, fused"] = lambda x: liger(x.weight, x.hidden, x.target)
    if torch.cuda.is_available() and find_spec("cut_cross_entropy"):
        from cut_cross_entropy import linear_cross_entropy

        methods["cut CE"] = lambda x: linear_cross_entropy(
            x.hidden, x.weight, x.target, ignore_index=PAD, reduction="sum"
        )
    return methods


COMPARISONS = {"logits": from_logits, "baselines": baselines, "rdrop": with_rdrop, "projection": from_hidden}


def make_inputs(case: Case, comparison: str) -> Inputs:
    """Logits of a trained model's spread; one token in ten is padding. What the comparison does not use is empty."""
    generator = torch.Generator(case.device).manual_seed(0)
    given = comparison != "projection"

    def normal(rows: int, columns: int, scale: float) -> Tensor:
        kind = {"dtype": getattr(torch, case.dtype), "device": case.device}
        return torch.randn(rows, columns, generator=generator, **kind).mul_(scale).requires_grad_()

    n, k, d = case.tokens, case.vocabulary, case.hidden
    target = torch.randint(k, (n,), generator=generator, device=case.device)
    target[::10] = PAD
    return Inputs(
        normal(n if given else 0, k, 3.0),
        normal(0 if given else n, d, 1.0),
        normal(0 if given else k, d, 3.0 * d**-0.5),
        target,
        normal(n if comparison == "baselines" else 0, k, 3.0).detach().softmax(-1),
    )


def step(method: Callable[[Inputs], Tensor], inputs: Inputs) -> None:
    """Forward and, where there is one, backward; the gradients are left for the caller to drop."""
    loss = method(inputs)
    if loss.requires_grad:
        loss.backward()


def drop_gradients(inputs: Inputs) -> None:
    for tensor in inputs:
        tensor.grad = None


def measure_times(case: Case, comparison: str, rounds: int) -> Dict[str, List[Tuple[float, float]]]:
    """Seconds of every round, by method: (on the clock, of the processor)."""
    inputs = make_inputs(case, comparison)
    methods: Dict[str, Callable[[Inputs], None]] = {
        name: (lambda x, method=method: step(method, x)) for name, method in COMPARISONS[comparison]().items()
    }
    if comparison != "projection":
        copy = torch.empty_like(inputs.logits, requires_grad=False)
        methods["copy"] = lambda x: copy.copy_(x.logits.detach())
        if case.device == "cpu":
            methods["exponentials"] = lambda x: two_exponentials(x.logits.detach())
    for name, method in list(methods.items()):  # warms up, too
        try:
            method(inputs)
        except (torch.cuda.OutOfMemoryError, AssertionError) as error:  # cut CE asserts that its dtype is a narrow one
            if name == BASE or name.startswith("LABO"):
                raise
            print(f"{name} is left out, {case.tokens} x {case.vocabulary}, {case.dtype}: {error}")
            del methods[name]
        drop_gradients(inputs)
    times: Dict[str, List[Tuple[float, float]]] = {name: [] for name in methods}
    repetitions = 5 if case.device == "cuda" else 1
    for _ in range(rounds):
        for name, method in methods.items():
            synchronize(case)
            start, start_cpu = time.perf_counter(), time.process_time()
            for _ in range(repetitions):
                method(inputs)
                drop_gradients(inputs)
            synchronize(case)
            clock, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            times[name].append((clock / repetitions, cpu / repetitions))
    return times


def two_exponentials(logits: Tensor) -> None:
    """Of as many numbers as there are logits, on one block of them, which stays in cache."""
    blocks = list(row_blocks(logits))
    block = logits[blocks[0]].float()
    power = torch.empty_like(block)
    for _ in range(2 * len(blocks)):
        torch.exp(block, out=power)


def synchronize(case: Case) -> None:
    if case.device == "cuda":
        torch.cuda.synchronize()


def measure_memory(case: Case, comparison: str, names: List[str]) -> Dict[str, int]:
    """Bytes at the peak above the inputs, by method."""
    if case.device == "cuda":
        inputs = make_inputs(case, comparison)
        return {name: allocated_by(COMPARISONS[comparison]()[name], inputs) for name in names}
    peaks = {}
    for name in names:
        # forked from a process that has imported what they all import, and done nothing else
        with get_context("forkserver").Pool(1) as pool:
            peaks[name] = pool.apply(resident_of, (case, comparison, name, torch.get_num_threads()))
    return peaks


def allocated_by(method: Callable[[Inputs], Tensor], inputs: Inputs) -> int:
    drop_gradients(inputs)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(method, inputs)
    return torch.cuda.max_memory_allocated() - before


def resident_of(case: Case, comparison: str, name: str, threads: int) -> int:
    """Call it in a fresh process."""
    torch.set_num_threads(threads)
    method = COMPARISONS[comparison]()[name]
    step(method, make_inputs(case._replace(tokens=8, vocabulary=64), comparison))
    inputs = make_inputs(case, comparison)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step(method, inputs)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """Bytes, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def compare(case: Case, comparison: str, rounds: int) -> List[Dict[str, Any]]:
    """One row per method."""
    times = measure_times(case, comparison, rounds)
    rows = []
    peaks = measure_memory(case, comparison, [name for name in COMPARISONS[comparison]() if name in times])
    floor = [name for name in ("copy", "exponentials") if name in times]
    least = [sum(clock for clock, _ in parts) for parts in zip(*(times[name] for name in floor))]
    for name in (*peaks, *floor):
        clock, cpu = (
            statistics.median(mine[of] / base[of] for mine, base in zip(times[name], times[BASE])) for of in (0, 1)
        )
        row = {**case._asdict(), "comparison": comparison, "method": name, "time": clock, "cpu": cpu}
        if name in peaks:
            row.update(memory=peaks[name] / peaks[BASE], peak_bytes=peaks[name])
        if floor:
            row["floor"] = statistics.median(one / mine[0] for one, mine in zip(least, times[name]))
        if name == "copy":
            row["bytes"] = (
                2 * case.tokens * case.vocabulary * torch.empty(0, dtype=getattr(torch, case.dtype)).element_size()
            )
        if case.device == "cuda" or name in floor:
            row["milliseconds"] = 1e3 * statistics.median(seconds for seconds, _ in times[name])
        rows.append(row)
    return rows


def table(rows: List[Dict[str, Any]]) -> str:
    columns = ["time", "cpu", "memory", "floor", "milliseconds"]
    columns = [column for column in columns if column in rows[0]]
    lines = [f"{'':<20}" + "".join(f"{column:>14}" for column in columns)]
    for row in rows:
        cells = (f"{row[column]:>14.2f}" if column in row else f"{'':>14}" for column in columns)
        lines.append(f"{row['method']:<20}" + "".join(cells))
    return "\n".join(lines)


def plot(rows: List[Dict[str, Any]], figure_path: Path) -> bool:
    """Bars of time and memory; False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    groups: Dict[str, List[Dict[str, Any]]] = {}
    for row in (row for row in rows if "memory" in row):
        groups.setdefault("{comparison}\n{tokens} x {vocabulary}\n{dtype}".format(**row), []).append(row)
    figure = Figure(figsize=(11, 1 + 1.7 * len(groups)), constrained_layout=True)
    FigureCanvasAgg(figure)
    for (title, group), axes in zip(groups.items(), figure.subplots(len(groups), 2, squeeze=False)):
        for ax, quantity in zip(axes, ("time", "memory")):
            names = [row["method"] for row in group]
            bars = ax.barh(
                names, [row[quantity] for row in group], color=["C7" if name == BASE else "C0" for name in names]
            )
            for bar, row in zip(bars, group):
                ax.text(
                    bar.get_width(),
                    bar.get_y() + bar.get_height() / 2,
                    f" {row[quantity]:.2f}",
                    va="center",
                    fontsize=8,
                )
            ax.axvline(1, color="grey", linewidth=0.8)
            ax.invert_yaxis()
            ax.margins(x=0.12)
            ax.set_title(f"{quantity} / {BASE}", fontsize=9)
        axes[0].set_ylabel(title, fontsize=8)
    with atomic_write(figure_path) as part:
        figure.savefig(part, dpi=110, format="png")
    return True


def shape(text: str) -> Tuple[int, int]:
    try:
        tokens, vocabulary = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not TOKENSxVOCABULARY, such as 2048x10000") from None
    return tokens, vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", nargs="+", type=shape, default=[(2048, 10000), (4096, 40000)], metavar="NxK")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--comparisons", nargs="+", default=list(COMPARISONS), choices=list(COMPARISONS))
    parser.add_argument("--hidden", type=int, default=512, help="width of the hidden states (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on a CPU")
    parser.add_argument("--out", type=Path, default=Path("results/loss/loss"), help="for OUT.json and OUT.png")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)  # fairseq turns on everybody's
    torch.set_num_threads(arguments.threads)
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{arguments.threads} threads"
    setting = {"torch": torch.__version__, "python": platform.python_version(), "machine": machine}
    rows: List[Dict[str, Any]] = []
    for dtype in arguments.dtypes:
        for tokens, vocabulary in arguments.shapes:
            case = Case(tokens, vocabulary, arguments.hidden, dtype, arguments.device)
            for comparison in arguments.comparisons:
                found = compare(case, comparison, arguments.rounds)
                print(f"\n{comparison}, {tokens} x {vocabulary}, {dtype}, {case.device}, / {BASE}\n{table(found)}")
                rows.extend(found)
                # a program that is stopped leaves what it has measured
                write_json(arguments.out.with_suffix(".json"), {**setting, "rounds": arguments.rounds, "rows": rows})
    if not plot(rows, arguments.out.with_suffix(".png")):
        print("no figure: matplotlib is not installed")


if __name__ == "__main__":
    main()
