"""Fusions head to head: the same data, model, loop, budget and selection for each of them.

A `Recipe` says what a benchmark is, and a `System` what a whole published model makes of it;
`compare` trains every method in every run and returns a
`Comparison`: table, statistics, the best method, files; `command_line` is a program around it.
Each is imported when it is first asked for, so that a program's `--help` need not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # which also tells `identity.code` where they are
    from .comparing import compare as compare
    from .comparison import Comparison as Comparison
    from .program.program import command_line as command_line
    from .recipe import Fusion as Fusion
    from .recipe import Loaders as Loaders
    from .recipe import Recipe as Recipe
    from .recipe import Score as Score
    from .systems import About as About
    from .systems import System as System

_WHERE = {"command_line": "program.program", "compare": "comparing", "Comparison": "comparison"}
_WHERE |= dict.fromkeys(("Fusion", "Loaders", "Recipe", "Score"), "recipe")
_WHERE |= dict.fromkeys(("About", "System"), "systems")


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
