"""What commands leave behind, and whether two of them left the same."""

import hashlib
import json
from pathlib import Path
from typing import Dict, List

from labo_fairseq.checkpoints import load_checkpoint


def contents(folder: Path) -> Dict[str, str]:
    """Every file below ``folder``, and a digest of all in it that does not depend on the time it took."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    if path.suffix == ".log" or path.name == "training.json":  # times, and seconds that the training took
        return ""
    digest = hashlib.sha256()
    if path.suffix == ".pt":
        checkpoint = load_checkpoint(path)
        for name, tensor in checkpoint["model"].items():
            # a buffer of uninitialized memory, there for its dtype
            if not name.endswith("_float_tensor"):
                digest.update(name.encode() + tensor.numpy().tobytes())
        digest.update(str(checkpoint["optimizer_history"][-1]["num_updates"]).encode())
    elif path.name == "result.json":
        result = json.loads(path.read_text(encoding="utf-8"))
        digest.update(json.dumps({**result, "training": None}).encode())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def compared(traced: Dict[str, str], expected: Dict[str, str]) -> List[str]:
    """In words, every difference."""
    return [
        f"{name} is {'new' if name not in expected else 'missing' if name not in traced else 'another'}"
        for name in sorted({*traced, *expected})
        if traced.get(name) != expected.get(name)
    ]
