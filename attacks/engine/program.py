"""One step of an attack as a program: a graph of tensor operations without torch.func's cost for each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from attacks.engine.second_derivatives import CheapSecondDerivatives


class Program:
    """The operations that `function` runs on arguments of the example's shapes, nested in tuples and dicts.

    Whatever else the function reads is a constant from now on, so it has to be pure. What it computes twice is computed
    once, unless it `recomputes` on purpose, to save memory; what follows from the argument number `fixed` alone is
    computed when that argument is a new one, and not again. Nothing is computed here.
    """

    def __init__(
        self, function: Callable[..., Any], example: tuple[Any, ...], *, fixed: int, recomputes: bool = False
    ) -> None:
        leaves, spec = tree_flatten(example)
        self._returned: TreeSpec | None = None

        def flat(*tensors: Tensor) -> list[Tensor]:
            results, self._returned = tree_flatten(function(*tree_unflatten(list(tensors), spec)))
            return results

        with CheapSecondDerivatives():
            whole = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*leaves)
        whole.graph.eliminate_dead_code()
        pure = not any(_is_in_place(node) for node in whole.graph.nodes)
        graph = _shared(whole) if pure and not recomputes else whole.graph
        first = len(tree_leaves(example[:fixed]))
        self._fixed = slice(first, first + len(tree_leaves(example[fixed])))
        before, after = _parted(graph, self._fixed) if pure else (None, graph)
        self._before = None if before is None else GraphModule(whole, before)
        self.graph_module = GraphModule(whole, after)
        self.run: Callable[..., Any] = self.graph_module
        """Takes what `flat` returns, and gives flat results; a compiled equal may take its place."""
        self._shapes = [(tuple(t.shape), str(t.dtype), str(t.device)) for t in leaves]
        self._latest: list[Tensor] | None = None
        self._known: list[Tensor] = []

    def __call__(self, *arguments: Any) -> Any:
        assert self._returned is not None, "traced when it was made"
        return tree_unflatten(list(self.run(*self.flat(arguments))), self._returned)

    def flat(self, arguments: tuple[Any, ...]) -> list[Tensor]:
        """The tensors that `run` takes for these arguments: theirs, and what follows from the fixed one."""
        leaves = tree_leaves(arguments)
        if self._before is None:
            return leaves
        fixed = leaves[self._fixed]
        latest = self._latest
        if latest is None or any(a is not b for a, b in zip(fixed, latest, strict=True)):
            self._known, self._latest = list(self._before(*fixed)), fixed
        return [*leaves, *self._known]

    @property
    def operations(self) -> int:
        return len(self.graph_module.graph.nodes)

    @property
    def digest(self) -> str:
        """16 digits of the operations, the shapes and the version of torch."""
        return hashlib.sha256(f"{torch.__version__}{self.graph_module.code}{self._shapes}".encode()).hexdigest()[:16]

    @property
    def peak_bytes(self) -> int:
        """The most bytes that live at once, beside arguments and constants, when one operation follows the other.

        What an operation needs inside, such as a copy in another layout, is not among them.
        """
        nodes = list(self.graph_module.graph.nodes)
        owner: dict[Node, Node] = {}
        last: dict[Node, int] = {}
        for i, node in enumerate(nodes):
            owner[node] = owner[node.all_input_nodes[0]] if _is_view(node) else node
            last |= dict.fromkeys((owner[used] for used in (node, *node.all_input_nodes)), i)
        held = peak = 0
        ending: dict[int, int] = {}
        for i, node in enumerate(nodes):
            if owner[node] is node and node.op == "call_function":
                size = _bytes(node.meta.get("val"))
                held += size
                ending[last[node]] = ending.get(last[node], 0) + size
            peak = max(peak, held)
            held -= ending.get(i, 0)
        return peak


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, with the same operations as its program."""

    def run(*arguments: Any) -> Any:
        with CheapSecondDerivatives():
            return function(*arguments)

    return run


def _shared(whole: GraphModule) -> Graph:
    """The graph with every pure operation on the same arguments, and every constant, once."""
    shared = Graph()
    copies: dict[Node, Node] = {}
    seen: dict[Any, Node] = {}
    for node in whole.graph.nodes:
        key = None
        if node.op == "call_function" and not _is_random(node):
            key = (node.target, _hashable(map_arg((node.args, node.kwargs), lambda n: copies[n])))
        elif node.op == "get_attr":
            key = id(getattr(whole, str(node.target)))
        if key is None or key not in seen:
            copies[node] = shared.node_copy(node, lambda n: copies[n])
            if key is not None:
                seen[key] = copies[node]
        else:
            copies[node] = seen[key]
    shared.eliminate_dead_code()
    return shared


def _parted(graph: Graph, fixed: slice) -> tuple[Graph, Graph]:
    """The part that follows from fixed inputs and constants alone, and the rest, which takes its results as inputs.

    Constants are handed over too: programs that differ in nothing but weights are one program to a compiler.
    """
    nodes = list(graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    given = set(inputs[fixed])
    early = set(given)
    for node in nodes:
        pure = node.op == "call_function" and not _is_random(node)
        if node.op == "get_attr" or (pure and node.all_input_nodes and early.issuperset(node.all_input_nodes)):
            early.add(node)
    handed = [
        node
        for node in nodes
        if node in early and node.op != "placeholder" and any(user not in early for user in node.users)
    ]
    before, after = Graph(), Graph()
    copies: dict[Node, Node] = {}
    for node in nodes:
        if node in early:
            copies[node] = before.node_copy(node, lambda n: copies[n])
    before.output(tuple(copies[node] for node in handed))
    before.eliminate_dead_code()
    copies = {node: after.node_copy(node) for node in inputs}
    for i, node in enumerate(handed):
        copies[node] = after.placeholder(f"known_{i}")
        copies[node].meta = dict(node.meta)
    for node in nodes:
        if node not in early and node not in copies:
            copies[node] = after.node_copy(node, lambda n: copies[n])
    after.eliminate_dead_code()
    return before, after


def _hashable(value: Any) -> Any:
    """Equal for equal arguments; 1, 1.0 and True differ."""
    if isinstance(value, list | tuple):
        return tuple(_hashable(v) for v in value)
    if isinstance(value, dict):
        return tuple((key, _hashable(v)) for key, v in value.items())
    return value if isinstance(value, Node) else (type(value).__name__, str(value))


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _is_in_place(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _is_view(node: Node) -> bool:
    """True if the result lies in the memory of the first input."""
    if node.op != "call_function" or not node.all_input_nodes:
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return True  # an item of a tuple of results
    if node.target is torch.ops.aten._unsafe_view.default:
        return True
    return any(r.alias_info is not None for r in node.target._schema.returns)


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(_bytes(v) for v in value) if isinstance(value, list | tuple) else 0
