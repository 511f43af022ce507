"""Declarations of corpora: what a file such as ``configs/corpora/multi30k.yaml``, or one of the user's own, says.

docs/your-corpus.md describes the keys. Nothing else in the package knows a corpus by its name.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from ...errors import UserError
from ...files import configs, digest_of, shipped_corpora
from ...yaml_files import check_keys, check_list, load_yaml
from ..archives import Archive, parse_archives
from ..languages import parse_direction
from ..types import DEFAULT_SCORING, DeclaredScoring, Pair

MULTILINGUAL = "multilingual"
#: the two splits that every training needs; all others are test sets
TRAINING_SPLITS = ("train", "valid")

_NAME = re.compile(r"\w[\w.-]*")  # of a corpus or a split, and so of folders and files
_TOP = {"name", "like", "title", "archives", "pairs", "multilingual", "splits", "text", "cut"}
_SECTIONS = {"preprocessing", "training", "scoring"}
_FILES = {"file", "member", "reader", "columns", "first"}


@dataclass(frozen=True)
class Part:
    """One text of a split: a file for each language, or one file with both."""

    #: an archive of the declaration, or a path; may hold {language}, {other}, {source}, {target} and {role}; or one for
    #: the source and one for the target
    file: Tuple[str, ...]
    member: Optional[str] = None  # of a tar or zip archive; as ``file``
    reader: Optional[str] = None  # see :mod:`.readers`; None: by the ending of the file
    columns: Tuple[str, ...] = ()  # languages of the columns of a file with tabs
    first: Optional[int] = None  # so many pairs and no more


@dataclass(frozen=True)
class Cut:
    """How validation and test set are cut out of one text: whole groups of pairs, drawn at random."""

    by: str  # a language, whose equal sentences are a group; or what the reader calls its groups
    valid: Union[int, Fraction]  # groups, or the share of them
    test: Union[int, Fraction]
    seed: int = 1


@dataclass(frozen=True)
class CleaningRule:
    """The rule of Moses' ``clean-corpus-n.perl`` for a training pair."""

    ratio: float  # of the two lengths, at most
    minimum: int  # length of either side
    maximum: int
    unit: str = "tokens"  # or "subwords": what a length counts


@dataclass(frozen=True)
class Preprocessing:
    """What is made of raw text; None: chosen by the languages or the size of the corpus."""

    tokenizer: Optional[str] = None  # "moses", followed by BPE, or "sentencepiece" on raw text
    subwords: Optional[int] = None  # BPE merge operations, or SentencePiece units
    lowercase: bool = False
    validation_every: Optional[int] = None  # every n-th training pair is for validation instead
    escape: bool = False  # Moses' tokens of & | < > ' " [ ], as in fairseq's scripts
    dash_splits: bool = True  # "a-b" → "a @-@ b"
    normalize: bool = False  # punctuation, and no control characters
    clean: Optional[CleaningRule] = None
    maximum: Optional[int] = None  # SentencePiece units on either side of a training or validation pair


@dataclass(frozen=True)
class Training:
    """How a model is trained: files of Hydra's groups, values on top of them, what is scored, what it costs."""

    groups: Dict[str, str] = field(default_factory=dict)  # group → file
    settings: Dict[str, Any] = field(default_factory=dict)  # dotted key → value
    checkpoint: str = "best"  # or "last": which of a training is scored
    hours: Dict[str, float] = field(default_factory=dict)  # "cpu" (one core) and "gpu" → hours of one run


