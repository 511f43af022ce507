"""What a corpus is made of: the archives that ``configs/corpora/<corpus>.yaml`` lists."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional

import yaml

from ..errors import UserError
from ..resources import configs


@dataclass(frozen=True)
class Archive:
    """A file that is published somewhere; what is not known about it is ``None``."""

    name: str  # corpus/file: where it lies in the cache, and in the user's own folder
    urls: List[str] = field(default_factory=list)  # the same bytes at each, in order of preference
    size: Optional[int] = None  # bytes
    sha256: Optional[str] = None
    md5: Optional[str] = None  # where the publisher gives no other
    inside: Optional["Archive"] = None  # a tar archive that holds this file
    member: Optional[str] = None  # its name in there


def manifest(corpus: str) -> Path:
    """The file that describes ``corpus``."""
    return configs() / "corpora" / f"{corpus}.yaml"


def load_manifest(corpus: str, archive_dir: Optional[Path] = None) -> Dict[str, Archive]:
    """File name → archive; a manifest in ``archive_dir`` takes the place of the package's own.

    Raises:
        UserError: the file is not a manifest.
    """
    own = archive_dir / f"{corpus}.yaml" if archive_dir else None
    path = own if own and own.is_file() else manifest(corpus)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["archives"]
        archives: Dict[str, Archive] = {}
        # an archive that others lie in may stand below them
        for name in sorted(entries, key=lambda name: "inside" in entries[name]):
            values = dict(entries[name])
            if "inside" in values:
                values["inside"] = archives[values["inside"]]
            archives[name] = Archive(f"{corpus}/{name}", **values)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no list of archives ({reason}): compare it with {manifest('iwslt14')}") from None
    return archives
