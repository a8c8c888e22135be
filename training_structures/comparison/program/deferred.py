"""Names whose modules are imported only once they are asked for, so that a list costs nothing."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any


class Deferred(Mapping[str, Any]):
    """A mapping whose values are imported when they are asked for.

    Args:
        where: name -> "module:attribute".
    """

    def __init__(self, where: Mapping[str, str]) -> None:
        self._where = dict(where)

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self._where[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)
