"""Images: networks, data sets, files, transforms."""

import gzip
import hashlib
import io
import struct
import sys
import tarfile
import zlib

import campaign
import numpy as np
import pytest
import torch
from torch import nn

from labo_fairseq.errors import UserError
from labo_fairseq.experiments.image_run import run_images
from labo_fairseq.files import shipped_datasets
from labo_fairseq.images.datasets import (
    DATA,
    ImageArray,
    load_data,
    load_declaration,
    read_idx,
    spread,
)
from labo_fairseq.images.files import ImageFiles, center_box, decode, random_box
from labo_fairseq.images.networks import NETWORKS, build_network, network_defaults
from labo_fairseq.images.randomness import Draws, generator_at, seed_at
from labo_fairseq.images.settings import compose
from labo_fairseq.images.transforms import Augmentation, augment, normalize, random_crop, rotate

Image = pytest.importorskip("PIL.Image")


def parameters(name, classes, **settings):
    network = build_network(name, classes, settings.pop("channels", 3), settings)
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "settings", "count"),
    [
        # as published for these networks, to the last weight
        ("resnet18", 10, {}, 11_173_962),
        ("resnet18", 100, {}, 11_220_132),
        ("resnet18", 1000, {"large": True}, 11_689_512),
        ("resnet50", 1000, {"large": True}, 25_557_032),
        ("resnet152", 1000, {"large": True}, 60_192_808),
        ("resnext29", 10, {}, 34_426_698),
        ("resnext29", 100, {}, 34_518_948),
        ("mobilenetv2", 100, {}, 2_369_380),
        ("resnet18", 10, {"width": 16, "channels": 1}, 701_178),
    ],
)
def test_a_network_has_the_published_number_of_weights(name, classes, settings, count):
    assert parameters(name, classes, **settings) == count


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_networks_take_small_images_of_any_channels(name, channels, side):
    network = build_network(name, 7, channels, {"width": 0.25 if name == "mobilenetv2" else 4})
    assert network(torch.rand(2, channels, side, side)).shape == (2, 7)


def test_maps_have_the_sizes_of_the_networks_for_small_images():
    images = torch.rand(1, 3, 32, 32)
    resnet, mobilenet = (build_network(name, 10, 3, {}) for name in ("resnet18", "mobilenetv2"))
    sides = [resnet.features[:last](images).size(-1) for last in (3, 5, 7, 9, 11)]
    assert sides == [32, 32, 16, 8, 4]  # stem, then a stage of two blocks each
    assert mobilenet.features[0](images).shape[1:] == (32, 34, 34)
    large = build_network("resnet50", 10, 3, {"large": True, "width": 8})
    assert large.features[:4](torch.rand(1, 3, 224, 224)).shape[1:] == (8, 56, 56)


def test_a_network_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def tiny(classes, channels, hidden=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.Linear(hidden, classes))\n"
        "def wrong(classes, channels):\n    return 3\n"
    )
    monkeypatch.setattr("sys.path", [place for place in sys.path if place])  # as for an installed command
    monkeypatch.chdir(tmp_path)
    assert network_defaults("mine:tiny") == {"hidden": 4}
    assert build_network("mine:tiny", 5, 1, {"hidden": 3})(torch.rand(2, 1, 4, 4)).shape == (2, 5)
    for name, settings, message in [
        ("mine:absent", {}, "cannot import the network mine:absent"),
        ("absent:tiny", {}, "No module named 'absent'"),
        ("mine:wrong", {}, "must return a torch.nn.Module, got int"),
        ("mine:tiny", {"depth": 3}, "does not take these settings"),
        ("resnet19", {}, "choose from resnet18"),
        ("resnet18", {"width": -1}, "network.width must be a number above 0, got -1"),
        ("resnet18", {"width": 0.5}, "does not take these settings"),
    ]:
        with pytest.raises(UserError, match=message):
            build_network(name, 5, 1, settings)


