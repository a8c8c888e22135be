"""Data-parallel training: processes, as torchrun starts them, that share every batch.

    with process_group(device) as device:
        history = fit(model.to(device), train, valid, objective, epochs=10)

run by `torchrun --nproc-per-node 2 script.py`, gives within rounding what one process gives.
Started without torchrun, the same script is that one process.
"""

import gc
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from .batches import Spare

SEED_STRIDE = 1_000_003  # far apart, so that neighbouring seeds of runs share no process's stream


@contextmanager
def process_group(device: torch.device | str) -> Iterator[torch.device]:
    """Joins the processes that torchrun started, and leaves them at the end.

    Args:
        device: where to train. On CUDA each process gets the GPU of its LOCAL_RANK; the
            processes then exchange gradients by NCCL, and otherwise by Gloo.

    Yields:
        This process's device. Without torchrun that is `device`, and nothing else happens.
    """
    device = torch.device(device)
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield device
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        device = torch.device(device.type, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # DistributedDataParallel would import this later, and it keeps the group that it finds to the
    # end of Python, where the group's threads may abort the process. Now it finds none.
    import_module("torch.distributed.nn")
    # what is no gradient goes by the CPU: it need not wait for, or fit on, the GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield device
    finally:
        gc.collect()  # models that an error's traceback keeps, and they the group
        dist.destroy_process_group()


def processes() -> int:
    """Returns the number of processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def is_main() -> bool:
    """Returns whether this process is the one that writes files and shows progress."""
    return rank() == 0


def own_seed(seed: int | None) -> int | None:
    """Returns this process's seed: dropout is to differ between them. The first keeps `seed`."""
    return seed if seed is None else seed + SEED_STRIDE * rank()


def gathered(value: Any) -> list[Any]:
    """Returns every process's `value`, by rank, on every process; all must call it."""
    if processes() == 1:
        return [value]
    values = [None] * processes()
    dist.all_gather_object(values, value)
    return values


def gathered_by_main(value: Any) -> list[Any]:
    """Returns every process's `value`, by rank, on the first, and nothing on the others."""
    if processes() == 1:
        return [value]
    values = [None] * processes() if is_main() else None
    dist.gather_object(value, values)
    return values or []


def from_main(value: Any) -> Any:
    """Returns the first process's `value` on every process; all must call it."""
    if processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


@contextmanager
def raising_alike(*kinds: type[Exception]) -> Iterator[None]:
    """Raises on every process an error that one raises, so that none waits for another.

    All must enter and leave it together; errors of other kinds pass as they are.
    """
    raised = None
    try:
        yield
    except kinds as error:
        if processes() == 1:
            raise
        kind = next(i for i, kind in enumerate(kinds) if isinstance(error, kind))
        raised = kind, str(error)
    errors = [error for error in gathered(raised) if error is not None]
    if errors:
        kind, message = errors[0]
        raise kinds[kind](message)


def data_parallel(module: nn.Module, optimizer: Optimizer) -> nn.Module:
    """Returns `module` with its gradients averaged over the processes; alone, itself.

    Its output must be the loss, for only what that depends on is waited for. All processes
    get the first one's weights and buffers.

    Raises:
        ValueError: if a parameter that learns is not the module's, or (in a forward) was
            frozen when the run began: its gradients would stay apart, and the weights drift.
    """
    if processes() == 1:
        return module
    shared = {id(p) for p in module.parameters() if p.requires_grad}
    learning = [p for group in optimizer.param_groups for p in group["params"]]

    def check(*_: Any) -> None:
        apart = sum(p.requires_grad and id(p) not in shared for p in learning)
        if apart:
            raise ValueError(
                "with several processes every parameter of the optimiser must be the model's or "
                f"the objective's, and require a gradient from the start, but {apart} do not; "
                "start another run after unfreezing"
            )

    check()
    module.register_forward_pre_hook(check)
    # A batch may leave parameters out, such as those of an absent modality, so they are looked
    # for; and torch would warn whenever it found none.
    module.left_out = nn.Parameter(torch.zeros((), device=learning[0].device))
    return DistributedDataParallel(module, find_unused_parameters=True)


def unreduced(module: nn.Module) -> AbstractContextManager:
    """Returns a context in which gradients of `data_parallel`'s result pile up unreduced."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def share_buffers(model: nn.Module) -> None:
    """Gives every process the first one's buffers, such as BatchNorm's running statistics."""
    buffers = list(model.buffers())
    if processes() > 1 and buffers:
        for buffer, value in zip(buffers, from_main([b.cpu() for b in buffers]), strict=True):
            buffer.copy_(value)


def sharded(loader: Iterable) -> Iterable:
    """Returns a loader of this process's share of every batch; alone, `loader` itself.

    The batches are those of the first process's `loader`, order included. Shares are
    contiguous and differ by at most one sample; only its own is read. A process that a batch
    has no sample for gets a `Spare` one.

    Args:
        loader: a DataLoader over a map-style dataset: with a batch_sampler, or with
            batch_size=None and a sampler of lists of indices.

    Raises:
        ValueError: for any other.
    """
    if processes() == 1:
        return loader
    wrong = None
    if not isinstance(loader, DataLoader):
        wrong = f"got a {type(loader).__name__}"
    elif isinstance(loader.dataset, IterableDataset):
        wrong = "its dataset gives samples in its own order"
    elif isinstance(loader.sampler, DistributedSampler):
        wrong = "its sampler gives a share already; leave that to this function"
    if wrong:
        raise ValueError(
            f"several processes need a DataLoader that batches by indices, to share it: {wrong}"
        )
    return Sharded(loader)


class Sharded:
    """This process's share of every batch of a DataLoader; see `sharded`."""

    def __init__(self, loader: DataLoader) -> None:
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        self.shares = _Shares(getattr(loader, name))
        # A copy keeps class, workers and collation. Past __setattr__, which refuses a new
        # sampler, although nothing but the pass over the data depends on it.
        self.loader = copy(loader)
        vars(self.loader).update({name: self.shares, "_iterator": None, "in_order": True})

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield Spare(batch) if self.shares.spare.popleft() else batch


class _Shares:
    """Sampler of this process's share of the batches of another; `spare` says which are none."""

    def __init__(self, batches: Iterable[Sequence]) -> None:
        self.batches = batches
        self.spare: deque[bool] = deque()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Sequence]:
        self.spare.clear()
        for batch in from_main(list(self.batches) if is_main() else None):
            if not hasattr(batch, "__len__"):
                raise ValueError(
                    "several processes need a DataLoader that batches by indices, to share it: "
                    f"its sampler gives {batch!r} and not a list"
                )
            least, more = divmod(len(batch), processes())
            start = rank() * least + min(rank(), more)
            stop = start + least + (rank() < more)
            self.spare.append(start == stop)
            yield batch[:1] if start == stop else batch[start:stop]
