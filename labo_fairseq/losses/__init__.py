"""Losses in pure PyTorch: nothing in here imports fairseq."""

from .blockwise import TokenTerms
from .confidence_penalty import confidence_penalty_terms
from .distillation import distillation_terms
from .focal import anti_focal_terms, focal_terms
from .fused_linear import LinearLaboLoss, linear_labo_terms
from .labo import LaboLoss, LaboTerms, labo_terms

__all__ = [
    "LaboLoss",
    "LaboTerms",
    "LinearLaboLoss",
    "TokenTerms",
    "anti_focal_terms",
    "confidence_penalty_terms",
    "distillation_terms",
    "focal_terms",
    "labo_terms",
    "linear_labo_terms",
]
