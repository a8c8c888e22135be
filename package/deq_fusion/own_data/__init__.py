"""One's own data: tables read and joined, split honestly, and compared in one call.

`compare_data` is that call, `command.main` the command line of it, and `own_data` what both build
on: arrays, frames or files -> what was understood, and the recipe of a comparison.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparing import compare_data as compare_data
    from .new_rows import predict_data as predict_data
    from .recipe import OwnData as OwnData
    from .recipe import own_data as own_data

_WHERE = {"compare_data": "comparing", "predict_data": "new_rows"}
_WHERE |= {"OwnData": "recipe", "own_data": "recipe"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
