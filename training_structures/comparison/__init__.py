"""Fusions head to head: the same data, model, loop, budget and selection for each of them.

A `Recipe` says what a benchmark is; `compare` trains every method in every run and returns a
`Comparison`: table, statistics, the best method, files; `command_line` is a program around it.
"""

from .command_line import command_line as command_line
from .compare import compare as compare
from .comparison import Comparison as Comparison
from .recipe import Fusion as Fusion
from .recipe import Loaders as Loaders
from .recipe import Recipe as Recipe
from .recipe import Score as Score
