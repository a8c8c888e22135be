"""The moves of MFAS through its configurations (Perez-Rua et al., 2019).

A layer's configuration is a list of integers; that of a fusion an array (layers, features), a row
for every layer. Random draws are numpy's and Python's global ones, as MultiBench's: whoever seeds
those repeats them.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .surrogate import SurrogateDataloader, train_simple_surrogate


def predict_accuracies_with_surrogate(
    configurations: Sequence[np.ndarray], surrogate: Any, device: torch.device | str | None
) -> list[float]:
    """Returns the accuracies that `surrogate.eval_model` predicts, one a configuration."""
    return [surrogate.eval_model(configuration, device) for configuration in configurations]


def update_surrogate_dataloader(
    surrogate_dataloader: SurrogateDataloader,
    configurations: Sequence[np.ndarray],
    accuracies: Sequence[float],
) -> None:
    """Adds configurations, and the accuracies they reached, to what is known."""
    for conf, acc in zip(configurations, accuracies, strict=True):
        surrogate_dataloader.add_datum(conf, acc)


def train_surrogate(
    surrogate: nn.Module,
    surrogate_dataloader: SurrogateDataloader,
    surrogate_optimizer: Optimizer,
    surrogate_criterion: Callable[[Tensor, Tensor], Tensor],
    ep: int,
    device: torch.device | str | None,
) -> float:
    """Trains a surrogate on all that is known; returns its loss.

    Args:
        surrogate: the surrogate.
        surrogate_dataloader: what is known.
        surrogate_optimizer: goes on from call to call.
        surrogate_criterion: (prediction, accuracy) to a loss.
        ep: epochs.
        device: where the surrogate is.
    """
    data = surrogate_dataloader.get_data(to_torch=True)
    return train_simple_surrogate(
        surrogate, surrogate_criterion, surrogate_optimizer, data, ep, device
    )


def sample_k_configurations(
    configurations: Sequence[np.ndarray],
    accuracies_: Sequence[float],
    k: int,
    temperature: float,
) -> list[np.ndarray]:
    """Draws k configurations without replacement, by a softmax of log(accuracy) / temperature.

    That is in proportion to accuracy^(1 / temperature): the hotter, the more evenly. All of them
    are drawn if there are fewer than k. Those of accuracy 0 come in only where too few others
    are, and then evenly. (MultiBench fails in both cases.)

    Args:
        configurations: to draw from.
        accuracies_: of each, not negative.
        k: how many.
        temperature: positive.

    Raises:
        ValueError: for accuracies, or a temperature, that make no sense.
    """
    accuracies = np.array([float(a) for a in accuracies_])
    if len(accuracies) != len(configurations) or not np.all(
        (accuracies >= 0) & np.isfinite(accuracies)
    ):
        raise ValueError(
            "accuracies_ must be finite numbers from 0 on, one for each of the "
            f"{len(configurations)} configurations, got {accuracies}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    k = min(k, len(configurations))
    powered = np.zeros(len(accuracies))
    if accuracies.any():  # divided by the largest, so that no power is too small or too large
        powered = (accuracies / accuracies.max()) ** (1 / temperature)
    likely = np.flatnonzero(powered)
    if len(likely) >= k:
        chosen = np.random.choice(len(powered), k, replace=False, p=powered / powered.sum())
    else:
        others = np.flatnonzero(powered == 0)
        filling = np.random.choice(others, k - len(likely), replace=False)
        chosen = np.concatenate([likely, filling])
    return [configurations[i] for i in chosen]


def sample_k_configurations_uniform(configurations: Sequence[Any], k: int) -> list[Any]:
    """Draws k configurations evenly, with replacement."""
    return [configurations[i] for i in np.random.choice(len(configurations), k)]


def merge_unfolded_with_sampled(
    previous_top_k_configurations: Sequence[np.ndarray],
    unfolded_configurations: Sequence[Sequence[int]],
    layer: int,
) -> list[np.ndarray]:
    """Returns every configuration with every layer put in, or on its end.

    Args:
        previous_top_k_configurations: (layers, features) each; of none, those of one layer come.
        unfolded_configurations: of a single layer, (features,) each.
        layer: where to put it, from 0; a configuration that ends before gets a further layer.

    Raises:
        ValueError: if there are no configurations and the layer is not the first.
    """
    rows = [np.asarray(row) for row in unfolded_configurations]
    if not len(previous_top_k_configurations):
        if layer != 0:
            raise ValueError(
                "without previous configurations the layer must be the first, 0, "
                f"got layer={layer}; merge the layers in order"
            )
        return [row[None] for row in rows]
    return [
        np.concatenate([before[:layer], row[None], before[layer + 1 :]])
        for before in previous_top_k_configurations
        for row in rows
    ]


def sample_k_configurations_directly(
    k: int,
    max_progression_levels: int,
    get_possible_layer_configurations_fun: Callable[[int], Sequence[Sequence[int]]],
) -> list[np.ndarray]:
    """Draws k configurations evenly: how many layers, then each of them; a random search.

    Args:
        k: how many.
        max_progression_levels: most layers.
        get_possible_layer_configurations_fun: the number of a layer, from 0, to what it can be.
            (MultiBench draws every layer from what the last one can be.)
    """
    possible = [get_possible_layer_configurations_fun(i) for i in range(max_progression_levels)]
    configurations = []
    for _ in range(k):
        layers = random.randint(1, max_progression_levels)
        rows = [sample_k_configurations_uniform(possible[i], 1)[0] for i in range(layers)]
        configurations.append(np.array(rows))
    return configurations


def compute_temperature(iteration: int, init: float, final: float, decay: float) -> float:
    """Returns the temperature after step `iteration`, from 0: (init - final) e^-((i + 1) / decay)^2
    + final."""
    return (init - final) * float(np.exp(-(((iteration + 1) / decay) ** 2))) + final
