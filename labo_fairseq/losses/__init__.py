"""Losses in pure PyTorch: nothing in here imports fairseq."""

from .confidence_penalty import confidence_penalty_terms
from .distillation import distillation_terms
from .focal import anti_focal_terms, focal_terms
from .labo import LaboLoss, LaboTerms, labo_terms
from .linear import LinearLaboLoss, linear_labo_terms
from .rows import TokenTerms

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
