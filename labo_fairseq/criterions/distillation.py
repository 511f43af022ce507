"""The criterion ``knowledge_distillation``."""

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

from fairseq.criterions import register_criterion
from torch import Tensor

from ..losses.blockwise import TokenTerms
from ..losses.distillation import check_alpha, distillation_terms
from .base import RegularizedConfig, RegularizedCriterion
from .refusals import one_line_errors
from .teacher import Teacher


@dataclass
class KnowledgeDistillationConfig(RegularizedConfig):
    teacher_path: Optional[str] = field(
        default=None,
        metadata={"help": "checkpoint of the teacher; several, separated by ':', are an ensemble"},
    )
    alpha: float = field(
        default=0.5,
        metadata={"help": "mass alpha in [0, 1] that the teacher's probabilities have in the label (Eq. 4)"},
    )


@register_criterion("knowledge_distillation", dataclass=KnowledgeDistillationConfig)
class KnowledgeDistillationCriterion(RegularizedCriterion):
    """Cross-entropy mixed with the divergence from a teacher (Eq. 3), whose probabilities are made batch by batch."""

    name = "knowledge_distillation"

    def __init__(self, cfg: KnowledgeDistillationConfig, task: Any) -> None:
        super().__init__(cfg, task)
        with one_line_errors(self.name):
            self.teacher = Teacher(cfg.teacher_path or "", task)

    @classmethod
    def check(cls, cfg: KnowledgeDistillationConfig) -> None:
        super().check(cfg)
        check_alpha(cfg.alpha)
        if not cfg.teacher_path:
            raise ValueError("teacher-path is missing: it must name a checkpoint, or several with ':' between them")

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        self.teacher.follow(model)
        return super().forward(model, sample, reduce=reduce)

    def compute_loss(
        self, model: Any, net_output: Any, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Tensor]:
        if not self.teacher.following:  # whoever calls this gave the model other inputs than the batch's
            raise SystemExit(
                f"{self.name}: this task calls the model with inputs of its own, as translation_moe does for every "
                "expert, which a teacher is not given: train it with another criterion"
            )
        return super().compute_loss(model, net_output, sample, reduce=reduce)

    def get_terms(self, logits: Tensor, target: Tensor, sample: Dict[str, Any]) -> TokenTerms:
        teacher = self.without_prefix(self.teacher.probabilities(sample))
        if len(teacher) != len(logits):  # the teacher has no dropout: one pass of it serves two of R-Drop's
            teacher = teacher.repeat(2, 1)
        return distillation_terms(logits, target, teacher, self.cfg.alpha, self.padding_idx)