def test_random_numbers_depend_on_the_place_alone():
    assert seed_at(1, "order", 2) == seed_at(1, "order", 2) != seed_at(1, "order", 3)
    assert 0 <= seed_at("x") < 1 << 63
    first, second = (torch.rand(3, generator=generator_at(1, "augment", 0, 5)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_crop_is_a_window_of_the_padded_image():
    pixels = torch.randint(1, 256, (64, 3, 5, 7), dtype=torch.uint8, generator=generator_at(0))
    cropped = random_crop(pixels, 2, Draws(generator_at(1), 64))
    padded = nn.functional.pad(pixels, [2, 2, 2, 2])
    places = set()
    for image, all_of_it in zip(cropped, padded):
        windows = {(top, left): all_of_it[:, top : top + 5, left : left + 7] for top in range(5) for left in range(5)}
        (place,) = [place for place, window in windows.items() if torch.equal(window, image)]
        places.add(place)
    assert len(places) > 15  # of 25


def test_augmentation_flips_half_of_the_images_and_leaves_the_input_alone():
    pixels = torch.randint(256, (400, 1, 4, 4), dtype=torch.uint8, generator=generator_at(0))
    before = pixels.clone()
    flipped = augment(pixels, Augmentation(padding=0), Draws(generator_at(2), 400))
    unchanged = (flipped == pixels).flatten(1).all(dim=1)
    mirrored = (flipped == pixels.flip(-1)).flatten(1).all(dim=1)
    assert (unchanged | mirrored).all()
    assert 150 < int(mirrored.sum()) < 250
    assert torch.equal(pixels, before)
    assert torch.equal(augment(pixels, Augmentation(0, False, 0), Draws(generator_at(2), 400)), pixels)


def test_rotation_turns_about_the_center():
    pixels = torch.randint(256, (3, 2, 6, 6), dtype=torch.uint8, generator=generator_at(0))
    quarter = torch.full((3,), np.pi / 2)
    turned = rotate(pixels, quarter)
    assert torch.equal(turned, torch.rot90(pixels, 1, (2, 3))) or torch.equal(turned, torch.rot90(pixels, -1, (2, 3)))
    assert torch.equal(rotate(pixels, torch.zeros(3)), pixels)
    # a disc in the center of an image that is not square stays one
    rows, columns = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = ((rows**2 + columns**2) < 15**2).to(torch.uint8)[None, None] * 255
    difference = rotate(disc, torch.tensor([0.7])).float() - disc.float()
    assert difference.abs().mean() < 3


def test_normalized_values_are_those_of_the_formula():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    values = normalize(pixels, (0.5, 0.2, 0.1), (0.5, 0.25, 0.3)).flatten()
    torch.testing.assert_close(values, torch.tensor([-1.0, 0.0, 3.0]))


@pytest.mark.parametrize("wrong", [{"padding": -1}, {"padding": 1.5}, {"flip": 1}, {"rotation": 181}])
def test_an_augmentation_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        Augmentation(**wrong)


@pytest.fixture(scope="module")
def digits():
    declaration = load_declaration("digits")
    try:
        return load_data(declaration, {**DATA, **declaration.data})
    except UserError as error:
        pytest.skip(f"no digits: {error}")


def test_digits_are_split_evenly_and_always_alike(digits):
    sizes = {"train": 3500, "valid": 500, "test": 1000}
    for split, size in sizes.items():
        images = getattr(digits, split)
        assert len(images) == size
        assert images.shape == (1, 28, 28)
        assert images.labels.bincount().tolist() == [size // 10] * 10
    # no image is in two splits
    everything = torch.cat([getattr(digits, split).pixels for split in sizes]).flatten(1)
    assert len(everything) == 5000
    assert len(everything.unique(dim=0)) > 4990  # a few are twice in the file
    # published: of MNIST's training images
    mean = everything.double().mean() / 255
    assert abs(float(mean) - 0.1307) < 0.002


def test_a_spread_takes_turns_between_the_classes():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 3)
    first = spread(labels, 9)
    assert labels[first].bincount().tolist() == [3, 3, 3]
    assert torch.equal(spread(labels, 83)[:9], first)
    assert sorted(spread(labels, 83).tolist()) == list(range(83))


@pytest.mark.parametrize(("name", "classes", "train"), [("cifar10", 10, 9000), ("cifar100", 100, 11000)])
def test_cifar_is_read_from_the_official_layout(name, classes, train):
    folder = campaign.shared("cifar")
    declaration = load_declaration(f"{name}_small")
    data = load_data(declaration, {**DATA, **declaration.data}, folder)
    assert (len(data.train), len(data.valid), len(data.test)) == (train, 1000, 2500)
    assert data.train.shape == (3, 32, 32)
    assert len(data.classes) == classes
    assert data.test.labels.bincount().tolist() == [2500 // classes] * classes
    # the published mean of the channels: planes, not interleaved pixels, and the right labels' offset
    torch.testing.assert_close(
        data.train.pixels.double().mean((0, 2, 3)) / 255, torch.tensor(declaration.mean).double(), atol=0.006, rtol=0
    )
    # neighbors in an image resemble each other in both directions
    pixels = data.train.pixels[:200].double()
    for axis in (2, 3):
        assert pixels.diff(dim=axis).abs().mean() < 20


def test_the_cut_of_cifar_needs_an_explicit_option():
    folder = campaign.shared("cifar")
    declaration = load_declaration("cifar10")
    with pytest.raises(UserError, match=r"has md5 .* expected c32a1d4ab5d03f1284b67883e8d87530"):
        load_data(declaration, dict(DATA), folder)
    data = load_data(declaration, {**DATA, "verify": False, "validation": 10}, folder)
    assert len(data.train) == 9990
    assert data.files == {"cifar-10-binary.tar.gz": "8bc10a8906692b7fb02f908c708820b6a3553a85d7107dee80deeef9f73e3eb9"}


def cifar_archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0" * 3073, "held out of 5"),
        (b"\0" * 3072, "does not hold whole images of 3073 bytes"),
        (b"", "does not hold whole images of 3073 bytes"),
        (b"\7" * 3073, "holds the label 7, and names of 2 classes"),
    ],
)
def test_a_wrong_cifar_archive_is_refused(tmp_path, content, message):
    names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    members = {f"cifar-10-batches-bin/{name}": content for name in [*names, "test_batch.bin"]}
    members["cifar-10-batches-bin/batches.meta.txt"] = b"cat\ndog\n"
    cifar_archive(tmp_path / "cifar-10-binary.tar.gz", members)
    with pytest.raises(UserError, match=message):
        load_data(load_declaration("cifar10"), {**DATA, "verify": False}, tmp_path)


def test_an_archive_that_is_damaged_or_another_one_is_refused(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    declaration, settings = load_declaration("cifar10"), {**DATA, "verify": False}
    cifar_archive(path, {"something/else.bin": bytes(100_000)})
    with pytest.raises(UserError, match=r"holds no cifar-10-batches-bin/batches\.meta\.txt"):
        load_data(declaration, settings, tmp_path)
    for content in (path.read_bytes()[:80], b"no archive"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"is damaged or no tar\.gz archive"):
            load_data(declaration, settings, tmp_path)


def idx(shape, values):
    header = b"\0\0\x08" + bytes([len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return header + bytes(values)


def test_fashion_mnist_is_read_from_idx_files(tmp_path):
    rng = np.random.default_rng(0)
    pixels = {"train": rng.integers(0, 256, (40, 28, 28)), "t10k": rng.integers(0, 256, (20, 28, 28))}
    for split, values in pixels.items():
        count = len(values)
        for name, content in {
            f"{split}-images-idx3-ubyte.gz": idx(values.shape, values.flatten().tolist()),
            f"{split}-labels-idx1-ubyte.gz": idx((count,), [number % 10 for number in range(count)]),
        }.items():
            (tmp_path / name).write_bytes(gzip.compress(content))
    declaration = load_declaration("fashion_mnist")
    with pytest.raises(UserError, match="expected 8d4fb7e6c68d591d4c3dfef9ec88bf0d"):
        load_data(declaration, dict(DATA), tmp_path)
    data = load_data(declaration, {**DATA, "verify": False, "validation": 10}, tmp_path)
    assert (len(data.train), len(data.valid), len(data.test)) == (30, 10, 20)
    assert np.array_equal(data.test.pixels[:, 0].numpy(), pixels["t10k"])
    assert data.test.labels.tolist() == [number % 10 for number in range(20)]
    assert data.classes[8] == "Bag"


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"\0\0\x08\1\0\0\0\5abc"), gzip.compress(b"\0\0\x0d\1\0\0\0\1abcd")],
    # gzip writes down the time, and two processes of pytest-xdist must name the tests alike
    ids=["nothing", "no gzip", "too short", "of another type"],
)
def test_a_file_that_is_no_idx_is_refused(tmp_path, content):
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.gz is"):
        read_idx(path)


def test_every_declaration_can_be_read():
    assert {"digits", "cifar10", "cifar100", "imagenet", "fashion_mnist", "folders"} <= set(shipped_datasets())
    for name in shipped_datasets():
        assert load_declaration(name).title


FOLDERS = "title: t\nreader: folders\nmean: [0.5]\nstd: [0.5]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("reader: nothing\ntitle: t\nmean: [0]\nstd: [1]", "reader must be one of"),
        ("title: t\nreader: cifar", "mean and std must have one value per channel"),
        ("title: t\nreader: cifar\nmean: [0]\nstd: [1]\ncolor: red", "color"),
        ("- a\n- b", "does not declare a data set"),
        ("a: [", "is no YAML"),
        (f"{FOLDERS}title: u", "the key 'title' stands twice"),
        (FOLDERS.replace("[0.5]", "ab"), "mean and std must have one value per channel"),
        (f"{FOLDERS}folders: {{valid: v}}", "folders: no train"),
        (f"{FOLDERS}folders: {{train: t, tset: v}}", "folders: unknown key tset"),
        (f"{FOLDERS}folders: {{train: t}}\ndata: {{vaildation: 1}}", "data: unknown key vaildation"),
        (f"{FOLDERS}folders: {{train: t}}\ndata: {{verify: false}}", "data: unknown key verify"),
        ("reader: digits\ntitle: t\nmean: [0]\nstd: [1]\nwheel: {file: x}", "wheel: no member"),
    ],
)
def test_a_wrong_declaration_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_declaration(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"absent\.yaml: the file is not there"):
        load_declaration(str(tmp_path / "absent.yaml"))
    with pytest.raises(UserError, match=r"unknown data set 'cifar11': choose from .*cifar10"):
        load_declaration("cifar11")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("training: {epohcs: 3}", "mine declares training wrongly: unknown key epohcs"),
        ("augmentation: {flip: true, pading: 1}", "mine declares augmentation wrongly: unknown key pading"),
        ("networks: {resnet18: {widht: 8}}", r"mine declares networks\.resnet18 wrongly: unknown key widht"),
        ("networks: {default: {widht: 8}}", r"mine declares networks\.default wrongly: unknown key widht"),
    ],
)
def test_a_setting_that_nothing_takes_is_refused(tmp_path, section, message):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{FOLDERS}folders: {{train: t}}\n{section}")
    with pytest.raises(UserError, match=message):
        compose(load_declaration(str(path)), "resnet18", "ls", 1)


