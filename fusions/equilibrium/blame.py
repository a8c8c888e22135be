"""The line of code that a warning points at: the one that used a fusion, not ours or torch's."""

import sys
from pathlib import Path

import torch

INSIDE = str(Path(__file__).parents[1]), str(Path(torch.__file__).parent)


def caller_level() -> int:
    """Returns the `stacklevel` with which `warnings.warn` points at whoever called the library.

    It is for the function that asks, and walks the stack: call it where there is a warning only.
    In a thread of torch's own, as the backward pass of a GPU has, it is the outermost call.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_code.co_filename.startswith(INSIDE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level
