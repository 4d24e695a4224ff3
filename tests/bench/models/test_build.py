import pytest
import torch
from torch import nn

from bench.errors import ConfigurationError
from bench.models.build import build_model, untrained
from bench.models.catalogue import MODEL_PARAMETERS, MODELS, TORCHVISION_MODELS

HALF = {1: ((0.5,), (0.5,)), 3: ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))}
OWN = [name for name in MODELS if name not in TORCHVISION_MODELS]
SMALL = {"resnet20": {"width": 4}, "convnet64": {"width": 4}, "mlp": {"hidden": [8]}}


def make(name, parameters=None, shape=(3, 32, 32), classes=10, seed=0):
    mean, std = HALF[shape[0]]
    return untrained(name, parameters or {}, input_shape=shape, classes=classes, mean=mean, std=std, seed=seed)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_the_catalogue_agrees_with_the_loaders():
    from torchvision import models

    assert MODEL_PARAMETERS.keys() == MODELS.keys()
    # A newer torchvision may have more; a model that the catalogue lists must be there.
    assert set(TORCHVISION_MODELS) <= set(models.list_models(module=models))
    assert len(OWN) == 6


@pytest.mark.parametrize(
    ("name", "parameters", "parameter_count"),
    [
        ("lenet-zhu", {}, 15_826),
        ("mlp", {}, 4_206_602),
        ("mlp", {"hidden": []}, 30_730),
        ("resnet20", {}, 272_474),
        ("resnet20-4", {}, 4_327_754),
        ("convnet64", {}, 2_904_970),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, parameters, parameter_count):
    assert count(make(name, parameters)) == parameter_count


def test_resnet32_10_has_three_stages_of_five_blocks_and_width_160():
    model = make("resnet32-10")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [len(convolutions), convolutions[0].out_channels, convolutions[-1].out_channels] == [31, 160, 640]


@pytest.mark.parametrize("name", ["lenet-zhu", "convnet64", "mlp", "resnet20"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 224, 224), (3, 17, 40)])
def test_widths_follow_the_input_shape(name, shape):
    logits = make(name, SMALL.get(name), shape, classes=7)(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_mlp_is_narrow_at_224_pixels():
    model = make("mlp", shape=(3, 224, 224))
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [64, 64, 10]


def test_lenet_weights_and_biases_are_uniform_within_a_half():
    values = torch.cat([p.flatten() for p in make("lenet-zhu").parameters()])
    assert -0.5 <= values.min() < -0.499
    assert 0.499 < values.max() <= 0.5
    assert values.std().item() == pytest.approx(12**-0.5, rel=0.02)


def test_the_first_layer_normalises_and_the_model_is_in_eval_mode():
    model = make("mlp", {"hidden": []})
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), model.network((images - 0.5) / 0.25))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["lenet-zhu", "resnet20", "squeezenet1_1"])
def test_weights_follow_the_seed_and_leave_the_global_generator_alone(name):
    shape = (3, 32, 32)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = make(name, shape=shape), make(name, shape=shape), make(name, shape=shape, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = [(p, q, r) for p, q, r in zip(*(m.parameters() for m in (first, again, other)), strict=True)]
    assert all(torch.equal(p, q) for p, q, _ in pairs)
    assert not all(torch.equal(p, r) for p, _, r in pairs)


@pytest.mark.parametrize("name", ["convnet64", "resnet20"])
def test_group_norm_is_the_replacement_that_opacus_would_make(name):
    from opacus.validators import ModuleValidator

    grouped = make(name, {**SMALL[name], "norm": "group"})
    fixed = ModuleValidator.fix(make(name, SMALL[name]))
    assert repr(grouped) == repr(fixed)
    assert not ModuleValidator.validate(grouped.train())


def test_a_gradient_reaches_every_parameter_of_a_torchvision_network():
    model = make("squeezenet1_1", shape=(3, 64, 64))
    gradients = torch.autograd.grad(model(torch.rand(1, 3, 64, 64)).square().sum(), list(model.parameters()))
    assert len(gradients) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("lenet_zhu", {}, "did you mean 'lenet-zhu'"),
        ("resnet20", {"widht": 8}, "did you mean 'width'"),
        ("resnet20", {"width": 0}, "width must be"),
        ("resnet20", {"norm": "layer"}, '"batch" or "group"'),
        ("mlp", {"hidden": 64}, "list of widths"),
        ("lenet-zhu", {"width": 3}, "it takes none"),
        ("resnet18", {"pretrained": True}, "it takes none"),
        ("alexnet", {}, "cannot take images of 32x32 with 3 channels"),
    ],
)
def test_wrong_names_parameters_and_shapes_are_refused(name, parameters, message):
    with pytest.raises(ConfigurationError, match=message):
        make(name, parameters)


def test_channels_must_agree_with_the_statistics_and_the_network():
    with pytest.raises(ConfigurationError, match="3 channels"):
        make("squeezenet1_1", shape=(1, 64, 64))
    with pytest.raises(ConfigurationError, match="one entry for each of the 1 channels"):
        build_model("mlp", {}, input_shape=(1, 8, 8), classes=10, mean=HALF[3][0], std=HALF[3][1])