def test_a_setting_that_a_data_set_has_not_is_refused():
    for name, override in (("cifar10", "data.size=64"), ("digits", "data.verify=false"), ("cifar10", "data.test=9")):
        with pytest.raises(UserError, match=rf"{override.split('=')[0]} has no effect on {name}: it has data\."):
            compose(load_declaration(name), "resnet18", "ls", 1, [override])
    assert compose(load_declaration("folders"), "resnet18", "ls", 1, ["data.size=64"])["data"]["size"] == 64


def test_the_center_of_an_image_follows_the_size_that_a_network_sees(tmp_path):
    """A size of 32 cut out of 256 pixels would be an eighth of the sides."""
    path = tmp_path / "mine.yaml"
    for declared, overrides, smoke, expected in (
        ("", ["data.size=32"], False, (32, 37)),
        ("", [], False, (224, 256)),
        ("", ["data.size=32", "data.resize=64"], False, (32, 64)),
        ("", ["data.size=64"], True, (64, 72)),
        ("data: {size: 32}", [], False, (32, 37)),
        ("data: {size: 32}", ["data.size=64"], False, (64, 73)),
        ("data: {size: 32, resize: 32}", ["data.size=64"], False, (64, 64)),
    ):
        path.write_text(f"{FOLDERS}folders: {{train: t}}\n{declared}")
        data = compose(load_declaration(str(path)), "resnet18", "ls", 1, overrides, smoke)["data"]
        assert (data["size"], data["resize"]) == expected
    with pytest.raises(UserError, match=r"data\.size must be an integer of at least 8, got 0"):
        compose(load_declaration("folders"), "resnet18", "ls", 1, ["data.size=0"])


