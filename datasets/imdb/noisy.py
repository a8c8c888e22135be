"""Noisy test sets of films: features that are lost, or the noisy ones that MultiBench has kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..files.numbers import as_float32
from ..files.reading import check_file
from ..noise import Noise, draws

LEVELS = 11  # 0, 0.1, ... 1, as many as MultiBench's published curves of this set have
KEPT = {"image": "vgg_features_{}.npy", "text": "text_features_{}.npy"}  # as MultiBench names them


class NoisyFilms(Dataset):
    """Films with noise in one modality; `films[[3, 1]]` is a batch as the clean ones give it.

    Args:
        films: the clean ones.
        place: of the modality in a batch.
        name: of the modality, which the draws depend on.
        level: of the noise, in [0, 1].
        noise: of a film's features.
        seed: of the draws.
    """

    def __init__(
        self, films: Dataset, place: int, name: str, level: float, noise: Noise, seed: int
    ) -> None:
        self.films, self.place, self.name = films, place, name
        self.level, self.noise, self.seed = level, noise, seed

    def __len__(self) -> int:
        return len(self.films)  # type: ignore[arg-type]  # which any map-style one has

    def __getitem__(self, indices: Sequence[int]) -> list[Tensor]:
        batch = list(self.films[indices])
        if self.level:
            batch[self.place] = torch.stack(
                [self._noisy(x, row) for x, row in zip(batch[self.place], indices, strict=True)]
            )
        return batch

    def _noisy(self, features: Tensor, row: int) -> Tensor:
        noisy = self.noise(features.numpy(), self.level, draws(self.seed, self.name, row))
        return torch.from_numpy(np.asarray(noisy)).to(features)


class KeptFilms(Dataset):
    """Films of which one modality's features are another array's, a row a film.

    Args:
        films: the clean ones.
        place: of the modality in a batch.
        features: (films, d).
    """

    def __init__(self, films: Dataset, place: int, features: np.ndarray) -> None:
        self.films, self.place, self.features = films, place, features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, indices: Sequence[int]) -> list[Tensor]:
        batch = list(self.films[indices])
        batch[self.place] = torch.from_numpy(self.features[np.asarray(indices, dtype=np.intp)])
        return batch


def noisy_films(
    films: Dataset, modalities: Sequence[str], noise: Noise, seed: int
) -> dict[str, list[Dataset]]:
    """Returns modality -> the films with noise in it, at the levels 0, 0.1, ... 1."""
    return {
        name: [NoisyFilms(films, i, name, n / (LEVELS - 1), noise, seed) for n in range(LEVELS)]
        for i, name in enumerate(modalities)
    }


def kept_films(
    films: Any, modalities: Sequence[str], folders: Sequence[Path]
) -> dict[str, list[Dataset]]:
    """Returns modality -> the films with the features of each level that MultiBench has kept.

    Args:
        films: the clean ones, with `widths`.
        modalities: of a batch, in order.
        folders: where the files may be, the first that has one first.

    Raises:
        FileNotFoundError: if one of the files is in none of the folders.
        ValueError: if one is damaged, or of other films or features.
    """
    return {
        name: [
            KeptFilms(films, i, _read(KEPT[name].format(n), folders, len(films), films.widths[i]))
            for n in range(LEVELS)
        ]
        for i, name in enumerate(modalities)
    }


def _read(file: str, folders: Sequence[Path], films: int, width: int) -> np.ndarray:
    path = next((p for folder in folders if (p := folder / file).is_file()), folders[0] / file)
    check_file(path, advice="skip_process=True takes noisy features that MultiBench has kept")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} must be a whole array of numbers, but {error}") from error
    if not isinstance(found, np.ndarray) or found.shape != (films, width):
        raise ValueError(
            f"{path} must be ({films}, {width}), a row for each film of test, got "
            f"{getattr(found, 'shape', type(found).__name__)}; is it of another set?"
        )
    return as_float32(found, f"features in {path}")
