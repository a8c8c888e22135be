"""The steps of a forward solve, as `observe` receives them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..solve import Observer
from .gated import GatedCell


@dataclass(frozen=True)
class SystemStep:
    """One step of a forward solve, as `observe` receives it.

    Attributes:
        block: "unimodal" (all z_i), "fuse" (z) or "joint".
        step: evaluations so far, from 1.
        state: the iterate; (N, B, d), (B, d) or (B, N + 1, d) with z last.
        residual: its relative residual; (N, B), (B,) or (B,).
        gates: G(z + z_i) of this evaluation, (B, N, d), where z_i is new already when all states
            are solved together (Ni et al., 2023, equation 9); None where no gate takes part.
    """

    block: str
    step: int
    state: Tensor
    residual: Tensor
    gates: Tensor | None


def observer(
    observe: Callable[[SystemStep], None] | None,
    block: str,
    shape: Sequence[int],
    gated: GatedCell | None = None,
    sees: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Observer | None:
    """Wraps `observe` for the solve of one block whose state has `shape`.

    Args:
        observe: called with a `SystemStep` at every step; None: there is no observer.
        block: see `SystemStep`.
        shape: of its states.
        gated: the gated cell, if the block has it.
        sees: state -> z, and the z_i that the gate sees.
    """
    if observe is None:
        return None

    def call(step: int, state: Tensor, residual: Tensor) -> None:
        state = state.view(shape)
        gates = None
        if block == "unimodal":
            residual = residual.view(shape[:-1])
        elif gated is not None and gated.gate:
            assert sees is not None
            z, states = sees(state)
            gates = gated.gates(z, states.detach())
        observe(SystemStep(block, step, state, residual, gates))

    return call
