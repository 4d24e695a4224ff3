"""The presets of the paper's claims can be planned without a network, a download or a GPU."""

import pytest

from bench.engines.run import prepare

UNTRAINED = 'grid.weights=["untrained"]'
TWENTY = ['grid.dataset="cifar10-samples"', "grid.images=20", UNTRAINED]


@pytest.mark.parametrize(
    ("preset", "overrides", "models", "attacked"),
    [
        ("paper-table1-small", [UNTRAINED], 2, 8),
        ("paper-architecture-small", [UNTRAINED], 3, 6),
        ("paper-fedavg-small", [], 1, 8),
        ("paper-resnet20-4-small", [], 1, 1),
        ("paper-imagenet-small", [], 1, 2),
        ("paper-table1", TWENTY, 2, 20),
        ("paper-fedavg", TWENTY, 1, 20),
        ("paper-architecture", [*TWENTY, "grid.client.mode=eval"], 7, 20),
    ],
)
def test_a_preset_is_planned_and_nothing_of_it_is_skipped(preset, overrides, models, attacked):
    plan = prepare(preset, overrides=overrides)[3]
    assert len({cell.setting.model for cell in plan.cells}) == models
    assert not [cell.skip for cell in plan.cells if cell.skip]
    assert {block.stop for block in plan.blocks()} == {attacked}
