"""The names of the datasets and models, and their parameters; torch-free, so that listing them is quick."""

from __future__ import annotations

from collections.abc import Mapping

from bench.data.catalogue import _check_keys
from bench.errors import ConfigurationError, suggest

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
