"""Digests of source code that change with what the code does, not with how it reads or where it lies.

A file of ours is the set of its top-level definitions, and its other statements in order. Each is digested as a syntax
tree without docstrings, comments, imports, annotations of arguments and positions; a name that stands for a definition
in the digested files carries the digest of that definition's text. So files can be moved, renamed, merged and split,
and an import that now takes another definition of the same name is noticed. A shared room counts whole, so that a
definition can move from one of its files to another; a catalogue room, each file of which is a method, counts file by
file. A plugin's file counts as one, with its imports: nobody moves its definitions for the sake of order.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

CODE_ROOT = Path(__file__).resolve().parent.parent
WINGS = ("attacks", "defenses")
"""The packages whose imports are followed: methods are made of them."""
OURS = (*WINGS, "bench", "leaderboards", "tools")
"""Our packages by name: beside an installed Leakboard lie the folders of everybody else's."""
FACE = "leakboard"
"""The module that lends names of ours to plugins: they are followed to where they are defined."""
_Import = tuple[str, str | None]
"""A module and the name in it, or None for the module itself."""
_METHODS = ("Attack", "Defense")
"""The base classes of methods."""
_SCOPES = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


def closure(source: Path) -> frozenset[Path]:
    """The file of a method and all code of the wings that it imports, directly or not, shared rooms whole."""
    seen: set[Path] = set()
    waiting = [source.resolve()]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        taken = (one for several in _parsed(_text(file)).imports.values() for one in several)
        modules = {module for one in taken for module in _homes(*one)}
        paths = [_file_of(module) for module in modules if module.split(".")[0] in WINGS]
        waiting += [path for path in paths if path is not None]
        waiting += _rest_of_room(file)
    return frozenset(seen)


def room(module: ModuleType) -> frozenset[Path]:
    """All files of the folder in which a module lies."""
    return frozenset(Path(str(module.__file__)).parent.glob("*.py"))


def file(module: ModuleType) -> frozenset[Path]:
    """The file of a module, as a set of one."""
    return frozenset([Path(str(module.__file__))])


def digests(files: Iterable[Path]) -> list[str]:
    """The digest of every top-level statement of the files, without duplicates, sorted."""
    texts = {file: _text(file) for file in files}
    defined = {file: _parsed(text).definitions for file, text in texts.items() if _is_ours(file)}
    found: set[str] = set()
    for file, text in texts.items():
        if file not in defined:
            found.add(_parsed(text).whole)
            continue
        source = _parsed(text)
        names = {name: f"{name}#{digest}" for name, digest in source.definitions.items()}
        members: dict[tuple[str, str], str] = {}
        modules: set[str] = set()
        for bound, several in source.imports.items():
            targets = [_file_of(module if name is None else f"{module}.{name}") for module, name in several]
            if any(targets):
                modules.add(bound)
                for target in filter(None, targets):
                    own = defined.get(target, {})
                    members |= {(bound, name): f"{name}#{digest}" for name, digest in own.items()}
            else:
                names[bound] = " or ".join(sorted(_meaning(*one, defined) for one in several))
        found |= _qualified(text, frozenset(names.items()), frozenset(modules), frozenset(members.items()))
    return sorted(found)


def _meaning(module: str, name: str | None, defined: Mapping[Path, Mapping[str, str]]) -> str:
    """The name that stands for an imported one: with the digest of a definition of ours, or with a foreign module."""
    own = name or module
    if module.split(".")[0] not in (*OURS, FACE):
        return module if name is None else f"{module}.{name}"
    home = _file_of(module)
    digest = defined.get(home, {}).get(own) if home else None
    return f"{own}#{digest}" if digest else own


def code_digest(function: Callable[..., Any]) -> str:
    """The digest of one function or method, by the same rules; names in it stay as they are written."""
    return "".join(_parsed(textwrap.dedent(inspect.getsource(function))).definitions.values())


@dataclass(frozen=True)
class _Source:
    """A parsed file."""

    statements: tuple[ast.AST, ...]
    """The definitions without prose and, as one, all other statements in their order."""
    definitions: Mapping[str, str]
    """The digest of the text behind each name that the file defines."""
    imports: Mapping[str, frozenset[_Import]]
    """Every import that binds a name, anywhere in the file: several where functions or branches differ."""
    methods: int
    """Public classes that derive from Attack or Defense."""
    whole: str
    """The digest of all statements in order, imports included."""


