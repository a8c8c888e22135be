"""Python files taken apart: what each top-level name of a module is bound by, and imports."""

import ast
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

OWN = Path(__file__).resolve().parents[3]  # the checkout, or deq_fusion where it is installed
PYTHON = Path(os.path.realpath(ast.__file__)).parent
INSTALLED = {"site-packages", "dist-packages"}
NAMES = "__module__", "__name__", "__qualname__", "__doc__"  # that no result depends on
DEFINITIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef


@dataclass(frozen=True)
class Imported:
    """The target of an import: a module, or `name` in it."""

    module: str
    name: str | None = None


@dataclass
class Module:
    """A file of the project, without its comments and docstrings.

    Attributes:
        path: the file.
        package: what its relative imports start from.
        bindings: top-level name -> the statements that bind it.
        imports: name -> what an import binds it to; of `*`, the modules it comes from.
        effects: statements that do something else than bind names.
    """

    path: Path
    package: str
    tree: ast.Module
    bindings: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, Imported] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    effects: list[ast.stmt] = field(default_factory=list)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if hasattr(node, "body") and isinstance(node.body, list):
                node.body = [s for s in node.body if not _is_constant(s)] or [ast.Pass()]
        for statement in self.tree.body:
            if not _is_program(statement):
                self._add(statement)

    def _add(self, statement: ast.stmt) -> None:
        found = self.imported([statement], inside=False)
        self.imports |= found
        names = set(_bound(statement))
        for name in names:
            self.bindings.setdefault(name, []).append(statement)
        if not names and not found or any(map(_acts, _at_once(statement))):
            self.effects.append(statement)

    def imported(self, statements: Iterable[ast.stmt], *, inside: bool) -> dict[str, Imported]:
        """Returns what imports among the statements bind; `inside`, those of functions too."""
        found = {}
        walked = (n for s in statements for n in (ast.walk(s) if inside else _at_once(s)))
        for node in walked:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = Imported(alias.name if alias.asname else top)
            elif isinstance(node, ast.ImportFrom):
                module = self.absolute(node)
                for alias in node.names:
                    if alias.name == "*":
                        self.stars.append(module)
                    else:
                        found[alias.asname or alias.name] = Imported(module, alias.name)
        return found

    def absolute(self, node: ast.ImportFrom) -> str:
        """Returns the name of the module that is imported from."""
        if not node.level:
            return node.module or ""
        parts = self.package.split(".")
        base = parts[: len(parts) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])

    @cached_property
    def spans(self) -> list[tuple[int, int, str]]:
        """The first and last line of every statement, and a name it binds; "" of the others."""
        named = {id(s): name for name, bound in self.bindings.items() for s in bound}
        return [(_first_line(s), s.end_lineno, named.get(id(s), "")) for s in self.tree.body
                if hasattr(s, "lineno")]  # fmt: skip

    def at(self, line: int) -> str:
        """Returns a name that the statement at this line binds; "" if none."""
        return next((name for first, last, name in self.spans if first <= line <= last), "")

    def functions_at(self, line: int, name: str) -> list[ast.AST]:
        """Returns the functions that begin at this line; a lambda's name is <lambda>."""
        kinds = (ast.Lambda,) if name == "<lambda>" else DEFINITIONS
        starts = (n for n in ast.walk(self.tree) if isinstance(n, kinds))
        return [n for n in starts if _first_line(n) == line]


def project_module(name: str) -> Module | None:
    """Returns the module of this name if it is the project's: no library's, nor Python's own."""
    if name != "__main__" and name.partition(".")[0] in sys.stdlib_module_names:
        return None
    there = sys.modules.get(name)
    if there is not None:
        file, package = getattr(there, "__file__", None), getattr(there, "__package__", "")
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        file, package = (spec.origin, spec.parent) if spec is not None else (None, "")
    return None if file is None else project_file(file, package or "")


def project_file(file: str, package: str) -> Module | None:
    """Returns the module of this file if it is a Python file of the project."""
    if not file.endswith(".py") or not os.path.isfile(file):
        return None
    path = Path(os.path.realpath(file))
    own = path.is_relative_to(OWN)
    inside = path.relative_to(OWN).parts if own else path.parts
    if INSTALLED & set(inside) or (not own and path.is_relative_to(PYTHON)):
        return None
    stat = path.stat()
    return _parsed(path, package, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1000)
def _parsed(path: Path, package: str, changed: int, size: int) -> Module:
    return Module(path, package, ast.parse(path.read_bytes(), str(path)))


def _is_constant(statement: ast.AST) -> bool:
    """Says whether it is a docstring, wherever one may stand."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_program(statement: ast.stmt) -> bool:
    """Says whether it runs only in the module that is started, if __name__ == "__main__"."""
    return (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.Compare)
        and isinstance(statement.test.left, ast.Name)
        and statement.test.left.id == "__name__"
    )


def _at_once(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes that are reached when the module is imported, definitions unopened."""
    yield node
    if not isinstance(node, (*DEFINITIONS, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from _at_once(child)


def _bound(statement: ast.stmt) -> Iterator[str]:
    for node in _at_once(statement):
        if isinstance(node, DEFINITIONS):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _acts(node: ast.AST) -> bool:
    """Says whether it calls for an effect, or writes into what another name holds."""
    into = isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load)
    into = into and getattr(node, "attr", None) not in NAMES
    return into or (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant))


def _first_line(node: ast.AST) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])
