"""The demands of a step: operations dispatched, transfers, time in matrix products."""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from deq_fusion.examples.studies.cost.timing import wait

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal"}  # for what the device holds
COPIES = {"_to_copy", "copy_"}
ACTIVITIES = {"cpu": ProfilerActivity.CPU, "cuda": ProfilerActivity.CUDA}
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}


class Counts(TorchDispatchMode):
    """Counts the operations dispatched within it, views too, and the transfers among them.

    A transfer is what the host waits for, on a CPU as well: a number asked for, what has a size
    that depends on the values, a copy from one device to another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.transfers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.operations += 1
        self.transfers += _is_transfer(func.overloadpacket.__name__, args, found)
        return found


def _is_transfer(name: str, args: tuple, found: Any) -> bool:
    if name in ("index", "index_put", "index_put_"):
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    if name in COPIES:
        return len({x.device for x in (*args, found) if isinstance(x, Tensor)}) > 1
    return name in WAITS


def counted(step: Callable[[], object]) -> tuple[int, int]:
    """Returns operations and transfers of a step."""
    with Counts() as counts:
        step()
    return counts.operations, counts.transfers


def product_ms(step: Callable[[], object], device: str, repeats: int = 3) -> float:
    """Returns the time that a step spends in matrix products, in milliseconds: a median.

    On a CPU that of the operations themselves, without what they call; elsewhere that of the
    device's kernels, so that the rest of a step is everything else and waiting.
    """
    alone, times = device == "cpu", []
    activities = {ACTIVITIES["cpu"], ACTIVITIES[device.split(":")[0]]}
    for _ in range(repeats):
        with profile(activities=activities) as trace:
            step()
            wait(device)
        events = [e for e in trace.key_averages() if e.key in PRODUCTS]
        taken = (e.self_cpu_time_total if alone else e.self_device_time_total for e in events)
        times.append(sum(taken) / 1e3)
    return median(times)
