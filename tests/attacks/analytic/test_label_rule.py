import pytest

from leakboard import run

GRID = """
[grid]
dataset = "mnist-samples"
models = ["lenet-zhu"]
images = 4
attacks = ["label_rule", "linear_layer(iterations=1)"]
defenses = ["none", "zeros"]
controls = false
threat = {{ labels = "{labels}" }}
"""


@pytest.mark.parametrize("labels", ["known", "recovered"])
def test_the_label_rule_is_scored_on_its_own_labels_also_where_they_are_granted(tmp_path, labels):
    path = tmp_path / "grid.toml"
    path.write_text(GRID.format(labels=labels))
    rows = run(path, output=tmp_path / "run").frame().set_index(["attack_name", "defense"])
    own = rows.loc["label_rule"]
    assert own.loc["none", "label_accuracy"].tolist() == [1.0] * 4
    # Of an update of zeros the rule says class 0.
    said = (own.loc["zeros", "true_label"] == 0).astype(float)
    assert own.loc["zeros", "label_accuracy"].tolist() == said.tolist()
    assert rows.loc["linear_layer"].loc["none", "label_accuracy"].isna().all() == (labels == "known")
