"""MultiBench's measurements of cost: seconds, peak memory and parameters, printed."""

import sys
import time
from collections.abc import Callable, Iterable

from torch import nn


def getallparams(li: Iterable[nn.Module]) -> int:
    """Returns the number of parameters of all modules, frozen ones included."""
    return sum(p.numel() for module in li for p in module.parameters())


def all_in_one_train(trainprocess: Callable[[], object], trainmodules: Iterable[nn.Module]) -> None:
    """Calls `trainprocess` once, and prints seconds, peak memory in MiB and parameters.

    The memory is the most that this process ever held, NaN on a system that does not tell it.
    MultiBench's sampling of the memory trains again where training is shorter than half a second.

    Args:
        trainprocess: trains; called without arguments.
        trainmodules: whose parameters are counted, afterwards.
    """
    started = time.time()
    trainprocess()
    print(f"Training Time: {time.time() - started}")
    print(f"Training Peak Mem: {_peak_memory()}")
    print(f"Training Params: {getallparams(trainmodules)}")


def all_in_one_test(testprocess: Callable[[], object], testmodules: Iterable[nn.Module]) -> None:
    """Calls `testprocess` once, and prints seconds and parameters.

    Args:
        testprocess: tests; called without arguments.
        testmodules: whose parameters are counted, afterwards.
    """
    started = time.time()
    testprocess()
    print(f"Inference Time: {time.time() - started}")
    print(f"Inference Params: {getallparams(testmodules)}")


def _peak_memory() -> float:
    """Returns the largest memory of this process so far, in MiB."""
    try:
        import resource  # not on every system
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
