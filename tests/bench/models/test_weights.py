import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator

from bench.data.dataset import in_memory
from bench.data.load import load_dataset
from bench.errors import ConfigurationError
from bench.grid.sections import Weights
from bench.models import training
from bench.models.build import untrained
from bench.models.training import Recipe, augment
from bench.models.weights import cache_folder, load_weights
from bench.store.tensors import state_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBOARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def spec(value):
    """The weights that a grid file asks for."""
    return Weights.model_validate(str(value) if isinstance(value, Path) else value).spec


def fresh(dataset, name="mlp", seed=0, **parameters):
    parameters = parameters or ({"hidden": [32]} if name == "mlp" else {})
    return untrained(
        name,
        parameters,
        input_shape=dataset.input_shape,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        seed=seed,
    )


def test_untrained_weights_are_the_initial_ones(digits):
    model = fresh(digits)
    before = state_of(model)
    weights = load_weights(model, spec("untrained"), dataset=digits, seed=0)
    assert (weights.label, weights.accuracy, weights.epochs) == ("untrained", None, 0)
    assert all(torch.equal(weights.state[name], before[name]) for name in before)


def test_a_network_of_sigmoids_is_trained_at_a_tenth_of_the_rate(digits):
    """On CIFAR-10 LeNet(Zhu) stayed at chance for 20 epochs at .1, and reached 40% at .01."""
    slow = Recipe(learning_rate=0.01)
    for name, same in [("lenet-zhu", True), ("mlp", False)]:
        by_default = load_weights(fresh(digits, name), spec(1), dataset=digits, seed=0)
        slowly = load_weights(fresh(digits, name), spec(1), dataset=digits, seed=0, recipe=slow)
        assert (by_default.recipe_digest == slowly.recipe_digest) is same


def test_training_learns_digits_and_ends_in_eval_mode(digits):
    model = fresh(digits)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    weights = load_weights(model, spec(5), dataset=digits, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert weights.accuracy is not None
    assert weights.accuracy > 0.85
    assert weights.label == "epochs=5"
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, weights.state[name]) for name, value in model.state_dict().items())


