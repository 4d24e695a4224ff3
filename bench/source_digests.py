"""Digests of source code that change with what the code does, not with how it reads or where it lies.

A file is the set of its top-level statements. Each is digested as a syntax tree without docstrings, comments, imports,
annotations of arguments and positions; a name that stands for a definition in the digested files carries that
definition's own digest. So files can be moved, renamed, merged and split, and an import that now takes another
definition of the same name is noticed. A shared room counts whole, so that a definition can move from one of its files
to another; a catalogue room, each file of which is a method, counts file by file.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

CODE_ROOT = Path(__file__).resolve().parent.parent
WINGS = ("attacks", "defenses")
"""The packages whose imports are followed: methods are made of them."""
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
        modules = {module for bound in _parsed(_text(file)).imports.values() for module in _homes(*bound)}
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
    defined = {file: _parsed(text).definitions for file, text in texts.items()}
    found: set[str] = set()
    for text in texts.values():
        source = _parsed(text)
        names = {name: f"{name}#{digest}" for name, digest in source.definitions.items()}
        members: dict[tuple[str, str], str] = {}
        modules: set[str] = set()
        for bound, (module, name) in source.imports.items():
            target = _file_of(module if name is None else f"{module}.{name}")
            if target is not None:
                modules.add(bound)
                members |= {(bound, name): f"{name}#{digest}" for name, digest in defined.get(target, {}).items()}
                continue
            home, own = _file_of(module), name or module
            digest = defined.get(home, {}).get(own) if home else None
            foreign = home is None and name is not None and not (CODE_ROOT / module.split(".")[0]).is_dir()
            names[bound] = f"{own}#{digest}" if digest else f"{module}.{own}" if foreign else own
        found |= _qualified(text, frozenset(names.items()), frozenset(modules), frozenset(members.items()))
    return sorted(found)


def code_digest(function: Callable[..., Any]) -> str:
    """The digest of one function or method, by the same rules; names in it stay as they are written."""
    return "".join(_parsed(textwrap.dedent(inspect.getsource(function))).definitions.values())


@dataclass(frozen=True)
class _Source:
    """A parsed file: its statements without prose, the digest of each name that it defines, and its imports.

    `imports` has, for every name that an import binds anywhere in the file, the module and the name in it, or None
    for the module itself; `methods` counts public classes that derive from Attack or Defense.
    """

    statements: tuple[ast.stmt, ...]
    definitions: Mapping[str, str]
    imports: Mapping[str, tuple[str, str | None]]
    methods: int


@cache
def _parsed(text: str) -> _Source:
    tree = ast.parse(text)
    imports: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            imports |= {alias.asname or alias.name: (alias.name, None) for alias in node.names}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    methods = sum(any(ast.unparse(b).rpartition(".")[2] in _METHODS for b in node.bases) for node in classes)
    bare = _Bare().visit(tree)
    statements = tuple(node for node in bare.body if not isinstance(node, ast.Pass))
    own: dict[str, list[str]] = {}
    for node in statements:
        for name in _defined(node):
            own.setdefault(name, []).append(_digest(node))
    return _Source(statements, {name: "".join(parts) for name, parts in own.items()}, imports, methods)


class _Bare(ast.NodeTransformer):
    """Takes out docstrings, imports, what is for type checkers alone, and annotations of arguments."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # pyright: ignore[reportAttributeAccessIssue]
        return node

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        prose = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if prose else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING") else self.generic_visit(node)

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
        self.local.append(set(_bound_in(node)))
        super().visit(node)
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


def _bound_in(scope: ast.AST) -> Iterator[str]:
    """Names that a function or comprehension binds itself."""
    for node in ast.walk(scope):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def _rest_of_room(file: Path) -> list[Path]:
    """The files beside one of a shared room; none for a method's file in a catalogue, or outside the wings."""
    if not file.is_relative_to(CODE_ROOT) or file.relative_to(CODE_ROOT).parts[0] not in WINGS:
        return []
    files = sorted(path for path in file.parent.glob("*.py") if path.name != "__init__.py")
    return [] if all(_parsed(_text(path)).methods == 1 for path in files) else files


def _homes(module: str, name: str | None) -> set[str]:
    """The modules behind one import; a module beside the wings is a public face, whose names are followed home."""
    found = {module} if name is None else {module, f"{module}.{name}"}
    if "." not in module and (CODE_ROOT / f"{module}.py").is_file():
        face = importlib.import_module(module)
        wanted = [name] if name is not None else list(getattr(face, "__all__", ()))
        # A type alias has no home, and nothing that could change a result.
        found |= {str(getattr(getattr(face, one, None), "__module__", "")) for one in wanted}
    return found


def _file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    path = CODE_ROOT / (module.replace(".", "/") + ".py")
    return path if path.is_file() else None


def _digest(node: ast.AST) -> str:
    return hashlib.sha256(ast.unparse(ast.fix_missing_locations(node)).encode()).hexdigest()[:16]


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
