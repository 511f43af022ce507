"""Losses in pure PyTorch: nothing in here imports fairseq."""

from .labo import LaboLoss, LaboTerms, labo_terms

__all__ = ["LaboLoss", "LaboTerms", "labo_terms"]
