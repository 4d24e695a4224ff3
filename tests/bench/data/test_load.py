import gzip
import importlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import fashion_mnist
from bench.data.catalogue import DATASET_PARAMETERS, DATASETS, TORCHVISION_SETS
from bench.data.class_names import CIFAR10
from bench.data.dataset import round_robin
from bench.data.load import load_dataset
from bench.data.torchvision_sets import SETS
from bench.errors import ConfigurationError

SAMPLES = ["cifar10-samples", "cifar100-samples", "imagenet-samples", "mnist-samples", "fashion-mnist-samples"]
BUNDLED = ["digits", "photos", *SAMPLES]
needs_fashion_mnist = pytest.mark.skipif(
    not fashion_mnist.DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


@pytest.fixture(autouse=True)
def no_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBOARD_DATA", str(tmp_path / "data"))


def picture(path: Path, shade: int = 0, size=(32, 32), mode="RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (shade, 10, 200) if mode == "RGB" else shade
    Image.new(mode, size, color).save(path)
    return path


def jpeg_zip(path: Path, per_class: int = 2) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for split, start in (("train", 100), ("test", 0)):
            for label, name in enumerate(CIFAR10):
                for i in range(per_class):
                    content = io.BytesIO()
                    Image.new("RGB", (32, 32), (start + 10 * label + i, 0, 0)).save(content, "JPEG", quality=100)
                    archive.writestr(f"cifar10-jpeg/{split}/{name}/{i:04d}.jpg", content.getvalue())
    return path


def test_the_catalogue_is_read_without_torch():
    code = "import sys, bench.data.catalogue, bench.models.catalogue; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_the_catalogue_agrees_with_the_loaders():
    assert DATASET_PARAMETERS.keys() == DATASETS.keys()
    assert SETS.keys() == set(TORCHVISION_SETS)
    datasets = importlib.import_module("torchvision.datasets")
    assert all(isinstance(getattr(datasets, name), type) for name in SETS)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_images_are_real_pixels_with_labels_and_statistics(name):
    dataset = load_dataset(name)
    images = dataset.images(range(4))
    assert images.shape == (4, *dataset.input_shape)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.max() < dataset.classes == len(set(dataset.class_names))
    assert len(dataset.mean) == len(dataset.std) == dataset.input_shape[0]


def test_samples_are_the_published_test_images():
    labels = load_dataset("cifar10-samples").labels.tolist()
    assert labels == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9, 5, 7, 9, 8, 5, 7, 8, 6]
    cifar100 = load_dataset("cifar100-samples")
    assert [cifar100.class_names[label] for label in cifar100.labels[:3]] == ["mountain", "forest", "seal"]
    assert len(cifar100.class_names) == 100


def test_imagenet_samples_keep_their_proportions_and_names():
    dataset = load_dataset("imagenet-samples", size=64)
    assert dataset.input_shape == (3, 64, 64)
    assert dataset.class_names[dataset.labels[0]] == "bull mastiff"
    assert load_dataset("photos").input_shape == (3, 224, 224)


def test_digits_statistics_and_means_come_from_training_images_only():
    dataset = load_dataset("digits")
    training = dataset.training()
    assert training is not None
    pixels, labels = training
    means = dataset.class_means()
    assert means is not None
    assert (len(pixels), len(dataset)) == (1437, 360)
    torch.testing.assert_close(means[3], pixels[labels == 3].double().mean(0).float() / 255)
    assert dataset.mean[0] == pytest.approx((pixels.double() / 255).mean().item(), abs=1e-4)


def test_enlarged_digits_are_the_same_images_bilinearly_between_the_centres_of_their_pixels():
    small, large = load_dataset("digits"), load_dataset("digits", size=32)
    assert large.input_shape == (1, 32, 32)
    assert torch.equal(small.labels, large.labels)
    for own, enlarged in ((small.pixels([7]), large.pixels([7])), (small.training()[0][7:8], large.training()[0][7:8])):
        assert enlarged.dtype == torch.uint8
        rows = np.asarray(own[0, 0], dtype=float)
        at = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
        columns = np.stack([np.interp(at, range(8), row) for row in rows])
        wanted = np.stack([np.interp(at, range(8), column) for column in columns.T]).T
        assert np.array_equal(wanted.round(), enlarged[0, 0].numpy())


def test_digits_are_never_made_smaller():
    with pytest.raises(ConfigurationError, match="size must be at least 8, the images' own, got 7"):
        load_dataset("digits", size=7)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_offer_no_training_images(name):
    dataset = load_dataset(name)
    assert dataset.training() is None
    assert dataset.class_means() is None


def test_a_digest_depends_on_the_pixels_and_the_labels():
    dataset = load_dataset("digits")
    assert dataset.digest([0, 1]) == load_dataset("digits").digest([0, 1])
    assert len({dataset.digest([0, 1]), dataset.digest([1, 0]), dataset.digest([0])}) == 3


def test_a_pool_is_fixed_and_drawn_from_the_whole_dataset():
    pool = load_dataset("digits").pool(100)
    assert len(set(pool)) == 100
    assert pool == load_dataset("digits").pool(100)
    assert pool[:20] == load_dataset("digits").pool(20)
    assert max(pool) > 200
    assert sorted(load_dataset("cifar10-samples").pool(100)) == list(range(20))


def test_an_image_beyond_the_end_is_refused():
    with pytest.raises(ConfigurationError, match="no image 20: it has 20"):
        load_dataset("cifar10-samples").images([20])


@needs_fashion_mnist
def test_fashion_mnist_holds_the_sample_images_first():
    dataset = load_dataset("fashion-mnist")
    samples = load_dataset("fashion-mnist-samples")
    assert len(dataset) == 10_000
    assert torch.equal(dataset.pixels(range(20)), samples.pixels(range(20)))
    assert torch.equal(dataset.labels[:20], samples.labels)


def idx_files(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("t10k", "train"):
        pixels = np.arange(count * 784, dtype=np.uint32).astype(np.uint8).tobytes()
        header = b"".join(n.to_bytes(4, "big") for n in (0x803, count, 28, 28))
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels))
        labels = b"".join(n.to_bytes(4, "big") for n in (0x801, count)) + bytes(range(count))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def test_fashion_mnist_is_read_from_a_root(tmp_path):
    dataset = load_dataset("fashion-mnist", root=str(idx_files(tmp_path / "idx")))
    assert dataset.labels.tolist() == [0, 1, 2]
    assert dataset.pixels([1])[0, 0, 0, :3].tolist() == [16, 17, 18]
    training = dataset.training()
    assert training is not None
    assert training[0].shape == (3, 1, 28, 28)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: gzip.compress(gzip.decompress(b)[:-5]), lambda b: b"?"])
