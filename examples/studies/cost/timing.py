"""Timing and memory: interleaved medians, and the peak of all live tensors."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How long and on what to measure.

    Attributes:
        seconds: about how long to repeat one group of measurements.
        most: how often at most.
        device: where tensors live.
    """

    seconds: float = 3.0
    most: int = 100
    device: str = "cpu"

    def time(self, steps: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Returns the median of each step in milliseconds, measured in turn."""
        taken = interleaved(steps, seconds=self.seconds, most=self.most, device=self.device)
        return {name: 1e3 * duration for name, duration in taken.items()}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Runs its body with `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(
    steps: Mapping[str, Callable[[], object]], *, seconds: float, most: int, device: str
) -> dict[str, float]:
    """Returns the median duration of each step in seconds.

    All of them are run in turn, over and over, so that what else the machine does hits all alike;
    between 3 and `most` rounds, as `seconds` allow, after one round that does not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    began = time.perf_counter()
    for count in range(most + 1):
        for name, step in steps.items():
            wait(device)
            start = time.perf_counter()
            step()
            wait(device)
            taken[name].append(time.perf_counter() - start)
        if count >= 3 and time.perf_counter() - began > seconds:
            break
    return {name: statistics.median(durations[1:]) for name, durations in taken.items()}


def wait(device: str) -> None:
    """Returns when the device has done all that it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def peak_bytes(step: Callable[[], object], device: str) -> int:
    """Returns the most that live tensors grew by while `step` ran, as the allocator saw it."""
    if device != "cpu":
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
