"""Losses in pure PyTorch: nothing in here imports fairseq."""

from .blockwise import TokenTerms
from .confidence_penalty import confidence_penalty_log_posterior, confidence_penalty_terms
from .distillation import distillation_log_posterior, distillation_terms
from .focal import anti_focal_log_posterior, anti_focal_terms, focal_log_posterior, focal_terms
from .fused_linear import linear_labo_terms
from .label_smoothing import cross_entropy_log_posterior, label_smoothing_log_posterior, label_smoothing_terms
from .labo import LaboOptions, LaboTerms, labo_log_posterior, labo_terms
from .modules import LaboLoss, LinearCrossEntropyLoss, LinearLaboLoss
from .rdrop import rdrop_divergence, rdrop_terms

__all__ = [
    "LaboLoss",
    "LaboOptions",
    "LaboTerms",
    "LinearCrossEntropyLoss",
    "LinearLaboLoss",
    "TokenTerms",
    "anti_focal_log_posterior",
    "anti_focal_terms",
    "confidence_penalty_log_posterior",
    "confidence_penalty_terms",
    "cross_entropy_log_posterior",
    "distillation_log_posterior",
    "distillation_terms",
    "focal_log_posterior",
    "focal_terms",
    "label_smoothing_log_posterior",
    "label_smoothing_terms",
    "labo_log_posterior",
    "labo_terms",
    "linear_labo_terms",
    "rdrop_divergence",
    "rdrop_terms",
]
