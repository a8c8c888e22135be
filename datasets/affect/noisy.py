"""Noisy test parts of sequences, one for each modality and level: noised as batches are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..loaders import make_loader
from ..noise import Noise, disturb_steps, draws
from .sequences import Layout, Part, SequenceDataset

LEVELS = 10  # 0, 0.1, ... 0.9, as many as MultiBench's published curves of these sets have
NAMES = {"text": "text", "audio": "audio", "vision": "image"}  # as these curves call them
TOGETHER = "multimodal"


@dataclass(frozen=True)
class Disturbance:
    """How the modalities of a part are noised.

    Attributes:
        modalities: which of them are.
        level: of the noise, in [0, 1].
        seed: of the draws.
        slips: (samples, steps) bool, where a slip may spoil the word of a step of text, see
            `words.may_slip`; None: text is noised as the others are.
        noise: of a sequence (steps, features).
    """

    modalities: tuple[str, ...]
    level: float
    seed: int = 0
    slips: np.ndarray | None = None
    noise: Noise = disturb_steps

    def of(self, part: Part, rows: Sequence[int]) -> Part:
        """Returns some rows of a part, noised up to each sequence's end."""
        views = dict(part.views)
        for name, view in views.items():
            view = view._replace(values=view.values[rows], lengths=view.lengths[rows])
            view = view._replace(present=view.present[rows])
            if name in self.modalities and self.level:
                for sample, row in enumerate(rows):
                    if view.present[sample]:
                        steps = view.values[sample, : view.lengths[sample]]
                        steps[:] = self._noisy(name, steps, row)
            views[name] = view
        return part._replace(views=views, labels=part.labels[rows], ids=None, texts=None)

    def _noisy(self, name: str, steps: np.ndarray, row: int) -> np.ndarray:
        generator = draws(self.seed, name, row)
        if name != "text" or self.slips is None:
            return self.noise(steps, self.level, generator)
        # a word in which letters slip is another, of which there is no vector
        spoilt = self.slips[row, : len(steps)] & (generator.random(len(steps)) < self.level)
        return np.where(spoilt[:, None], np.float32(0), steps)


class NoisySequences(Dataset):
    """A part that is noised when it is indexed with a list of row numbers; see `SequenceDataset`.

    Args:
        part: the clean one.
        layout: of its batches.
        disturbance: of its modalities.
        finish: what is made of a noised part, such as its scaling.
    """

    def __init__(
        self,
        part: Part,
        layout: Layout,
        disturbance: Disturbance,
        finish: Callable[[Part], Part],
    ) -> None:
        self.part, self.layout = part, layout
        self.disturbance, self.finish = disturbance, finish

    def __len__(self) -> int:
        return len(self.part.labels)

    def __getitem__(self, rows: list[int]) -> list[Any]:
        part = self.finish(self.disturbance.of(self.part, rows))
        batch = SequenceDataset(part, self.layout)[list(range(len(rows)))]
        if self.layout.lengths and not self.layout.masks:
            batch[2] = torch.tensor(rows)[:, None]
        return batch


def noisy_loaders(
    part: Part,
    layout: Layout,
    *,
    finish: Callable[[Part], Part],
    slips: np.ndarray | None,
    noise: Noise | None,
    seed: int,
    batch_size: int | None,
) -> Mapping[str, list[DataLoader]]:
    """Returns the loaders of a part under noise in each modality and, of several, in all.

    Args:
        part: the clean part.
        layout: of its batches.
        finish: what is made of a noised part.
        slips: see `Disturbance`.
        noise: of a sequence; None is `disturb_steps`.
        seed: of the draws.
        batch_size: samples a batch; None puts all into one. They are read in this process: so
            many loaders would keep too many others.

    Returns:
        "text", "audio", "image" (of vision) and "multimodal", whose levels are a third -> a
        loader for each of the levels 0, 0.1, ... 0.9.
    """
    own: dict[str, tuple[tuple[str, ...], int]]
    own = {NAMES[name]: ((name,), 1) for name in part.views}
    if len(own) > 1:
        own[TOGETHER] = tuple(part.views), 3

    def loader(names: tuple[str, ...], level: float) -> DataLoader:
        # in all at once, features have the noise, words' too
        words = slips if len(names) == 1 else None
        disturbance = Disturbance(names, level, seed, words, noise or disturb_steps)
        data = NoisySequences(part, layout, disturbance, finish)
        return make_loader(data, batch_size=batch_size, shuffle=False)

    return {
        name: [loader(names, step / (LEVELS * share)) for step in range(LEVELS)]
        for name, (names, share) in own.items()
    }