@cache
def _parsed(text: str) -> _Source:
    tree = ast.parse(text)
    imports: dict[str, set[_Import]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                imports.setdefault(alias.asname or alias.name, set()).add((node.module, alias.name))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                imports.setdefault(alias.asname or alias.name, set()).add((alias.name, None))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    methods = sum(any(ast.unparse(b).rpartition(".")[2] in _METHODS for b in node.bases) for node in classes)
    whole = _digest(_Bare(with_imports=True).visit(copy.deepcopy(tree)))
    statements = [node for node in _Bare().visit(tree).body if not isinstance(node, ast.Pass)]
    own: dict[str, list[str]] = {}
    for node in statements:
        for name in _defined(node):
            own.setdefault(name, []).append(_digest(node))
    definitions = [node for node in statements if _defined(node)]
    others = [node for node in statements if not _defined(node)]
    return _Source(
        (*definitions, *([ast.Module(others, [])] if others else [])),
        {name: "".join(parts) for name, parts in own.items()},
        {name: frozenset(several) for name, several in imports.items()},
        methods,
        whole,
    )


class _Bare(ast.NodeTransformer):
    """Takes out docstrings, imports, code for type checkers alone, and annotations of arguments."""

    def __init__(self, with_imports: bool = False) -> None:
        self.with_imports = with_imports

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # pyright: ignore[reportAttributeAccessIssue]
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        return node if self.with_imports else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return node if self.with_imports else None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        prose = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if prose else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> Any:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return self.generic_visit(node)
        return [kept for one in node.orelse if (kept := self.visit(one)) is not None]

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


@cache
def _qualified(
    text: str,
    names: frozenset[tuple[str, str]],
    modules: frozenset[str],
    members: frozenset[tuple[tuple[str, str], str]],
) -> frozenset[str]:
    """The digests of a file's statements, given what its names, and the members of modules that it imports, stand for.

    Most files mean the same in the code of every method: they are digested once.
    """
    qualified = _Qualified(dict(names), modules, dict(members))
    return frozenset(_digest(qualified.visit(copy.deepcopy(node))) for node in _parsed(text).statements)


class _Qualified(ast.NodeTransformer):
    """Turns names of the file's own definitions and of its imports into the definitions that they stand for."""

    def __init__(
        self, names: Mapping[str, str], modules: frozenset[str], members: Mapping[tuple[str, str], str]
    ) -> None:
        self.names, self.modules, self.members = names, modules, members
        self.local: list[set[str]] = []

    def visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, _SCOPES):
            return super().visit(node)
        # Decorators, defaults and the first iterable of a comprehension are read outside the scope that they belong to.
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.decorator_list = [self.visit(one) for one in node.decorator_list]  # pyright: ignore
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            node.args = self.visit(node.args)  # pyright: ignore[reportAttributeAccessIssue]
            inside = ("body",)
        else:
            node.generators[0].iter = self.visit(node.generators[0].iter)  # pyright: ignore[reportAttributeAccessIssue]
            inside = ("elt", "key", "value", "generators")
        self.local.append(_bound_in(node))
        for field in inside:
            child = getattr(node, field, None)
            if isinstance(child, list):
                setattr(node, field, [self.visit(one) for one in child])
            elif child is not None:
                setattr(node, field, self.visit(child))
        self.local.pop()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)  # pyright: ignore[reportAttributeAccessIssue]
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if isinstance(node.ctx, ast.Load) and not self._is_local(node.id):
            node.id = self.names.get(node.id, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        module = node.value
        if isinstance(module, ast.Name) and module.id in self.modules and not self._is_local(module.id):
            # A module that moves may lend its members under another handle: only the member counts.
            return ast.Name(self.members.get((module.id, node.attr), node.attr), node.ctx)
        return self.generic_visit(node)

    def _is_local(self, name: str) -> bool:
        return any(name in names for names in self.local)


def _bound_in(scope: ast.AST) -> set[str]:
    """Names that a function or comprehension binds itself, without those of scopes inside it."""
    bound: set[str] = set()
    free: set[str] = set()
    waiting: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            free.update(node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.ExceptHandler):
            bound.add(node.name or "")
        if not isinstance(node, (*_SCOPES, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)
        elif not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            # A walrus in a comprehension binds in the scope around it.
            bound |= {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
    return bound - free


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def _is_ours(file: Path) -> bool:
    """True for the files of our packages; a plugin that is installed beside them is none of ours."""
    return file.is_relative_to(CODE_ROOT) and file.relative_to(CODE_ROOT).parts[0] in OURS


def _rest_of_room(file: Path) -> list[Path]:
    """The files beside one of a shared room; none for a method's file in a catalogue, or outside the wings."""
    if not _is_ours(file) or file.relative_to(CODE_ROOT).parts[0] not in WINGS:
        return []
    files = sorted(path for path in file.parent.glob("*.py") if path.name != "__init__.py")
    return [] if all(_parsed(_text(path)).methods == 1 for path in files) else files


def _homes(module: str, name: str | None) -> set[str]:
    """The modules behind one import; names of the public face are followed to where they are defined."""
    found = {module} if name is None else {module, f"{module}.{name}"}
    if module == FACE:
        face = importlib.import_module(module)
        wanted = face.__all__ if name in (None, "*") else [name]
        # A type alias has no home, and nothing that could change a result.
        found |= {str(getattr(getattr(face, one, None), "__module__", "")) for one in wanted}
    return found


def _file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    path = CODE_ROOT / (module.replace(".", "/") + ".py")
    return path if module.split(".")[0] in OURS and path.is_file() else None


def _digest(node: ast.AST) -> str:
    return hashlib.sha256(ast.unparse(ast.fix_missing_locations(node)).encode()).hexdigest()[:16]


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8-sig")
