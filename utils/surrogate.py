"""The surrogate of MFAS: how well a fusion would do, guessed from how others did.

MFAS (Perez-Rua et al., 2019) trains few of the configurations there are, and has a
recurrent network learn to predict their accuracies, so as to choose which to train next. A
configuration is an array of integers (layers, features): a row for every fusion layer, from the
first; see `fusions.searchable`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class SimpleRecurrentSurrogate(nn.Module):
    """An LSTM over the layers of a configuration, and a sigmoid: its accuracy, from 0 to 1.

    Args:
        num_hidden: width of the LSTM.
        number_input_feats: features of a layer: one a modality, and the nonlinearity.
        size_ebedding: width of a layer's embedding (spelt as MultiBench does).
    """

    def __init__(
        self, num_hidden: int = 100, number_input_feats: int = 3, size_ebedding: int = 100
    ) -> None:
        super().__init__()
        self.num_hidden = num_hidden
        self.embedding = nn.Sequential(nn.Linear(number_input_feats, size_ebedding), nn.Sigmoid())
        self.lstm = nn.LSTM(size_ebedding, num_hidden)
        self.hid2val = nn.Linear(num_hidden, 1)
        self.nonlinearity = nn.Sigmoid()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -0.1, 0.1)
                nn.init.constant_(module.bias, 1.8)

    def forward(self, sequence_of_operations: Tensor) -> Tensor:
        """Maps configurations of equal length, (layers, n, features), to (n, 1)."""
        states, _ = self.lstm(self.embedding(sequence_of_operations))
        return self.nonlinearity(self.hid2val(states[-1]))

    def eval_model(
        self, sequence_of_operations_np: np.ndarray, device: torch.device | str | None = None
    ) -> np.float32:
        """Returns the accuracy predicted for one configuration, (layers, features).

        Args:
            sequence_of_operations_np: the configuration.
            device: where the surrogate is; None: found out.
        """
        weight = self.hid2val.weight
        layers = torch.as_tensor(np.asarray(sequence_of_operations_np)[:, None])
        with torch.no_grad():
            predicted = self(layers.to(weight.device if device is None else device, weight.dtype))
        return predicted.cpu().numpy()[0, 0]


class SurrogateDataloader:
    """A record of the configurations tried: of each the best accuracy it reached."""

    def __init__(self) -> None:
        self._dict_data: dict[int, dict[bytes, tuple[np.ndarray, float]]] = {}

    def add_datum(self, datum_conf: np.ndarray, datum_acc: float) -> None:
        """Keeps the accuracy of a configuration (layers, features), if it is its best."""
        of_length = self._dict_data.setdefault(len(datum_conf), {})
        key = datum_conf.tobytes()
        known = of_length.get(key)
        of_length[key] = (datum_conf, datum_acc if known is None else max(datum_acc, known[1]))

    def known(self) -> list[tuple[np.ndarray, float]]:
        """Returns (configuration, accuracy) of all, those of equal length together."""
        return [datum for data in self._dict_data.values() for datum in data.values()]

    def get_data(self, to_torch: bool = False) -> tuple[list[Any], list[Any]]:
        """Returns, of every length, configurations (layers, n, features) and accuracies (n, 1).

        Args:
            to_torch: as tensors; else as arrays. Both are of float32.
        """
        confs, accs = [], []
        for data in self._dict_data.values():
            known = list(data.values())
            confs.append(np.stack([conf for conf, _ in known], axis=1).astype(np.float32))
            accs.append(np.array([[acc] for _, acc in known], np.float32))
        if to_torch:
            return [torch.from_numpy(x) for x in confs], [torch.from_numpy(x) for x in accs]
        return confs, accs

    def get_k_best(self, k: int) -> tuple[list[np.ndarray], list[float], np.ndarray]:
        """Returns the k best configurations, best first, their accuracies, and their positions.

        Of equals the one that was added first comes first.
        """
        known = self.known()
        if not 1 <= k <= len(known):
            raise ValueError(f"k must be from 1 to the {len(known)} configurations known, got {k}")
        order = np.argsort([-acc for _, acc in known], kind="stable")[:k]
        return [known[i][0] for i in order], [known[i][1] for i in order], order


def train_simple_surrogate(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    data_tensors: tuple[Sequence[Tensor], Sequence[Tensor]],
    num_epochs: int,
    device: torch.device | str | None,
) -> float:
    """Trains a surrogate, a step an epoch for every length there is; returns the last loss.

    Args:
        model: the surrogate; left in evaluation mode.
        criterion: (prediction, accuracy), each (n, 1), to a loss.
        optimizer: of the surrogate.
        data_tensors: as `SurrogateDataloader.get_data(to_torch=True)` returns them.
        num_epochs: at least 1.
        device: where the surrogate is.
    """
    if num_epochs < 1 or not data_tensors[0]:
        raise ValueError(
            "a surrogate needs at least one epoch and one configuration to learn from, got "
            f"num_epochs={num_epochs} and {len(data_tensors[0])} lengths of configurations"
        )
    model.train()
    for _ in range(num_epochs):
        for confs, accs in zip(*data_tensors, strict=True):
            optimizer.zero_grad()
            loss = criterion(model(confs.to(device)), accs.to(device))
            loss.backward()
            optimizer.step()
    model.eval()
    return loss.item()
