"""MultiBench's two measures of robustness to noise, against the curves that it published.

Relative robustness is the area under a method's scores over the level of noise, 0.0, 0.1, ...;
effective robustness is the sum of what it keeps beyond late fusion's curve, moved to start where
the method's does (Liang et al., 2021, "MultiBench", section 4.2). Both are then placed between the
worst (0) and the best (1) of the published methods and the measured one. Of errors, where less is
better, the worst are the largest.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from .published import robustness

STEP = 0.1  # of noise, from one level to the next
ERRORS = ("finance", "robotics", "gentle push")  # benchmarks that are scored by an error
LOGARITHMIC = ("gentle push", "robotics image", "robotics force")  # plotted as logarithms
TRANSFORMER = "-Transformer"  # ends the name of a second curve of the same method
OWN = "my method"


def relative_robustness(robustness_result: Sequence[float], task: str) -> float:
    """Returns the relative robustness in [0, 1], 1 the best: see `get_robustness_metric`."""
    return get_robustness_metric(robustness_result, task, "relative")


def effective_robustness(robustness_result: Sequence[float], task: str) -> float:
    """Returns the effective robustness in [0, 1], 1 the best: see `get_robustness_metric`."""
    return get_robustness_metric(robustness_result, task, "effective")


def get_robustness_metric(robustness_result: Sequence[float], task: str, metric: str) -> float:
    """Returns where a method stands among the published ones, 0 the worst and 1 the best.

    Early and late fusion each count once, by the mean of their recurrent and transformer curves.

    Args:
        robustness_result: scores at noise 0.0, 0.1, ..., as many as published, as shares (not per
            cent) or errors.
        task: a benchmark and its noisy modality, such as "mosi text"; of MM-IMDB with the score,
            "imdb text micro".
        metric: "relative" or "effective".

    Raises:
        ValueError: for an unknown task or metric, or scores at other levels than the published.
    """
    helpers = {"relative": relative_robustness_helper, "effective": effective_robustness_helper}
    if metric not in helpers:
        raise ValueError(f"metric must be 'relative' or 'effective', got {metric!r}")
    curves = _published(task)
    levels = len(curves["LF"])
    if len(robustness_result) != levels or not np.isfinite(robustness_result).all():
        raise ValueError(
            f"{task!r} takes {levels} finite scores, at noise 0.0, 0.1, ..., "
            f"{(levels - 1) * STEP:.1f}, as its published curves, got {list(robustness_result)}"
        )
    helper = helpers[metric]
    found = {method: helper(curve, task) for method, curve in curves.items()}
    return maxmin_normalize(found | {OWN: helper(robustness_result, task)}, task)


def relative_robustness_helper(robustness_result: Sequence[float] | np.ndarray, task: str) -> float:
    """Returns the area under the scores over the levels of noise, by trapezoids.

    Args:
        robustness_result: scores at noise 0.0, 0.1, ...
        task: not used.
    """
    return float(trapezoid(robustness_result, dx=STEP))


def effective_robustness_helper(
    robustness_result: Sequence[float] | np.ndarray, task: str
) -> float:
    """Returns the sum over levels of the scores less late fusion's, both less their clean score.

    Args:
        robustness_result: scores at noise 0.0, 0.1, ...
        task: whose curve of late fusion (the recurrent one) it is.
    """
    own, late = np.asarray(robustness_result), np.asarray(robustness["LF"][task])
    return float(((own - own[0]) - (late - late[0])).sum())


def maxmin_normalize(result: Mapping[str, float], task: str) -> float:
    """Returns where `result["my method"]` lies between the worst (0) and the best (1) of all.

    Where all are the same it is 1/2: as far from the best as from the worst.

    Args:
        result: a measure of every method.
        task: of which it was; where it is scored by an error, the largest is the worst.
    """
    low, high = min(result.values()), max(result.values())
    share = (result[OWN] - low) / (high - low) if high > low else 0.5
    return 1 - share if task.startswith(ERRORS) else share


def single_plot(
    robustness_result: Sequence[float],
    task: str,
    xlabel: str,
    ylabel: str,
    fig_name: str | Path,
    method: str,
) -> None:
    """Draws one method's scores over the level of noise into a file.

    Args:
        robustness_result: scores at noise 0.0, 0.1, ...
        task: logarithms are drawn for Gentle Push and the robot's images and forces.
        xlabel: label of the levels.
        ylabel: label of the scores.
        fig_name: the file; ".png" is added to a name without an ending.
        method: label of the curve.
    """
    from matplotlib.figure import Figure  # an extra, and needed here alone
    from matplotlib.ticker import FormatStrFormatter

    scores = np.asarray(robustness_result, dtype=float)
    if task.startswith(LOGARITHMIC):
        scores, ylabel = np.log(scores), f"log {ylabel}"
    figure = Figure()  # not pyplot's, which keeps what it draws
    axes = figure.subplots()
    axes.plot(np.arange(len(scores)) * STEP, scores, label=method, linewidth=2.5)
    axes.set_xlabel(xlabel, fontsize=20)
    axes.set_ylabel(ylabel, fontsize=20)
    axes.tick_params(labelsize=15)
    axes.yaxis.set_major_formatter(FormatStrFormatter("%.2f"))
    figure.savefig(fig_name, bbox_inches="tight")


def report_robustness(
    tested: Mapping[str, Mapping[str, Mapping[str, Any]]],
    dataset: str,
    method_name: str = "My method",
    *,
    folder: str | Path | None = None,
) -> None:
    """Prints, of all that `Supervised_Learning.test` returned, the lines that MultiBench prints.

    Args:
        tested: modality -> measure -> `levels`, the scores at noise 0.0, 0.1, ...
        dataset: as the published curves have it: "mosi", "imdb", "enrico", "mimic 7", ...
        method_name: of the model, in the names of the plots.
        folder: where a plot of every curve is saved; by default there are none.
    """
    for modality, measures in tested.items():
        for measure, found in measures.items():
            task = f"{dataset} {modality}" + (f" {measure}" if len(measures) > 1 else "")
            for metric in "relative", "effective":
                value = get_robustness_metric(found["levels"], task, metric)
                print(f"{metric} robustness ({modality}, {measure}): {value}")
            if folder is not None:
                name = Path(folder, f"{method_name}-{task}-{modality}-{measure}.png")
                single_plot(found["levels"], task, "Noise level", measure, name, method_name)
                print(f"Plot saved as {name}")


def _published(task: str) -> dict[str, np.ndarray]:
    """Returns the published curve of every method, a transformer's joined to its method's."""
    of_task = {m: np.asarray(curves[task]) for m, curves in robustness.items() if task in curves}
    if not of_task:
        known = sorted({name for curves in robustness.values() for name in curves})
        raise ValueError(
            f"no curves were published for {task!r}; the tasks are {', '.join(known)}. "
            "relative_robustness_helper gives the area of any"
        )
    return {
        method: (curve + of_task.get(method + TRANSFORMER, curve)) / 2
        for method, curve in of_task.items()
        if not method.endswith(TRANSFORMER)
    }
