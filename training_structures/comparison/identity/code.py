"""Digests of code, a definition at a time: what it says, and all that it uses of the project.

A definition is what binds a top-level name of a module. It uses other definitions, through
imports too, and the whole of them is a graph whose edges are the names used. The digest of a
graph is that of its definitions in the order in which they are met, and of the edges by number:
no file or module enters by its name, so that moving one changes nothing. What libraries hold
enters by its name, for their versions are compared apart. Annotations are read, not followed.
It is the text of files that counts: what a program puts into a module as it runs is not seen.
"""

import ast
import copy
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .modules import OWN, Imported, Module, project_file, project_module

WHOLE = "*"  # a module that is used as a value, all of it
EFFECTS = ""  # what a module does besides binding names

Key = tuple[Path, str]
Target = tuple[Module, str] | str
"""A definition that a name leads to, or a library's, by its name."""


@dataclass(frozen=True)
class Definition:
    """The statements that bind a name: a digest of their text, and where the names in it lead."""

    module: Module
    text: bytes
    uses: dict[str, Target]


class Code:
    """Digests of definitions; every file is read once, and every definition."""

    def __init__(self) -> None:
        self._modules: dict[str, Module | None] = {}
        self._files: dict[str, Module | None] = {}
        self._known: dict[Key, Definition] = {}
        self._digests: dict[Key, bytes] = {}
        self.files: dict[Key, dict[str, set[bytes]]] = {}

    def module(self, name: str) -> Module | None:
        """Returns the module of this name if it is the project's."""
        if name not in self._modules:
            self._modules[name] = project_module(name)
        return self._modules[name]

    def file(self, path: str, package: str) -> Module | None:
        """Returns the module of this file if it is the project's."""
        if path not in self._files:
            self._files[path] = project_file(path, package)
        return self._files[path]

    def digest(self, module: Module, name: str) -> bytes:
        """Returns the digest of a definition and of all that it uses.

        What it consists of is then in `files`: file -> digests of the definitions there.
        """
        root = module.path, name
        if root not in self._digests:
            self._digests[root] = self._graph(module, name)
        return self._digests[root]

    def _graph(self, module: Module, name: str) -> bytes:
        total, files = hashlib.sha256(), self.files.setdefault((module.path, name), {})
        numbers = {(module.path, name): 0}
        queue = deque([(module, name)])
        while queue:
            found = self._definition(*queue.popleft())
            total.update(found.text)
            files.setdefault(_shown(found.module.path), set()).add(found.text)
            for slot, target in sorted(found.uses.items()):
                if not isinstance(target, str):
                    key = target[0].path, target[1]
                    if key not in numbers:
                        numbers[key] = len(numbers)
                        queue.append(target)
                    target = str(numbers[key])
                total.update(f"{slot}\0{target}\0".encode())
        return total.digest()

    def _definition(self, module: Module, name: str) -> Definition:
        key = module.path, name
        if key not in self._known:
            self._known[key] = self._read(module, name)
        return self._known[key]

    def _read(self, module: Module, name: str) -> Definition:
        if name == WHOLE:
            statements = module.tree.body
        else:
            statements = module.effects if name == EFFECTS else module.bindings[name]
        imports = module.imports | module.imported(statements, inside=True)
        uses: dict[str, Target] = {}
        for chain in {chain for s in statements for chain in _chains(s)}:
            target = self.resolved(module, chain, imports)
            if target is not None and target != (module, name):
                uses[".".join(chain)] = target
        if name not in (WHOLE, EFFECTS) and module.effects:
            uses[EFFECTS] = module, EFFECTS
        text = "\n".join(self.said(module, statement) for statement in statements)
        return Definition(module, hashlib.sha256(text.encode()).digest(), uses)

    def said(self, module: Module, node: ast.AST) -> str:
        """Returns code as text, without comments, and without the names of imported modules of
        the project: what they lead to is digested."""
        if not any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(node)):
            return ast.dump(node)
        node = copy.deepcopy(node)
        for found in ast.walk(node):
            if isinstance(found, ast.ImportFrom) and self.module(module.absolute(found)):
                found.module, found.level = "", 0
            elif isinstance(found, ast.Import):
                for alias in found.names:
                    alias.name = "" if self.module(alias.name) else alias.name
        return ast.dump(node)

    def resolved(
        self, module: Module, chain: tuple[str, ...], imports: dict[str, Imported]
    ) -> Target | None:
        """Returns the definition that names lead to; None of what is local, or Python's."""
        name, *rest = chain
        if name in imports:
            return self._followed(imports[name], rest)
        if name in module.bindings:
            return module, name
        for source in filter(None, map(self.module, module.stars)):
            if name in source.bindings or name in source.imports:
                return self.resolved(source, chain, source.imports)
        return None

    def _followed(self, found: Imported, rest: list[str]) -> Target:
        source = self.module(found.module)
        names = [*([found.name] if found.name else []), *rest]
        target = self.resolved(source, tuple(names), source.imports) if source and names else None
        if target is not None:
            return target
        if names and self.module(f"{found.module}.{names[0]}") is not None:
            return self._followed(Imported(f"{found.module}.{names[0]}"), names[1:])
        if source is None:  # a library's
            return ".".join(filter(None, (found.module, found.name)))
        return source, WHOLE


def _chains(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yields what is used, names with the attributes that follow, outside of annotations."""
    chain, base = [], node
    while isinstance(base, ast.Attribute):
        chain.append(base.attr)
        base = base.value
    if isinstance(base, ast.Name):
        yield base.id, *reversed(chain)
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _chains(child)


def _shown(path: Path) -> str:
    """Returns a file's name for a message."""
    return path.relative_to(OWN).as_posix() if path.is_relative_to(OWN) else path.name
