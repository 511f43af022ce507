"""One number that a system got."""

from dataclasses import asdict, dataclass
from typing import Any, Dict


@dataclass(frozen=True)
class Score:
    """A corpus score, in percent, and the signature that makes it comparable."""

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f}  ({self.signature})"

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)
