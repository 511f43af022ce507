"""Losses in pure PyTorch: nothing in here imports fairseq."""

from .labo import LaboLoss, LaboTerms, labo_terms
from .linear import LinearLaboLoss, linear_labo_terms

__all__ = ["LaboLoss", "LaboTerms", "LinearLaboLoss", "labo_terms", "linear_labo_terms"]
