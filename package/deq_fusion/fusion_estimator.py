"""The estimator behind the classifier and the regressor: X as views, training, outputs, files."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, check_consistent_length, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deq_fusion.training_structures.checkpoint import seeded
from deq_fusion.training_structures.evaluation import usable
from deq_fusion.training_structures.fit import fit, load_best

from . import saving
from .choosing import choose_fusion
from .columns import Columns
from .network import FusionNetwork, build_network, in_double, make_loader
from .target import Target
from .training import DEFAULTS, Training, cut_validation
from .views import Picked, check_told, dict_views, matrix_views, pick_columns, presence

ROWS = 1024  # that are predicted at once


class UnseenWords(UserWarning):
    """A column has words that were not there to learn from: they count as missing."""


class FusionEstimator(BaseEstimator):
    """An estimator that trains any fusion; for arguments and attributes see `FusionClassifier`."""

    network_: FusionNetwork
    columns_: dict[str, Columns]
    target_: Target
    history_: list[dict[str, float]]
    best_epoch_: int | None
    picked_: Picked | None  # of a matrix, the columns of each modality
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        fusion: str | Callable[..., Any] = "deq",
        *,
        fusion_options: Mapping[str, Any] | None = None,
        modalities: Mapping[str, Any] | None = None,
        width: int = DEFAULTS.width,
        dropout: float = DEFAULTS.dropout,
        lr: float = DEFAULTS.lr,
        weight_decay: float = DEFAULTS.weight_decay,
        epochs: int = DEFAULTS.epochs,
        batch_size: int = DEFAULTS.batch_size,
        patience: int = DEFAULTS.patience,
        validation_fraction: float = DEFAULTS.validation_fraction,
        encoders: Mapping[str, nn.Module] | None = None,
        device: str | torch.device = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.fusion = fusion
        self.fusion_options = fusion_options
        self.modalities = modalities
        self.width = width
        self.dropout = dropout
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.encoders = encoders
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> "FusionEstimator":
        """Trains on the rows, stopped by a part of them that is not learnt from.

        The global random generators are left as they were.

        Args:
            X: {name: frame or array (rows, columns) or (rows, time, d)}, a row that is all NaN
                being one that lacks this modality; or one matrix or frame (rows, columns).
            y: (rows,), or (rows, k) of labels 0 and 1, or of numbers.
            sample_weight: (rows,) what each counts, at least 0.
            groups: (rows,) rows of one group are learnt from, or stopped by, together.

        Raises:
            ValueError: for data or arguments that make no sense.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        if not hasattr(y, "iloc") and not hasattr(y, "toarray"):
            y = np.asarray(y)
        views = self._views(X, fitting=True)
        first = next(iter(views.values()))
        check_consistent_length(first, y, groups)
        if self.picked_ is None:  # of a dict; a matrix is scikit-learn's, which looks at no index
            check_told(views, {"y": y, "groups": groups, "sample_weight": sample_weight})
        weight = None
        if sample_weight is not None:
            rows = np.empty((len(first), 1))
            weight = _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
            kept = np.flatnonzero(weight)  # a row that counts nothing is as good as not there
            if not len(kept):
                raise ValueError("sample_weight must be positive somewhere, but all are zero")
            views = {name: _safe_indexing(view, kept) for name, view in views.items()}
            y, weight = _safe_indexing(y, kept), weight[kept]
            groups = None if groups is None else _safe_indexing(groups, kept)
        self._train(views, y, weight, groups)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Returns a prediction for each row, as y was given: (rows,) or (rows, k).

        It is computed in double precision, so that it does not depend on the rows beside it.
        """
        outputs = self._outputs(X)
        return self.target_.predict(outputs)

    def save(self, path: str | Path) -> None:
        """Writes the fitted estimator to one safetensors file: tensors, and JSON for the rest.

        Raises:
            ValueError: for options that no file can hold.
        """
        saving.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        fusion: Callable[..., Any] | None = None,
        encoders: Mapping[str, nn.Module] | None = None,
    ) -> "FusionEstimator":
        """Returns the estimator that `save` wrote; nothing in the file can run code.

        Args:
            path: the file.
            fusion: the one that was one's own, of which the file has the numbers alone.
            encoders: likewise.

        Raises:
            ValueError: for a file that is damaged or of another kind, or if one's own fusion or
                encoders are not given.
        """
        return saving.load(path, [cls], fusion=fusion, encoders=encoders)

    def export(self, path: str | Path) -> str:
        """Writes the network for use without this library: a `torch.export` program, or ONNX.

        Args:
            path: ends in .pt2, or in .onnx.

        Returns:
            A sentence that says what goes in and what comes out; see `export.export`.

        Raises:
            ValueError: for another ending, or an equilibrium, which cannot be exported.
        """
        from .export import export

        return export(self, path)

    def preprocessed(self, X: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns what the encoders get of each modality, (rows, d) or (rows, time, d) float32,
        and which rows have it, (rows, modalities) bool; warns of words that are `unseen`."""
        check_is_fitted(self, "network_")
        views = self._views(X)
        present = presence(views)
        numbers = self._numbers(views, present)
        if said := self._unseen(views, present):
            warnings.warn("; ".join(said), UnseenWords, stacklevel=2)  # one place: shown once
        return numbers, present

    def unseen(self, X: Any) -> list[str]:
        """Returns a sentence for each column with words that were not there to learn from, which
        count as missing."""
        check_is_fitted(self, "network_")
        views = self._views(X)
        return self._unseen(views, presence(views))

    def lacking(self, X: Any) -> np.ndarray:
        """Returns (rows,) text: which modalities a row lacks, and which words of it were not there
        to learn from; "" where there is neither."""
        check_is_fitted(self, "network_")
        views = self._views(X)
        present = presence(views)
        told: list[list[str]] = [[] for _ in present]
        for (name, view), here in zip(views.items(), present.T, strict=True):
            for row in np.flatnonzero(~here):
                told[row].append(name)
            columns = [] if view is None else self.columns_[name].new_words(view, here)
            for column, cells, new in columns:
                for row in np.flatnonzero(new):
                    told[row].append(f"{column} of {name} (new: {cells[row]})")
        return np.array(["; ".join(texts) for texts in told], object)

    def _unseen(self, views: Mapping[str, Any], present: np.ndarray) -> list[str]:
        there = [
            self.columns_[name].unseen(view, here)
            for (name, view), here in zip(views.items(), present.T, strict=True)
            if view is not None
        ]
        return [sentence for sentences in there for sentence in sentences]

    def _training(self) -> Training:
        names = Training.__dataclass_fields__
        return Training(**{name: getattr(self, name) for name in names})

    def _views(self, X: Any, *, fitting: bool = False) -> dict[str, Any]:
        """Returns each modality's view of X, checked as scikit-learn does."""
        if isinstance(X, Mapping) and not hasattr(X, "toarray"):  # a sparse form is one, too
            if self.modalities is not None:
                raise ValueError("modalities must be None where X is a dict, whose names they are")
            if not fitting and self.picked_ is not None:
                raise ValueError("X must be one matrix or frame, as it was fitted with, got a dict")
            views = dict_views(X, None if fitting else list(self.columns_))
            if fitting:
                self.picked_ = None
                self.__dict__.pop("feature_names_in_", None)  # of a frame that was fitted before
                self.n_features_in_ = sum(view.shape[-1] for view in views.values())
            return views
        if not fitting and self.picked_ is None:
            raise ValueError(
                f"X must be a dict of {list(self.columns_)}, as it was fitted with, got a "
                f"{type(X).__name__}"
            )
        X = self._matrix(X, fitting)
        if fitting:
            self.picked_ = pick_columns(X, self.modalities)
        return matrix_views(X, self.picked_)

    def _matrix(self, X: Any, fitting: bool) -> Any:
        """Returns X as an array of numbers, or as the frame that it is where it holds text."""
        if type(X).__module__.startswith("polars"):
            X = X.to_pandas()
        if hasattr(X, "iloc"):
            validate_data(self, X, reset=fitting, skip_check_array=True)
            return X
        return validate_data(self, X, reset=fitting, ensure_all_finite="allow-nan")

    def _class_weights(self, y: Any) -> np.ndarray | None:
        """Returns what each row counts by its class; None if all do the same."""
        return None

    def _train(self, views: dict[str, Any], y: Any, weight: np.ndarray | None, groups: Any) -> None:
        """Sets what follows from the data, and trains the network."""
        training, device = self._training(), usable(self.device)
        self.target_ = target = Target.of(y, self._task(y))
        by_class = self._class_weights(y)
        if by_class is not None:
            weight = by_class if weight is None else weight * by_class
        present, truth = presence(views), target.encode(y)
        seed, share = _seed(self.random_state), training.validation_fraction
        classes = truth.numpy() if target.task == "classification" else None
        kept, held = cut_validation(len(truth), classes, fraction=share, seed=seed, groups=groups)
        self.columns_ = {
            name: Columns(name).fit(_safe_indexing(view, kept), present[kept, number])
            for number, (name, view) in enumerate(views.items())
        }
        data = self._numbers(views, present)
        with seeded(seed):
            network = self._network(truth[kept])
            train = _loader(data, present, weight, truth, kept, training.batch_size, shuffle=True)
            valid = _loader(data, present, weight, truth, held, training.batch_size)
            history = fit(
                network,
                train,
                valid,
                target.objective,
                epochs=training.epochs,
                optimizer=training.optimizer,
                patience=None if valid is None else training.patience,
                device=device,
                progress=bool(self.verbose),
            )
        load_best(network, history)
        self.history_, self.best_epoch_ = history.epochs, history.best_epoch
        self.network_ = in_double(network, [view[:2] for view in data.values()])

    def _numbers(self, views: Mapping[str, Any], present: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what the encoders get of each modality."""
        found = {}
        for (name, view), here in zip(views.items(), present.T, strict=True):
            columns = self.columns_[name]
            if view is None:
                found[name] = np.zeros((len(present), *columns.shape), np.float32)
            else:
                found[name] = columns.transform(view, here)
        return found

    def _network(self, truth: Tensor | None = None) -> FusionNetwork:
        """Returns a network with new parameters for the fitted columns and target.

        Args:
            truth: what is learnt from, whose units the outputs are in; None: they will be loaded.
        """
        names, target = list(self.columns_), self.target_
        own = self.encoders or {}
        unknown = [name for name in own if name not in names]
        if unknown:
            raise ValueError(f"encoders must be of the modalities {names}, got {unknown}")
        fusion = choose_fusion(self.fusion, self.fusion_options, count=len(names), task=target.task)
        return build_network(
            fusion,
            [columns.shape for columns in self.columns_.values()],
            target.outputs,
            width=self.width,
            dropout=self.dropout,
            encoders=[own.get(name) for name in names],
            units=target.units(torch.zeros(1, target.outputs) if truth is None else truth),
        )

    def _outputs(self, X: Any) -> Tensor:
        """Returns the network's outputs, (rows, outputs)."""
        views, present = self.preprocessed(X)
        like = next(self.network_.parameters())
        tensors = [torch.from_numpy(view).to(like) for view in views.values()]
        here = None if present.all() else torch.from_numpy(present).to(like.device)
        found = []
        with torch.no_grad():
            for start in range(0, len(present), ROWS):
                rows = slice(start, start + ROWS)
                batch = [tensor[rows] for tensor in tensors]
                found.append(self.network_.outputs(batch, None if here is None else here[rows]))
        return torch.cat(found)


def _seed(random_state: int | np.random.RandomState | None) -> int:
    """Returns a seed; None draws one from the system, not from a global generator."""
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))
    return int(check_random_state(random_state).randint(2**31 - 1))


def _loader(
    data: Mapping[str, np.ndarray],
    present: np.ndarray,
    weight: np.ndarray | None,
    truth: Tensor,
    rows: np.ndarray,
    batch_size: int,
    *,
    shuffle: bool = False,
) -> DataLoader | None:
    """Returns the batches of some rows; None if there are none."""
    if not len(rows):
        return None
    mean = 1 if weight is None else weight.mean()
    return make_loader(
        [view[rows] for view in data.values()],
        truth[rows],
        present=None if present.all() else present[rows],
        weight=None if weight is None else weight[rows] / mean,
        batch_size=batch_size,
        shuffle=shuffle,
    )