@dataclass(frozen=True)
class Declaration:
    """A corpus as its file declares it."""

    name: str
    title: str
    folder: Path  # of its file, which paths are relative to
    archives: Dict[str, Archive]
    texts: Dict[Pair, Dict[str, Tuple[Part, ...]]]  # pair → split → where its text is; "text" where it is to be cut
    pairs: Tuple[Pair, ...]  # each is prepared once and serves both directions
    multilingual: Tuple[Pair, ...]  # directions of one model
    cut: Optional[Cut] = None
    preprocessing: Preprocessing = Preprocessing()
    training: Optional[Training] = None  # None: chosen by the size of the corpus
    scoring: DeclaredScoring = DEFAULT_SCORING
    shipped: bool = False
    replaced: Optional[str] = None  # a digest of the user's own list of archives, where it lists other files

    @property
    def directions(self) -> Dict[str, Tuple[Pair, ...]]:
        """Name of a direction that a model can be trained in → the directions of that model."""
        both = [direction for pair in self.pairs for direction in (pair, pair[::-1])]
        named: Dict[str, Tuple[Pair, ...]] = {"-".join(direction): (direction,) for direction in both}
        if self.multilingual:
            named[MULTILINGUAL] = self.multilingual
        return named

    def find(self, direction: str) -> Tuple[str, Tuple[Pair, ...]]:
        """Name and directions of the model that a user calls ``direction``, such as ``"pt-br-en"``.

        Raises:
            UserError: the corpus has none.
        """
        name = str(direction)
        if name not in self.directions and "-" in name:
            name = "-".join(parse_direction(name))
        if name not in self.directions:
            raise UserError(f"{self.name} has no direction {direction!r}: choose from {', '.join(self.directions)}")
        return name, self.directions[name]

    def path_of(self, file: str) -> Optional[Path]:
        """A file of the user's own; None where it is an archive of the declaration.

        Raises:
            UserError: there is no such file.
        """
        if file in self.archives:
            return None
        if self.shipped:
            raise UserError(f"the declaration of {self.name} does not list {file}")
        path = self.folder / file
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        return path

    def identity(self, directions: Tuple[Pair, ...]) -> str:
        """What tells the text of some directions from another: the corpus' name, and of the user's own a digest.

        Archives of one's own in place of the published ones are told by what is listed about them.

        Raises:
            UserError: a file is not there.
        """
        if self.shipped:
            return self.name if self.replaced is None else f"{self.name}, archives {self.replaced}"
        splits = [
            [split, *(self._told(part, pair) for part in parts)]
            for pair in (pair if pair in self.texts else pair[::-1] for pair in directions)
            for split, parts in self.texts[pair].items()
        ]
        cut = self.cut and [str(value) for value in vars(self.cut).values()]
        return f"{self.name}, files {_short_digest([splits, cut])}"

    def _told(self, part: Part, pair: Pair) -> List[Any]:
        """What tells a text from another: what its files hold, and what is taken out of them."""
        contents = [self._content_of(file) for file in files_of(part, pair)]
        return [contents, part.member, part.reader, part.columns, part.first]

    def _content_of(self, file: str) -> str:
        """A digest of a file, or of what an archive must hold."""
        path = self.path_of(file)
        if path is not None:
            return digest_of(path)
        archive = self.archives[file]
        return archive.sha256 or archive.md5 or archive.name


def load_declaration(name: str, archive_dir: Optional[Path] = None) -> Declaration:
    """The corpus of that name, or that of the YAML file ``name``.

    A ``NAME.yaml`` in ``archive_dir`` takes the place of the archives that the package's own file lists.

    Raises:
        UserError: there is none, or the file declares no corpus: the message says what and where.
    """
    if name in shipped_corpora():
        path = configs() / "corpora" / f"{name}.yaml"
        shipped = True
    elif Path(name).suffix in (".yaml", ".yml"):
        path, shipped = Path(name), False
    else:
        raise UserError(
            f"unknown corpus {str(name)!r}: choose from {', '.join(shipped_corpora())}, name a YAML file, or say custom"
        )
    content = load_yaml(path)
    try:
        declaration = parse_declaration(content, path.stem, path.parent, shipped)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    own = archive_dir / f"{name}.yaml" if archive_dir and shipped else None
    if own is None or not own.is_file():
        return declaration
    try:
        archives = parse_archives(name, check_keys(load_yaml(own), _TOP | _SECTIONS, {"archives"})["archives"])
    except UserError as error:
        raise UserError(f"{own} lists no archives ({error}): compare it with {path}") from None
    listed, published = _listed(archives), _listed(declaration.archives)
    # the published files from another place are the same text
    if all(published.get(file) == known for file, known in listed.items()):
        return replace(declaration, archives=archives)
    return replace(declaration, archives=archives, replaced=_short_digest(sorted(listed.items())))


def _listed(archives: Dict[str, Archive]) -> Dict[str, Any]:
    """File → what is known about its content: a checksum, or at least its size."""
    return {file: archive.sha256 or archive.md5 or archive.size for file, archive in archives.items()}