def test_numbers_of_settings_may_have_an_exponent():
    given = ["training.lr=1e-2", "training.milestones=[5e-1, 0.9]"]
    training = compose(load_declaration("cifar10"), "resnet18", "ls", 1, given)["training"]
    assert (training["lr"], training["milestones"]) == (0.01, [0.5, 0.9])


def test_a_dataset_of_the_users_own_becomes_images_in_memory():
    items = [(Image.new("RGB", (4, 6), (number, 0, 255)), number % 2) for number in range(5)]
    images = ImageArray.from_dataset(items)
    assert images.shape == (3, 6, 4)
    assert images.pixels[3, :, 0, 0].tolist() == [3, 0, 255]
    assert images.labels.tolist() == [0, 1, 0, 1, 0]
    tensors = ImageArray.from_dataset([(torch.zeros(1, 2, 2, dtype=torch.uint8), 0)] * 2)
    assert tensors.shape == (1, 2, 2)
    with pytest.raises(ValueError, match="must be uint8"):
        ImageArray.from_dataset([(torch.zeros(1, 2, 2), 0)])


def png(width, height, bits, rows):
    """A PNG file of three colors."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_image_files_of_every_mode_become_red_green_and_blue(tmp_path):
    red = Image.new("RGB", (5, 4), (200, 10, 30))
    for name, image in {
        "plain.png": red,
        "palette.png": red.quantize(4),
        "transparent.png": red.convert("RGBA"),
        "cmyk.jpg": red.convert("CMYK"),
    }.items():
        save(tmp_path / name, image)
        pixel = decode(tmp_path / name).getpixel((2, 2))
        assert np.abs(np.array(pixel) - (200, 10, 30)).max() < 6, name
    sixteen_bits = Image.fromarray(np.full((3, 3), 99 * 257, dtype=np.uint16))
    for name, image, value in (
        ("gray.png", Image.new("L", (3, 3), 99), 99),
        ("gray.jpg", Image.new("L", (3, 3), 99), 99),
        ("transparent-gray.png", Image.new("LA", (3, 3), (99, 0)), 99),
        ("black-and-white.png", Image.new("1", (3, 3), 1), 255),
        ("bits.png", sixteen_bits, 99),
        ("bits.tif", sixteen_bits, 99),
        ("more-bits.tif", Image.fromarray(np.full((3, 3), 99 * 257, dtype=np.int32)), 99),
        ("float.tif", Image.fromarray(np.full((3, 3), 99, dtype=np.float32)), 99),
        ("share.tif", Image.fromarray(np.full((3, 3), 99 / 255, dtype=np.float32)), 99),
    ):
        save(tmp_path / name, image)
        assert decode(tmp_path / name).getpixel((0, 0)) == (value, value, value), name
    color = struct.pack(">9H", *[99 * 257, 30 * 257, 7 * 257] * 3)  # of a row; Pillow writes no such file
    (tmp_path / "color-bits.png").write_bytes(png(3, 3, 16, (b"\0" + color) * 3))
    assert decode(tmp_path / "color-bits.png").getpixel((1, 1)) == (99, 30, 7)
    save(tmp_path / "one.png", Image.new("RGB", (1, 1), (1, 2, 3)))
    single = ImageFiles([tmp_path / "one.png"], torch.tensor([0]), 8, 9)
    for draws in (None, Draws(generator_at(0), 1)):
        assert single.load(torch.tensor([0]), draws)[0, :, 4, 4].tolist() == [1, 2, 3]


def test_what_is_no_image_is_refused_in_one_line(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    save(tmp_path / "whole.jpg", Image.fromarray(noise))
    content = (tmp_path / "whole.jpg").read_bytes()
    for name, wrong in {
        "cut.jpg": content[: len(content) // 2],
        "cut-header.jpg": content[:10],
        "cut.png": png(8, 8, 8, noise.tobytes()[: 8 * 25])[:90],
        "text.png": b"no image",
        "empty.jpg": b"",
        "huge.png": png(30_000, 30_000, 8, b""),  # gigabytes out of a few bytes
    }.items():
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(UserError, match=r"cannot be read as an image .*: replace it .* --fresh") as caught:
            decode(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "folder.png").mkdir()
    for name in ("absent.png", "folder.png"):
        with pytest.raises(UserError, match="cannot be read as an image"):
            decode(tmp_path / name)


def folders(root, classes=("ant", "bee"), splits=("train", "val", "test"), count=4, side=20):
    rng = np.random.default_rng(0)
    for split in splits:
        for label, name in enumerate(classes):
            for number in range(count):
                pixels = rng.integers(0, 128, (side, side + 4, 3), dtype=np.uint8) + np.uint8(100 * label)
                save(root / split / name / f"{number}.png", Image.fromarray(pixels))
    return root


def test_folders_of_classes_are_read(tmp_path):
    folders(tmp_path)
    declaration = load_declaration("folders")
    settings = {**DATA, "size": 8, "resize": 9}
    data = load_data(declaration, settings, tmp_path)
    assert data.classes == ("ant", "bee")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert [path.name for path in data.valid.paths] == ["0.png", "1.png", "2.png", "3.png"] * 2
    images = data.train.load(torch.tensor([0, 7]))
    assert images.shape == (2, *data.train.shape) == (2, 3, 8, 8)
    assert images[0].float().mean() < 128 < images[1].float().mean()
    crops = [data.train.load(torch.tensor([3, 3]), Draws(generator_at(5), 2)) for _ in range(2)]
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0][0], crops[0][1])
    # without a validation set of their own, some training images are taken
    declaration = load_declaration("imagenet")
    assert load_data(declaration, {**settings, "validation": 0}, tmp_path).valid is None
    assert len(load_data(declaration, {**settings, "validation": 2}, tmp_path).valid) == 2


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_damaged_image_is_told_before_the_training(tmp_path, split):
    place = folders(tmp_path / "data")
    (place / split / "bee" / "2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"2\.png cannot be read as an image"):
        run_images(tmp_path / "run", "folders", "resnet18", "ls", 1, [], smoke=True, archive_dir=place)
    assert not (tmp_path / "run").exists()


def test_what_tools_leave_among_the_images_is_none(tmp_path):
    folders(tmp_path)
    (tmp_path / "train" / "ant" / "._0.png").write_bytes(b"macOS")
    save(tmp_path / "train" / "bee" / ".ipynb_checkpoints" / "0-checkpoint.png", Image.new("RGB", (9, 9)))
    data = load_data(load_declaration("folders"), {**DATA, "size": 8, "resize": 9}, tmp_path)
    assert [path.name for path in data.train.paths] == ["0.png", "1.png", "2.png", "3.png"] * 2


def test_test_images_are_cut_out_where_only_validation_has_a_folder(tmp_path):
    place = folders(tmp_path / "images", splits=("train", "val"))
    (tmp_path / "mine.yaml").write_text(f"{FOLDERS}folders: {{train: train, valid: val}}")
    declaration = load_declaration(str(tmp_path / "mine.yaml"))
    data = load_data(declaration, {**DATA, "test": 2}, place)
    assert (len(data.train), len(data.valid), len(data.test)) == (6, 8, 2)
    assert {*data.train.paths, *data.test.paths} == set((place / "train").rglob("*.png"))
    with pytest.raises(UserError, match=r"there are no test images: set data\.test"):
        load_data(declaration, dict(DATA), place)
    with pytest.raises(UserError, match=r"8 images are to be held out of 8: lower data\.test"):
        load_data(declaration, {**DATA, "test": 8}, place)


def test_wrong_folders_are_refused(tmp_path):
    declaration = load_declaration("folders")
    with pytest.raises(UserError, match=r"Say --archive-dir DIR"):
        load_data(declaration, dict(DATA))
    with pytest.raises(UserError, match=r"no folder .*train"):
        load_data(declaration, dict(DATA), tmp_path)
    folders(tmp_path, classes=("ant",), splits=("train",))
    with pytest.raises(UserError, match="at least two classes are needed"):
        load_data(declaration, dict(DATA), tmp_path)
    folders(tmp_path)
    folders(tmp_path, classes=("wasp",), splits=("test",))
    with pytest.raises(UserError, match="holds the class 'wasp', which the training images lack"):
        load_data(declaration, dict(DATA), tmp_path)
    (tmp_path / "train" / "wasp").mkdir()
    with pytest.raises(UserError, match="wasp holds no image"):
        load_data(declaration, dict(DATA), tmp_path)


def test_boxes_lie_within_the_image_and_have_their_shapes():
    generator = generator_at(1)
    for width, height in [(1, 1), (1, 50), (640, 480), (3, 1000), (31, 33)]:
        for _ in range(200):
            left, upper, right, lower = random_box(width, height, generator)
            assert 0 <= left < right <= width
            assert 0 <= upper < lower <= height
            if min(width, height) > 100:
                assert 0.07 < (right - left) * (lower - upper) / (width * height) <= 1
                assert 0.73 < (right - left) / (lower - upper) < 1.36
    assert center_box(300, 256, 224 / 256) == (38, 16, 262, 240)


def test_checksums_of_the_small_cuts_are_those_of_the_files():
    folder = campaign.shared("cifar")
    for name, file in (("cifar10_small", "cifar-10-binary.tar.gz"), ("cifar100_small", "cifar-100-binary.tar.gz")):
        expected = load_declaration(name).archives[file]["sha256"]
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == expected
