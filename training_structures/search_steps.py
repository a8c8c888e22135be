"""The steps of MFAS: choose configurations, try them, let the surrogate learn from them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .search_progress import Progress
from .siblings import search_tools as tools


class Searcher(Protocol):
    """The budgets and temperatures of a search, as `architecture_search.ModelSearcher` has them."""

    num_samples: int
    surrep: int
    max_prog: int
    device: torch.device | str

    def temperature(self, step: int) -> float:
        """Returns the temperature at which a step, from 0, draws."""


@dataclass(frozen=True)
class Steps:
    """The steps of a search, each of which may be resumed from its last candidate.

    Attributes:
        searcher: the budgets and temperatures.
        progress: where the search is.
        layers: all that a fusion layer can be.
        criterion: the surrogate's loss.
        tried: trains configurations and returns their scores.
        say: prints.
    """

    searcher: Searcher
    progress: Progress
    layers: list[list[int]]
    criterion: Callable[[Tensor, Tensor], Tensor]
    tried: Callable[..., Any]
    say: Callable[..., None]

    def take(self, checkpoint: str | Path | None) -> None:
        """Takes the next step, and saves after every candidate."""
        progress = self.progress
        if progress.chosen is None:
            progress.chosen, progress.scores = self.choose(), []
            progress.save(checkpoint)
        while len(progress.scores) < len(progress.chosen):
            progress.scores += self.scored(progress.chosen[len(progress.scores)])
            progress.save(checkpoint)
        progress.sampled = self.learn(progress.chosen, progress.scores)
        progress.step, progress.chosen = progress.step + 1, None
        progress.save(checkpoint)

    def choose(self) -> list[np.ndarray]:
        """Returns the configurations to try: in the first step all, then some by their scores."""
        step = self.progress.step
        iteration, level = divmod(step, self.searcher.max_prog)
        if level == 0:
            self.say(f"Search iteration {iteration} ")
        self.say(f"Progressive step {level} ")
        merged = tools.merge_unfolded_with_sampled(self.progress.sampled, self.layers, level)
        if step == 0:
            return merged
        predicted = self.predict(merged)
        self.say("Predicted accuracies: ")
        self.say(list(zip(merged, predicted, strict=True)))
        return self.sample(merged, predicted)

    def scored(self, configuration: np.ndarray) -> list[float]:
        """Returns the score of a configuration that is trained now."""
        (score,) = self.tried([configuration])
        if not 0 <= score <= 1:
            raise ValueError(
                "a surrogate predicts scores from 0 to 1, 1 the best, but that of a candidate is "
                f"{score}; select another metric"
            )
        return [float(score)]

    def learn(self, tried: list[np.ndarray], scores: list[float]) -> list[np.ndarray]:
        """Lets the surrogate learn from what was tried; returns what the next step extends."""
        progress, first = self.progress, self.progress.step == 0
        tools.update_surrogate_dataloader(progress.known, tried, scores)
        error = tools.train_surrogate(
            progress.surrogate,
            progress.known,
            progress.optimizer,
            self.criterion,
            self.searcher.surrep,
            self.searcher.device,
        )
        self.say("Predicted accuracies: " if first else "Trained architectures: ")
        self.say(list(zip(tried, scores, strict=True)))
        if not first:
            self.say(f"with surrogate error: {error}")
            return tried
        sampled = self.sample(tried, scores)
        errors = np.abs(np.array(self.predict(tried)) - np.array(scores))
        self.say(f"Error on accuracies = {errors}")
        return sampled

    def predict(self, configurations: list[np.ndarray]) -> list[float]:
        """Returns the surrogate's scores."""
        return tools.predict_accuracies_with_surrogate(
            configurations, self.progress.surrogate, self.searcher.device
        )

    def sample(self, configurations: list[np.ndarray], scores: list[float]) -> list[np.ndarray]:
        """Draws some of the configurations by their scores, at the step's temperature."""
        temperature = self.searcher.temperature(self.progress.step)
        return tools.sample_k_configurations(
            configurations, scores, self.searcher.num_samples, temperature
        )