def test_a_damaged_idx_file_is_named(tmp_path, damage):
    folder = idx_files(tmp_path / "idx")
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ConfigurationError, match=r"t10k-images-idx3-ubyte\.gz"):
        load_dataset("fashion-mnist", root=str(folder))


def test_missing_fashion_mnist_says_where_it_was_looked_for_and_what_to_do(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere.*apt-get install dataset-fashion-mnist"):
        load_dataset("fashion-mnist", root=str(tmp_path / "nowhere"))


def test_fashion_mnist_is_downloaded_through_torchvision_when_asked(tmp_path, monkeypatch):
    def download(root, train, download):
        assert download
        idx_files(Path(root) / "FashionMNIST" / "raw")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", download)
    assert len(load_dataset("fashion-mnist", root=str(tmp_path), download=True)) == 3


@pytest.mark.parametrize("packed", [True, False])
def test_the_jpeg_stand_in_is_read_from_a_zip_or_its_folder(tmp_path, packed):
    source = jpeg_zip(tmp_path / "cifar10-jpeg.zip")
    if not packed:
        zipfile.ZipFile(source).extractall(tmp_path)
        source = tmp_path / "cifar10-jpeg"
    dataset = load_dataset("cifar10-jpeg", root=str(source))
    training = dataset.training()
    assert training is not None
    assert "stand-in" in dataset.title
    assert dataset.labels.tolist() == [*range(10), *range(10)]  # taken in turns of the classes
    assert dataset.pixels([13])[0, 0, 0, 0] == pytest.approx(31, abs=3)
    assert training[0].shape == (20, 3, 32, 32)
    assert training[0].min(0).values[0].min() >= 97


def test_the_jpeg_stand_in_is_found_through_the_environment(tmp_path, monkeypatch):
    jpeg_zip(tmp_path / "cifar10-jpeg.zip")
    monkeypatch.setenv("LEAKBOARD_DATA", str(tmp_path))
    assert len(load_dataset("cifar10-jpeg")) == 20


@pytest.mark.parametrize("content", [b"no zip", None])
def test_a_damaged_or_missing_jpeg_zip_is_named(tmp_path, content):
    path = tmp_path / "cifar10-jpeg.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"cifar10-jpeg\.zip"):
        load_dataset("cifar10-jpeg", root=str(path))


def test_a_folder_takes_its_sub_folders_for_classes_in_turns(tmp_path):
    for i in range(2):
        picture(tmp_path / "cat" / f"{i}.png", i)
        picture(tmp_path / "dog" / f"{i}.PNG", 100 + i)
    (tmp_path / ".hidden").mkdir()
    dataset = load_dataset("folder", root=str(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.pixels(range(4))[:, 0, 0, 0].tolist() == [0, 100, 1, 101]
    assert dataset.training() is None


def test_a_flat_folder_is_one_class_beside_an_empty_one(tmp_path):
    picture(tmp_path / "a.png", 7, mode="L")
    dataset = load_dataset("folder", root=str(tmp_path))
    assert dataset.labels.tolist() == [0]
    assert dataset.classes == 2  # one class alone would have a gradient of zero
    assert dataset.input_shape == (1, 32, 32)


def test_a_folder_of_several_sizes_asks_for_one(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", size=(48, 40))
    with pytest.raises(ConfigurationError, match=r"b\.png is 48x40; give size = 32"):
        load_dataset("folder", root=str(tmp_path))
    assert load_dataset("folder", root=str(tmp_path), size=16).input_shape == (3, 16, 16)


def test_a_centre_crop_keeps_the_centre(tmp_path):
    image = Image.new("L", (64, 32), 0)
    image.paste(255, (16, 0, 48, 32))
    image.save(tmp_path / "a.png")
    dataset = load_dataset("folder", root=str(tmp_path), size=32)
    assert dataset.images([0]).eq(1).all()


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_corrupt_image_is_named(tmp_path, content):
    path = tmp_path / "cat" / "broken.png"
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    path.parent.mkdir()
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500] if content is None else content)
    with pytest.raises(ConfigurationError, match=r"cannot read the image .*broken\.png"):
        load_dataset("folder", root=str(tmp_path))


def test_sixteen_bit_pixels_are_refused_instead_of_clipped(tmp_path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ConfigurationError, match=r"deep\.png.*8 bits"):
        load_dataset("folder", root=str(tmp_path))


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="give root"):
        load_dataset("folder")
    with pytest.raises(ConfigurationError, match="not a folder"):
        load_dataset("folder", root=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="no images in"):
        load_dataset("folder", root=str(tmp_path))
    picture(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    with pytest.raises(ConfigurationError, match=r"no images in .*dog"):
        load_dataset("folder", root=str(tmp_path))
    picture(tmp_path / "b.png")
    with pytest.raises(ConfigurationError, match="beside sub-folders"):
        load_dataset("folder", root=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("cifar10-sample", {}, "did you mean 'cifar10-samples'"),
        ("digits", {"root": "x"}, "no parameter 'root'; known: size"),
        ("photos", {"size": 0}, "size must be"),
        ("photos", {"size": True}, "size must be"),
        ("fashion-mnist", {"size": 4}, "no parameter 'size'"),
        ("cifar10-jpeg", {"root": 3}, "root must be a path"),
        ("ImageNet", {"download": True}, "cannot be downloaded"),
        ("CIFAR10", {}, "set download = true"),
    ],
)
def test_wrong_names_and_parameters_are_refused(name, parameters, message):
    with pytest.raises(ConfigurationError, match=message):
        load_dataset(name, **parameters)


class FakeSet:
    classes = ("a", "b")

    def __init__(self, root, train):
        self.targets = [0, 0, 0, 1] if train else [0, 0, 1, 1]
        self.start = 100 if train else 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Image.new("RGB", (32, 32), (self.start + index, 0, 0)), self.targets[index]


def test_a_torchvision_set_gives_both_splits_and_mixes_sorted_classes(monkeypatch, tmp_path):
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeSet)
    dataset = load_dataset("CIFAR10", root=str(tmp_path))
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.pixels(range(4))[:, 0, 0, 0].tolist() == [0, 2, 1, 3]
    assert dataset.pixels([]).shape == (0, 3, 32, 32)
    training = dataset.training()
    assert training is not None
    assert training[0][:, 0, 0, 0].tolist() == [100, 101, 102, 103]
    assert training[1].tolist() == [0, 0, 0, 1]
    assert dataset.mean == pytest.approx((0.4914672, 0.4822617, 0.4467701))


def test_images_are_taken_in_turns_of_their_classes():
    assert round_robin(torch.tensor([0, 0, 0, 1, 2, 2])) == [0, 3, 4, 1, 5, 2]
