"""Pruning keeps the largest entries, by the stated rules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defenses.compression.gradient_pruning import GradientPruning

RNG = torch.Generator()


def prune(update, **parameters):
    return GradientPruning(**parameters).transform(None, update, RNG)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_exactly_the_floor_of_the_ratio_is_removed(ratio):
    update = {"w": torch.randn(10, 100, generator=torch.Generator().manual_seed(0))}
    pruned = prune(update, ratio=ratio)["w"]
    removed = round(ratio * 1000)
    assert int((pruned == 0).sum()) == removed
    kept = pruned[pruned != 0].abs()
    assert removed == 0 or kept.min() >= update["w"].abs().flatten().sort().values[removed - 1]


def test_kept_entries_are_sent_unchanged():
    update = {"w": torch.tensor([3.0, -4.0, 1.0, 0.5])}
    assert prune(update, ratio=0.5)["w"].tolist() == [3.0, -4.0, 0.0, 0.0]


def test_at_least_one_entry_of_a_layer_is_kept():
    assert prune({"b": torch.tensor([1.0, -2.0])}, ratio=0.999)["b"].tolist() == [0.0, -2.0]


def test_among_ties_the_earlier_entry_is_kept():
    update = {"a": torch.ones(2), "b": torch.ones(2)}
    assert prune({"w": torch.ones(4)}, ratio=0.5)["w"].tolist() == [1, 1, 0, 0]
    pruned = prune(update, ratio=0.75, scope="model")
    assert (pruned["a"].tolist(), pruned["b"].tolist()) == ([1, 0], [0, 0])


def test_model_scope_compares_entries_of_different_tensors():
    update = {"small": torch.full((4,), 0.1), "large": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    pruned = prune(update, ratio=0.5, scope="model")
    assert pruned["small"].count_nonzero() == 0
    assert torch.equal(pruned["large"], update["large"])


def test_a_decimal_ratio_is_not_short_by_binary_rounding():
    assert int((prune({"w": torch.arange(1.0, 11)}, ratio=0.9)["w"] != 0).sum()) == 1


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_ratios_outside_the_range_are_refused(ratio):
    with pytest.raises(ValueError, match="ratio must lie in"):
        GradientPruning(ratio=ratio)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    entries=st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=30),
    ratio=st.floats(0, 0.99),
)
def test_the_largest_entries_are_kept_and_of_equal_ones_the_first(entries, ratio):
    """By sorting them all, stably."""
    found = GradientPruning(ratio)._kept(torch.tensor(entries))
    order = sorted(range(len(entries)), key=lambda i: -abs(entries[i]))
    kept = set(order[: int(found.sum())])
    assert found.tolist() == [float(i in kept) for i in range(len(entries))]