def _short_digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def parse_declaration(content: Any, name: str, folder: Path, shipped: bool = False) -> Declaration:
    """The corpus that a mapping declares, whose paths are relative to ``folder``.

    Raises:
        UserError: it declares none.
    """
    content = _with_inherited(content)
    name = content.get("name", name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"the name {name!r} must be letters, digits, '_', '-' and '.', the first none of '-' and '.'")
    declared = content.get("archives", {})
    # the archives of another corpus, so that they are fetched once
    archives = _shipped_archives(declared) if isinstance(declared, str) else parse_archives(name, declared)
    declared_pairs = content.get("pairs", {})
    pairs = tuple(
        map(_pair, declared_pairs if isinstance(declared_pairs, dict) else check_list(declared_pairs, "pairs"))
    )
    multilingual = tuple(
        map(_pair, check_list(content["multilingual"], MULTILINGUAL) if MULTILINGUAL in content else ())
    )
    if len(multilingual) == 1:
        raise UserError("multilingual names one direction: write it under pairs")
    if not pairs and not multilingual:
        raise UserError("neither pairs, such as [de-en], nor multilingual, such as [de-en, fr-en]")
    if "cut" in content and "splits" in content:
        raise UserError("splits, and text to be cut: give one of them")
    cut = _parse_cut(content["cut"]) if "cut" in content else None
    if (cut is None) == ("text" in content):
        raise UserError("text is to be cut: give text and cut together, or splits")
    common = {"text": content["text"]} if cut else content.get("splits")
    texts = {}
    for pair in dict.fromkeys((*pairs, *multilingual)):
        splits = common if common is not None else _splits_of(declared_pairs, pair)
        texts[pair] = {split: _parse_parts(part) for split, part in _check_names(splits).items()}
    preprocessing = _parse_preprocessing(content.get("preprocessing", {}))
    for pair, splits in texts.items():
        _check_splits(splits, pair, cut, preprocessing)
    scoring = check_keys(content.get("scoring", {}), {"lowercase", "tokenize", "split_compounds"})
    return Declaration(
        name=name,
        title=str(content.get("title", name)),
        folder=folder,
        archives=archives,
        texts=texts,
        pairs=pairs,
        multilingual=multilingual,
        cut=cut,
        preprocessing=preprocessing,
        training=_parse_training(content["training"]) if "training" in content else None,
        scoring=DeclaredScoring(
            lowercase=bool(scoring.get("lowercase", preprocessing.lowercase)),
            split_compounds=bool(scoring.get("split_compounds", False)),
            tokenize=scoring.get("tokenize"),
        ),
        shipped=shipped,
    )


def files_of(part: Part, pair: Pair) -> Tuple[str, ...]:
    """The file for each language of ``pair``, or one for both."""
    return tuple(dict.fromkeys(file_of(part, pair, side) for side in range(2)))


def file_of(part: Part, pair: Pair, side: int) -> str:
    """The file for one language of ``pair``."""
    return fill(part.file[side if len(part.file) == 2 else 0], pair, side)


def fill(template: str, pair: Pair, side: int) -> str:
    """``template`` for one side of a pair.

    Raises:
        UserError: it has a placeholder that is not known.
    """
    source, target = pair
    try:
        return template.format(
            language=pair[side], other=pair[1 - side], source=source, target=target, role=("src", "ref")[side]
        )
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{template!r} has an unknown placeholder ({error}): there are language, other, source, target and role"
        ) from None


def _with_inherited(content: Any) -> Dict[str, Any]:
    """What a mapping declares, on top of all but name and title of the shipped corpus that it is ``like``."""
    check_keys(content, _TOP | _SECTIONS)
    if "like" not in content:
        return content
    other = content["like"]
    if other not in shipped_corpora():
        raise UserError(f"like {other!r}: choose from {', '.join(shipped_corpora())}")
    theirs = _with_inherited(load_yaml(configs() / "corpora" / f"{other}.yaml"))
    inherited = {key: value for key, value in theirs.items() if key not in ("name", "title")}
    return _merged(inherited, {key: value for key, value in content.items() if key != "like"})


def _merged(one: Dict[str, Any], other: Dict[str, Any]) -> Dict[str, Any]:
    """Both; what is in ``other`` takes the place of what is in ``one``, mappings key by key."""
    both = {
        key: _merged(one[key], value)
        for key, value in other.items()
        if isinstance(one.get(key), dict) and isinstance(value, dict)
    }
    return {**one, **other, **both}


def _shipped_archives(name: str) -> Dict[str, Archive]:
    return load_declaration(name).archives


def _pair(text: Any) -> Pair:
    return parse_direction(str(text))


def _splits_of(pairs: Any, pair: Pair) -> Any:
    declared = {_pair(name): splits for name, splits in pairs.items()} if isinstance(pairs, dict) else {}
    if pair not in declared:
        raise UserError(f"no splits: where does the text of {'-'.join(pair)} lie?")
    return declared[pair]


def _check_names(splits: Any) -> Dict[str, Any]:
    """``splits``, which must be a mapping whose keys can be the names of files."""
    for name in check_keys(splits, splits if isinstance(splits, dict) else ()):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(
                f"the test set {name!r} must have a name of letters, digits, '_', '-' and '.', the first none of '-' "
                "and '.'; write a number in quotation marks"
            )
    return splits


def _check_splits(splits: Dict[str, Any], pair: Pair, cut: Optional[Cut], preprocessing: Preprocessing) -> None:
    if cut is not None:
        return
    needed = ("train",) if preprocessing.validation_every else TRAINING_SPLITS
    missing = [split for split in needed if split not in splits]
    if missing or len(splits) == len(set(splits) & set(TRAINING_SPLITS)):
        raise UserError(f"{'-'.join(pair)} has no {missing[0] if missing else 'test'} set")
    if preprocessing.validation_every and "valid" in splits:
        raise UserError("a valid set and validation_every exclude each other")


