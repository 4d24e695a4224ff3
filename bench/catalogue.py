"""The names of the datasets and models, and their parameters; torch-free, so that listing them is quick."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bench.errors import ConfigurationError, suggest

_SETS = """
Caltech101 Caltech256 CIFAR10 CIFAR100 CLEVRClassification Country211 DTD EMNIST EuroSAT FashionMNIST
FER2013 FGVCAircraft Flowers102 Food101 GTSRB ImageNet Imagenette KMNIST LFWPeople MNIST Omniglot
OxfordIIITPet PCAM Places365 QMNIST RenderedSST2 SEMEION StanfordCars STL10 SUN397 SVHN USPS
"""
TORCHVISION_SETS = tuple(_SETS.split())
"""Classes of torchvision.datasets with one label per image."""

_MODELS = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169
densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4
efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s
googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2
mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf
regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf
regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50
resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0
shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b
swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32
vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
"""
TORCHVISION_MODELS = tuple(_MODELS.split())
"""torchvision.models.list_models(module=torchvision.models) of torchvision 0.29."""

DATASETS: dict[str, str] = {
    "digits": "scikit-learn's handwritten digits, 8x8 grey: 1,437 to train on, 360 to attack",
    "cifar10-samples": "the first 20 test images of CIFAR-10, 32x32 colour (foolbox wheel)",
    "cifar100-samples": "the first 20 test images of CIFAR-100, 32x32 colour (foolbox wheel)",
    "imagenet-samples": "20 ImageNet images, shorter side to 224, centre crop (foolbox wheel)",
    "mnist-samples": "the first 20 test images of MNIST, 28x28 grey (foolbox wheel)",
    "fashion-mnist-samples": "the first 20 test images of Fashion-MNIST, 28x28 grey (foolbox wheel)",
    "photos": "8 colour photographs, centre crop of 224, each its own class (scikit-image wheel)",
    "fashion-mnist": "Fashion-MNIST's four files: Debian's dataset-fashion-mnist, a folder, or a download",
    "cifar10-jpeg": "JPEG stand-in for CIFAR-10 (20,000 training, 3,000 test images): a zip or its folder",
    "folder": "your own images: one sub-folder a class, or a flat folder",
    **{name: f"torchvision's {name}: an existing root, or a download" for name in TORCHVISION_SETS},
}
"""Dataset -> one line about it."""

DATASET_PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(DATASETS, ()),
    "imagenet-samples": ("size",),
    "photos": ("size",),
    "fashion-mnist": ("root", "download"),
    "cifar10-jpeg": ("root",),
    "folder": ("root", "size"),
    **dict.fromkeys(TORCHVISION_SETS, ("root", "download", "size")),
}
"""Dataset -> the parameters that it takes."""

MODELS: dict[str, str] = {
    "lenet-zhu": "three sigmoid convolutions and a linear layer, weights uniform in (-.5, .5) (Zhu et al., 2019)",
    "convnet64": "eight 3x3 convolutions with batch norm, 64 to 256 channels (Geiping et al., 2020)",
    "mlp": "flatten, then two ReLU layers of 1024 (64 at 224x224 and above)",
    "resnet20": "CIFAR ResNet of three stages of `blocks` (3) basic blocks, of this `width` (16)",
    "resnet20-4": "resnet20 at width 64, as in the paper's tables",
    "resnet32-10": "CIFAR ResNet of three stages of five basic blocks, width 160",
    **{name: f"torchvision's {name}, randomly initialised" for name in TORCHVISION_MODELS},
}
"""Model -> one line about it."""

MODEL_PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(MODELS, ()),
    "convnet64": ("width", "norm"),
    "mlp": ("hidden",),
    "resnet20": ("blocks", "width", "norm"),
    "resnet20-4": ("norm",),
    "resnet32-10": ("norm",),
}
"""Model -> the parameters that it takes."""


def check_dataset(name: str, parameters: Mapping[str, object]) -> None:
    """Raise `ConfigurationError` unless this dataset exists and takes these parameters with these types."""
    if name not in DATASETS:
        raise ConfigurationError(f"unknown dataset {name!r}; {suggest(name, DATASETS)}")
    _check_keys("dataset", name, parameters, DATASET_PARAMETERS[name])
    root, size = parameters.get("root"), parameters.get("size")
    if root is not None and not isinstance(root, str | os.PathLike):
        raise ConfigurationError(f"dataset {name}: root must be a path, got {root!r}")
    if not isinstance(parameters.get("download", False), bool):
        raise ConfigurationError(f"dataset {name}: download must be true or false")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ConfigurationError(f"dataset {name}: size must be a whole number of pixels, got {size!r}")


def check_model(name: str, parameters: Mapping[str, object]) -> None:
    """Raise `ConfigurationError` unless this model exists and takes these parameters with these types."""
    if name not in MODELS:
        raise ConfigurationError(f"unknown model {name!r}; {suggest(name, MODELS)}")
    _check_keys("model", name, parameters, MODEL_PARAMETERS[name])
    for key in ("blocks", "width"):
        if key in parameters and not _is_width(parameters[key]):
            raise ConfigurationError(f"model {name}: {key} must be at least 1, got {parameters[key]!r}")
    if parameters.get("norm", "batch") not in ("batch", "group"):
        raise ConfigurationError(f'model {name}: norm must be "batch" or "group", got {parameters["norm"]!r}')
    hidden = parameters.get("hidden")
    if hidden is not None and not (isinstance(hidden, list | tuple) and all(map(_is_width, hidden))):
        raise ConfigurationError(f"model {name}: hidden must be a list of widths, got {hidden!r}")


def _is_width(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_keys(kind: str, name: str, parameters: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in parameters:
        if key not in known:
            tail = suggest(key, known) if known else "it takes none"
            raise ConfigurationError(f"{kind} {name} has no parameter {key!r}; {tail}")
