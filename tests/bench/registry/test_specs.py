import pytest

from bench.errors import ConfigurationError
from bench.registry.specs import MethodSpec, chain_label, expand, parse


def test_a_name_a_call_and_a_table_say_the_same():
    wanted = [("norm_clipping", {"clip_norm": 1.0})]
    assert parse("norm_clipping(clip_norm=1.0)") == wanted
    assert parse({"name": "norm_clipping", "clip_norm": 1.0}) == wanted
    assert parse(" none ") == [("none", {})]
    assert parse("resnet32-10") == [("resnet32-10", {})]


def test_a_chain_keeps_its_order_and_quoted_bars():
    chain = parse("a(mode='x|y') |\n b(std=-0.01) | c")
    assert chain == [("a", {"mode": "x|y"}), ("b", {"std": -0.01}), ("c", {})]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a(x=__import__('os').getcwd())", "not a plain value"),
        ("a(x=b)", "not a plain value"),
        ("a(1.0)", "has no name"),
        ("a(**{'x': 1})", "** is not allowed"),
        ("a(x=1, x=2)", "given twice"),
        ("a + b", "cannot read"),
        ("a(", "cannot read"),
        ("", "cannot read"),
        ("a | ", "cannot read"),
        (3, "got 3"),
        ({"ratio": 1}, "needs a name"),
    ],
)
def test_what_is_no_method_is_refused_with_a_reason(text: object, part: str):
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert part in str(caught.value)


def test_lists_expand_to_their_product_with_the_axis_written_first_slowest():
    specs = expand(("m", {"z": [1, 2], "a": ["p", "q"], "c": 0}))
    assert [(s.parameters["z"], s.parameters["a"]) for s in specs] == [(1, "p"), (1, "q"), (2, "p"), (2, "q")]


def test_a_list_is_one_value_of_a_sequence_and_a_list_of_lists_its_axis():
    assert [s.parameters["k"] for s in expand(("m", {"k": [1, 2]}), {"k"})] == [(1, 2)]
    assert [s.parameters["k"] for s in expand(("m", {"k": [[1, 2], [3]]}), {"k"})] == [(1, 2), (3,)]


def test_exact_duplicates_are_dropped_but_one_and_true_differ():
    values = [s.parameters["x"] for s in expand(("m", {"x": [1, 2, 1, True, 1.0]}))]
    assert [repr(value) for value in values] == ["1", "2", "True", "1.0"]


@pytest.mark.parametrize(("value", "part"), [([], "empty list"), (float("nan"), "finite"), ({"a": 1}, "got")])
def test_a_value_that_no_parameter_can_have_is_refused(value: object, part: str):
    with pytest.raises(ConfigurationError, match=part):
        expand(("m", {"x": value}))


def test_a_label_shows_what_differs_from_the_defaults_and_the_canonical_form_everything():
    spec = MethodSpec.of("m", {"b": 2.0, "a": "it", "c": [1, 2]}, {"b": 2.0, "c": [3]})
    assert spec.label == "m(a='it', c=[1, 2])"
    assert spec.canonical == {"name": "m", "parameters": {"a": "it", "b": 2.0, "c": [1, 2]}}
    assert MethodSpec.of("m", {"b": 2.0}, {"b": 2.0}).label == "m"
    assert chain_label((spec, MethodSpec("none"))) == "m(a='it', c=[1, 2]) | none"


def test_a_spec_is_its_name_and_parameters_whatever_the_order_or_the_defaults():
    one, other = MethodSpec.of("m", {"a": 1, "b": 2}), MethodSpec.of("m", {"b": 2, "a": 1}, {"a": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert one != MethodSpec.of("m", {"a": 1, "b": 3})


@pytest.mark.parametrize("value", [None, True, -1, 1e-05, "a'b\"|\\", (1, 2), ((1, 2), (3, 4)), ("x",)])
def test_a_call_reads_back_as_the_same_spec(value: object):
    spec = MethodSpec.of("m", {"x": value})
    [call] = parse(spec.call)
    assert expand(call, {"x"} if isinstance(value, tuple) else set()) == [spec]
