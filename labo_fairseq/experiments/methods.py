"""The methods under comparison, as options of ``fairseq-train``."""

from typing import Dict, Tuple

#: name → criterion options that do not depend on the length of the training
METHODS: Dict[str, Tuple[str, ...]] = {
    "labo": ("--criterion", "labo", "--label-smoothing", "0.1", "--tau", "1.25"),
    "ls": ("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"),
}

#: those that begin with uniform label smoothing and take --smoothing-warmup-steps
WITH_WARMUP = ("labo",)


def method_options(method: str, smoothing_warmup_steps: int) -> Tuple[str, ...]:
    """Options of ``method``, with the warm-up where it has one."""
    warmup = ("--smoothing-warmup-steps", str(smoothing_warmup_steps)) if method in WITH_WARMUP else ()
    return METHODS[method] + warmup
