"""A fusion as it was just built, and the width of its result, as a head is built for it."""

from typing import Any

from torch import Tensor, nn

from .missing import ZeroWhereAbsent


def sized(built: Any, dim: int) -> tuple[nn.Module, int | None]:
    """Returns the fusion and the width of its result, which every result must have.

    A model may call it with `present`: one that does not know it gets zeros, see `missing`.

    Args:
        built: what a fusion's class or function returned: the fusion, whose width is the one
            wanted, or (fusion, width); the width is None where it predicts on its own.
        dim: the width wanted.

    Raises:
        ValueError: if that is something else.
    """
    fusion, width = built if isinstance(built, tuple) and len(built) == 2 else (built, dim)
    if not isinstance(fusion, nn.Module):
        raise ValueError(
            "a fusion must be an nn.Module, or (nn.Module, width of its result), but is a "
            f"{type(fusion).__name__}"
        )
    ZeroWhereAbsent.put_on(fusion)
    if width is not None:
        fusion.register_forward_hook(_OfWidth(width))
    return fusion, width


class _OfWidth:
    """A look at every result of a fusion, which has the width that its head was built for.

    At every one, for a hook that goes would move the line of code at which a warning is raised,
    and what is told once a line would be told twice.
    """

    def __init__(self, width: int) -> None:
        self.width = width

    def __call__(self, fusion: nn.Module, given: Any, result: Any) -> None:
        if isinstance(result, Tensor) and result.dim() and result.shape[-1] == self.width:
            return
        came = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        name = type(fusion).__name__
        raise ValueError(
            f"{name} must return (batch, {self.width}), the width that it was built for, but "
            f"returned {came}; where its width is another than dim, a function (input_dims, dim) "
            f"returns both: ({name}(...), width)"
        )
