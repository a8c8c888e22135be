"""Solves under PyTorch's transforms, compiler and tracers: what these can follow, and when."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from .blame import caller_level

P = ParamSpec("P")
T = TypeVar("T")

# Whether a transform of torch.func (grad, vmap, jacrev, ...) is at work. torch's own
# autograd.Function asks so too; without the name, its own errors speak.
transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)

# Whether what is traced is to be exported; of older torch only the way that is not strict.
exporting = getattr(
    torch.compiler, "is_exporting", lambda: not torch.compiler.is_dynamo_compiling()
)  # torch >= 2.7


def hidden(x: Tensor) -> bool:
    """Whether no value of a tensor can be looked at: under vmap, and while a graph is traced."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    if not transformed():
        return False
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.is_batchedtensor(x):
            return True
        x = functorch.get_unwrapped(x)
    return False


def in_backward() -> bool:
    """Whether a backward pass is at work, in which activation checkpointing runs forwards again."""
    return torch._C._current_graph_task_id() != -1


def forbid_transforms(*tensors: Tensor) -> None:
    """Raises RuntimeError where a transform of torch.func would have to follow a solve.

    Args:
        tensors: cotangents, over which `is_grads_batched` and `vectorize` may run.
    """
    legacy = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda x: False)
    if transformed() or any(legacy(x) for x in tensors):
        raise RuntimeError(
            "an equilibrium is solved for until it converges, sample by sample, which torch.func "
            "(grad, vmap, jacrev, ...) and batched cotangents (vectorize, is_grads_batched) "
            "cannot follow; use torch.autograd.grad or torch.autograd.functional.jacobian, or "
            "take steps in place of the solve, with unroll=k of DEQFusion"
        )


def untraced(f: Callable[P, T]) -> Callable[P, T]:
    """Returns f as torch.compile leaves it alone: a graph break, and nothing inside is traced.

    Where torch.export or torch.jit.trace would have to follow it raises a RuntimeError.
    """
    disabled: Callable[P, T] | None = None  # made where it is needed, for that imports the compiler

    @wraps(f)
    def call(*args: P.args, **options: P.kwargs) -> T:
        nonlocal disabled
        if torch.jit.is_tracing() or (torch.compiler.is_compiling() and exporting()):
            raise RuntimeError(
                "an equilibrium is solved for until it converges, in as many steps as the data "
                "need, which torch.export, torch.onnx and torch.jit.trace cannot follow; export "
                "a fixed number of steps, with unroll=k of DEQFusion"
            )
        if disabled is None:
            if not torch.compiler.is_compiling():
                return f(*args, **options)
            disabled = torch.compiler.disable(f)
        return disabled(*args, **options)

    return call


def warn_of_replica() -> None:
    """Warns that a replica of nn.DataParallel keeps what it sets."""
    warnings.warn(
        "info and auxiliary_loss of a replica of nn.DataParallel do not reach the fusion that "
        "was replicated; use nn.parallel.DistributedDataParallel",
        stacklevel=caller_level(),
    )


def warn_of_late_penalty() -> None:
    """Warns where a penalty is taken for the first time in a backward pass."""
    if in_backward():
        warnings.warn(
            "activation checkpointing with use_reentrant=True records no gradients before the "
            "backward pass, so that auxiliary_loss was zero when the loss was made; pass "
            "use_reentrant=False to torch.utils.checkpoint",
            stacklevel=caller_level(),
        )
