"""The library's other folders, for those of MultiBench's training structures that name them.

MultiBench's search makes its own networks and its own record of what it learnt, so its arguments
cannot bring them, as they bring encoders, fusion and head elsewhere. This is the one module that
looks beyond its folder; nothing there needs this folder to be imported.
"""

from typing import TYPE_CHECKING

if (
    TYPE_CHECKING or __package__ == "training_structures"
):  # of a checkout, whose root is on the path
    from fusions import searchable
    from utils import scheduler, search_tools, surrogate
else:
    from ..fusions import searchable
    from ..utils import scheduler, search_tools, surrogate

__all__ = ["scheduler", "search_tools", "searchable", "surrogate"]