def test_the_second_time_weights_are_taken_from_the_cache_byte_for_byte(digits, monkeypatch):
    first = load_weights(fresh(digits), spec(1), dataset=digits, seed=0)
    monkeypatch.setattr("bench.models.weights.train", None)
    second = load_weights(fresh(digits), spec(1), dataset=digits, seed=0)
    assert (first.accuracy, first.recipe_digest) == (second.accuracy, second.recipe_digest)
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def test_training_is_deterministic(digits, monkeypatch, tmp_path):
    first = load_weights(fresh(digits), spec(1), dataset=digits, seed=0)
    monkeypatch.setenv("LEAKBOARD_CACHE", str(tmp_path / "other"))
    second = load_weights(fresh(digits), spec(1), dataset=digits, seed=0)
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def test_the_cache_tells_everything_apart_that_determines_the_weights(digits):
    other_images = replace(digits, read_training=lambda: tuple(t[:1000] for t in digits.training()))
    other_mean = fresh(digits)
    other_mean.normalise.mean.add_(0.1)
    made = [
        load_weights(fresh(digits), spec(1), dataset=digits, seed=0),
        load_weights(fresh(digits), spec(2), dataset=digits, seed=0),
        load_weights(fresh(digits), spec(1), dataset=digits, seed=1),
        load_weights(fresh(digits, seed=1), spec(1), dataset=digits, seed=0),
        load_weights(fresh(digits), spec(1), dataset=other_images, seed=0),
        load_weights(fresh(digits), spec(1), dataset=digits, seed=0, recipe=Recipe(learning_rate=0.01)),
        load_weights(other_mean, spec(1), dataset=digits, seed=0),
    ]
    assert len({weights.recipe_digest for weights in made}) == len(made)


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_damaged_kept_weights_are_trained_again_with_a_warning(digits, damage):
    first = load_weights(fresh(digits), spec(1), dataset=digits, seed=0)
    (path,) = cache_folder().iterdir()
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[-100] ^= 1
    path.write_bytes({"truncated": content[:-50], "changed": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match="damaged"):
        second = load_weights(fresh(digits), spec(1), dataset=digits, seed=0)
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    load_weights(fresh(digits), spec(1), dataset=digits, seed=0)


def test_weights_that_cannot_be_kept_are_used_with_a_warning(digits, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert load_weights(fresh(digits), spec(1), dataset=digits, seed=0).accuracy is not None


def test_the_architecture_is_trained_as_it_was_changed(digits):
    from opacus.validators import ModuleValidator

    model = fresh(digits, "resnet20", width=4)
    fixed = ModuleValidator.fix(copy.deepcopy(model))
    small = replace(digits, read_training=lambda: tuple(t[:128] for t in digits.training()))
    made = [load_weights(m, spec(1), dataset=small, seed=0) for m in (model, fixed)]
    assert made[0].recipe_digest != made[1].recipe_digest
    assert not any("running_mean" in name for name in made[1].state)
    assert made[0].state["network.1.num_batches_tracked"] == 1


def test_another_dataset_can_be_trained_on(digits, monkeypatch):
    without = replace(digits, name="digits-samples", read_training=None)
    with pytest.raises(ConfigurationError, match=r"digits-samples has no training images.*cifar10-jpeg"):
        load_weights(fresh(digits), spec(1), dataset=without, seed=0)
    weights = load_weights(fresh(digits), spec({"epochs": 1, "dataset": "digits"}), dataset=without, seed=0)
    assert weights.label == "epochs=1 on digits"
    assert weights.accuracy is not None
    with pytest.raises(ConfigurationError, match="choose a dataset that fits"):
        load_weights(
            fresh(digits),
            spec({"epochs": 1, "dataset": "digits"}),
            dataset=load_dataset("cifar10-samples"),
            seed=0,
        )
    backwards = replace(without, class_names=digits.class_names[::-1])
    with pytest.raises(ConfigurationError, match="another order"):
        load_weights(fresh(digits), spec({"epochs": 1, "dataset": "digits"}), dataset=backwards, seed=0)


def test_diverging_training_is_an_error(digits):
    with pytest.raises(ConfigurationError, match="diverged"):
        load_weights(fresh(digits), spec(1), dataset=digits, seed=0, recipe=Recipe(learning_rate=1e20))


def test_progress_reports_every_step(digits):
    seen = []
    load_weights(fresh(digits), spec(2), dataset=digits, seed=0, progress=lambda *step: seen.append(step))
    assert seen == [(i, 22) for i in range(1, 23)]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("bare", [True, False])
def test_a_checkpoint_is_really_loaded(digits, tmp_path, suffix, bare):
    donor = fresh(digits, seed=9)
    state = (donor.network if bare else donor).state_dict()
    path = tmp_path / f"donor{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    model = fresh(digits)
    weights = load_weights(model, spec(str(path)), dataset=digits, seed=0)
    images = digits.images(range(4))
    assert torch.equal(model(images), donor(images))
    assert (weights.label, weights.epochs) == (str(path), 0)
    assert weights.accuracy is not None


def test_a_checkpoint_that_does_not_fit_names_the_first_mismatches(digits, tmp_path):
    path = tmp_path / "wide.pt"
    torch.save(fresh(digits, hidden=[48]).state_dict(), path)
    model = fresh(digits)
    before = state_of(model)
    with pytest.raises(ConfigurationError, match=r"network\.1\.weight: \(48, 64\) in the file, \(32, 64\)"):
        load_weights(model, spec(path), dataset=digits, seed=0)
    torch.save({"weight": torch.ones(3)}, path)
    with pytest.raises(ConfigurationError, match=r"network\.1\.weight: missing.*and 2 more"):
        load_weights(model, spec(path), dataset=digits, seed=0)
    broken = state_of(model)
    broken["network.1.bias"][0] = float("nan")
    torch.save(broken, path)
    with pytest.raises(ConfigurationError, match=r"network\.1\.bias .*not finite"):
        load_weights(model, spec(path), dataset=digits, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("touched-by-a-pickle"),)


@pytest.mark.parametrize("name", ["broken.pt", "broken.safetensors", "code.pt", "list.pt", "missing.pt"])
def test_an_unreadable_checkpoint_is_named_and_runs_no_code(digits, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    match name:
        case "code.pt":
            torch.save({"weight": Payload()}, path)
        case "list.pt":
            torch.save([1, 2], path)
        case "broken.pt" | "broken.safetensors":
            path.write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigurationError, match=name):
        load_weights(fresh(digits), spec(str(path)), dataset=digits, seed=0)
    assert not (tmp_path / "touched-by-a-pickle").exists()


def test_augmentation_crops_and_flips_small_colour_images_only():
    images = torch.rand(64, 3, 32, 32)
    made = augment(images, Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    found = []
    for original, image in zip(padded, made, strict=True):
        crops = {(y, x): original[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
        found += [(*at, False) for at, crop in crops.items() if torch.equal(image, crop)]
        found += [(*at, True) for at, crop in crops.items() if torch.equal(image, crop.flip(-1))]
    assert len(found) == 64  # each is one crop of its own image
    assert 16 < sum(flipped for _, _, flipped in found) < 48
    assert {y for y, _, _ in found} == {x for _, x, _ in found} == set(range(9))
    grey = torch.rand(4, 1, 28, 28)
    assert augment(grey, Generator().manual_seed(0)) is grey


def test_accuracy_counts_the_right_answers(digits):
    model = fresh(digits)
    some = replace(digits, read=in_memory(digits.pixels(range(50))), labels=model(digits.images(range(50))).argmax(1))
    assert training.accuracy(model, some, most=1000) == 1.0
    half = replace(some, labels=torch.where(torch.arange(50) % 2 == 0, some.labels, (some.labels + 1) % 10))
    assert training.accuracy(model, half, most=1000) == 0.5