def _parse_parts(value: Any) -> Tuple[Part, ...]:
    parts: List[Part] = []
    for entry in value if isinstance(value, list) else [value]:
        # a bare name is a file
        entry = {"file": entry} if isinstance(entry, str) else check_keys(entry, _FILES, {"file"})
        files = entry["file"] if isinstance(entry["file"], list) else [entry["file"]]
        if len(files) not in (1, 2):
            raise UserError(f"file names {len(files)} files: one with both languages, or the source's and the target's")
        first = entry.get("first")
        if first is not None and (type(first) is not int or first < 1):
            raise UserError(f"first is {first!r}: it must be an integer of at least 1")
        members = entry.get("member")
        for member in members if isinstance(members, list) else [members]:
            columns = tuple(map(str, entry.get("columns", ())))
            parts.append(Part(tuple(map(str, files)), member, entry.get("reader"), columns, first))
    return tuple(parts)


def _parse_cut(value: Any) -> Cut:
    check_keys(value, {"by", "valid", "test", "seed"}, {"by", "valid", "test"})
    sizes = []
    for split in ("valid", "test"):
        try:
            size = Fraction(str(value[split]))
        except (ValueError, ZeroDivisionError):
            size = Fraction(-1)
        if size <= 0 or (size >= 1 and size.denominator != 1):
            raise UserError(f"{split} of cut is {value[split]!r}: write a number of groups, or a share such as 1/60")
        sizes.append(int(size) if size.denominator == 1 else size)
    return Cut(str(value["by"]), sizes[0], sizes[1], int(value.get("seed", 1)))


def _parse_preprocessing(value: Any) -> Preprocessing:
    values = dict(check_keys(value, {known.name for known in fields(Preprocessing)}))
    if values.get("clean") is not None:
        values["clean"] = parse_cleaning_rule(values["clean"])
    if values.get("tokenizer") not in (None, "moses", "sentencepiece"):
        raise UserError(f"tokenizer is {values['tokenizer']!r}: choose moses or sentencepiece")
    for name, least in (("subwords", 1), ("validation_every", 2), ("maximum", 1)):
        number = values.get(name)
        if number is not None and (type(number) is not int or number < least):
            raise UserError(f"{name} is {number!r}: it must be an integer of at least {least}")
    return Preprocessing(**values)


def parse_cleaning_rule(value: Any) -> CleaningRule:
    """The rule that a mapping declares.

    Raises:
        UserError: it declares none.
    """
    check_keys(value, {known.name for known in fields(CleaningRule)}, {"ratio", "minimum", "maximum"})
    ratio, minimum, maximum, unit = (value.get(name, "tokens") for name in ("ratio", "minimum", "maximum", "unit"))
    numbers = all(isinstance(number, (int, float)) for number in (ratio, minimum, maximum))
    if not (
        numbers and 1 <= ratio < math.inf and 0 <= minimum <= maximum < math.inf and minimum % 1 == maximum % 1 == 0
    ):
        raise UserError(
            f"clean {ratio} {minimum} {maximum} is no rule: the ratio must be at least 1, minimum and maximum "
            "integers, the minimum at most the maximum"
        )
    if unit not in ("tokens", "subwords"):
        raise UserError(f"unit of clean is {unit!r}: choose tokens or subwords")
    return CleaningRule(float(ratio), int(minimum), int(maximum), unit)


def _parse_training(value: Any) -> Training:
    try:
        check_keys(
            value,
            {"common", "task", "model", "optimizer", "schedule", "settings", "checkpoint", "hours"},
            {"model", "schedule"},
        )
    except UserError as error:
        raise UserError(
            f"training: {error}; write model, schedule and settings as the corpus file of a 'run custom' has them, or "
            "leave training out, and they are chosen by the size of the text"
        ) from None
    groups = {group: str(file) for group, file in value.items() if group not in ("settings", "checkpoint", "hours")}
    checkpoint = value.get("checkpoint", "best")
    if checkpoint not in ("best", "last"):
        raise UserError(f"checkpoint is {checkpoint!r}: choose best or last")
    settings = value.get("settings", {})
    if not isinstance(settings, dict):
        raise UserError("settings must be KEY: VALUE")
    return Training(groups, dict(settings), checkpoint, parse_hours(value.get("hours", {})))


def parse_hours(value: Any) -> Dict[str, float]:
    """Hours of one run by device, ``{"cpu": …, "gpu": …}``.

    Raises:
        UserError: a device that is none, or no number above 0.
    """
    hours = check_keys(value, {"cpu", "gpu"})
    for device, number in hours.items():
        if type(number) not in (int, float) or not 0 < number < math.inf:
            raise UserError(f"hours of {device} is {number!r}: it must be a number above 0")
    return {device: float(number) for device, number in hours.items()}
