"""A fitted estimator as one safetensors file: tensors, and JSON for the rest; no code."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deq_fusion.training_structures.checkpoint import seeded
from deq_fusion.training_structures.choices import TASKS
from deq_fusion.training_structures.files import Damaged, check_regular, shown, write_bytes
from deq_fusion.training_structures.run import check_weights

from .columns import Columns
from .network import in_double
from .target import Target

FORMAT = "deq-fusion model 1"
OWN = "own"  # marks what is one's own, and is given again at loading
KINDS = ("FusionClassifier", "FusionRegressor")  # what a file may say that it holds


def save(estimator: Any, path: str | Path) -> None:
    """Writes a fitted estimator, whole or not at all.

    Args:
        estimator: a `FusionClassifier` or `FusionRegressor`.
        path: the file, as `model.safetensors`.

    Raises:
        NotFittedError: unless it is fitted.
        ValueError: for an option that JSON cannot hold.
        CannotWrite: if the file could not be written.
    """
    from safetensors.torch import save as packed
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator, "network_")
    network = estimator.network_
    tensors = {
        f"network.{name}": (value.float() if value.is_floating_point() else value).cpu()
        for name, value in network.state_dict().items()
    }
    columns = []
    for number, column in enumerate(estimator.columns_.values()):
        state = column.state()
        for name in ("mean", "scale"):
            tensors[f"columns.{number}.{name}"] = torch.from_numpy(state.pop(name))
        columns.append(state)
    about = {
        "format": FORMAT,
        "kind": type(estimator).__name__,
        "parameters": _parameters(estimator),
        "picked": estimator.picked_,
        "n_features_in": int(estimator.n_features_in_),
        "feature_names_in": _listed(getattr(estimator, "feature_names_in_", None)),
        "columns": columns,
        "target": estimator.target_.state(),
        "history": estimator.history_,
        "best_epoch": estimator.best_epoch_,
    }
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    text = json.dumps(about)
    metadata = {"about": text, "sha256": _digest(text, tensors)}
    write_bytes(Path(path), packed(tensors, metadata))


def load(
    path: str | Path,
    kinds: Sequence[type],
    *,
    fusion: Callable[..., Any] | None = None,
    encoders: Mapping[str, nn.Module] | None = None,
) -> Any:
    """Returns the estimator that `save` wrote, on the CPU; nothing in the file can run code.

    Args:
        path: the file.
        kinds: the classes of which it may hold one.
        fusion: the one that was one's own; the file has its weights alone.
        encoders: likewise.

    Raises:
        FileNotFoundError: if there is no such file.
        Damaged: a ValueError, if it is not as it was written, or no saved estimator.
        ValueError: for an estimator of another class, or if what was one's own is not given, or
            is another.
    """
    path = Path(path)
    about, tensors = _read(path)
    kind = _kind(path, about["kind"], kinds)
    own = _own(path, about["parameters"], fusion=fusion, encoders=encoders)
    try:
        plain = {n: _unplain(value) for n, value in about["parameters"].items() if n not in own}
        estimator = _rebuilt(kind, about, tensors, plain | own)
        _check_parts(estimator)
        with seeded(0):  # its parameters are drawn, and then replaced
            network = estimator._network()
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        if fusion is not None or encoders is not None:
            raise ValueError(f"{path}: what was given does not fit the file: {error}") from error
        raise Damaged(
            f"{path} must hold a model of this version, but does not ({shown(str(error))}); "
            "fit it again"
        ) from error
    prefix = "network."
    state = {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
    check_weights(state, network, str(path))
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise Damaged(f"{path} must hold finite weights, but does not; fit it again")
    network.load_state_dict(state)
    views = [np.zeros((2, *c.shape), np.float32) for c in estimator.columns_.values()]
    estimator.network_ = in_double(network, views)
    return estimator


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns what the file says, and its tensors, once its checksum is right."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError) as error:
        raise Damaged(
            f"{path} must be a model that `save` wrote, but is no such file, or cut short "
            f"({shown(str(error))})"
        ) from error
    text = metadata.get("about")
    if text is None:
        raise Damaged(f"{path} is a safetensors file, but of another program; give a saved model")
    if metadata.get("sha256") != _digest(text, tensors):
        raise Damaged(f"{path} is not as it was written: its checksum differs; save it again")
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} must hold JSON, but does not ({shown(str(error))})") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise Damaged(f"{path} must be of the format {FORMAT!r}, but is of {shown(found)}")
    if about.get("kind") not in KINDS or not isinstance(about.get("parameters"), dict):
        raise Damaged(f"{path} must hold one of {KINDS} with its arguments, but does not")
    return about, tensors


def _kind(path: Path, name: str, kinds: Sequence[type]) -> type:
    """Returns the one of these classes that has this name."""
    for kind in kinds:
        if kind.__name__ == name:
            return kind
    wanted = " or ".join(kind.__name__ for kind in kinds)
    raise ValueError(f"{path} must hold a {wanted}, but holds a {name}; load that")


def _rebuilt(
    kind: type, about: dict[str, Any], tensors: dict[str, Tensor], parameters: dict
) -> Any:
    """Returns the estimator with all that it learnt, but for the network."""
    estimator = kind(**parameters)
    estimator.picked_ = about["picked"]
    estimator.n_features_in_ = about["n_features_in"]
    if about["feature_names_in"] is not None:
        estimator.feature_names_in_ = np.array(about["feature_names_in"], object)
    columns = []
    for number, state in enumerate(about["columns"]):
        learnt = {n: tensors[f"columns.{number}.{n}"].numpy() for n in ("mean", "scale")}
        columns.append(Columns.of_state(state | learnt))
    estimator.columns_ = {column.name: column for column in columns}
    estimator.target_ = Target.of_state(about["target"])
    estimator.history_, estimator.best_epoch_ = about["history"], about["best_epoch"]
    return estimator


def _check_parts(estimator: Any) -> None:
    """Raises ValueError unless what an estimator learnt fits together."""
    target, picked = estimator.target_, estimator.picked_
    count = len(target.names or ()) or target.outputs
    _demand("target", target.task in TASKS, count == target.outputs >= 1, _texts(target.names))
    labels = target.task == "classification"
    _demand("classes", labels == (target.classes is not None))
    _demand("classes", not labels or target.classes.shape == (target.outputs,))
    for name, columns in estimator.columns_.items():
        numbers, values = list(columns.categories), list(columns.categories.values())
        numeric = columns.width - len(numbers)
        width = numeric + sum(map(len, values))
        _demand(name, isinstance(name, str), columns.mean.shape == columns.scale.shape)
        _demand(name, columns.mean.shape == (numeric,), columns.shape[-1] == width)
        _demand(name, all(0 <= number < columns.width for number in numbers))
        _demand(name, all(map(len, values)), *map(_texts, values), _texts(columns.names))
        _demand(name, columns.names is None or len(columns.names) == columns.width)
        known = set(range(estimator.n_features_in_))
        _demand(name, picked is None or known.issuperset(picked[name]))
    _demand("columns", picked is None or list(picked) == list(estimator.columns_))
    names = getattr(estimator, "feature_names_in_", None)
    _demand("names", names is None or len(names) == estimator.n_features_in_, _texts(names))


def _demand(what: str, *facts: bool) -> None:
    if not all(facts):
        raise ValueError(f"{what} must fit the rest")


def _texts(values: Any) -> bool:
    return values is None or all(isinstance(value, str) for value in values)


def _parameters(estimator: Any) -> dict[str, Any]:
    """Returns the arguments as JSON can hold them; `OWN` in place of what is code."""
    found = estimator.get_params(deep=False)
    found["fusion"] = found["fusion"] if isinstance(found["fusion"], str) else OWN
    found["encoders"] = OWN if found["encoders"] else None
    found["device"] = str(found["device"])
    if not isinstance(found["random_state"], int | np.integer | None):
        found["random_state"] = None
    return {name: _plain(value, name) for name, value in found.items()}


def _plain(value: Any, name: str) -> Any:
    """Returns a value as JSON holds it, with lists and dicts marked by their kind.

    Raises:
        ValueError: for one that JSON cannot hold.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, slice):
        return {"slice": [_plain(x, name) for x in (value.start, value.stop, value.step)]}
    if isinstance(value, list | tuple | range):
        return {"list": [_plain(x, name) for x in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(k, name), _plain(v, name)] for k, v in value.items()]}
    raise ValueError(
        f"{name} must hold numbers and text, in dicts and lists, to be saved, but holds a "
        f"{type(value).__name__}; name it by text, or pickle the estimator"
    )


def _unplain(value: Any) -> Any:
    """Returns what `_plain` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "slice":
        return slice(*items)
    if kind == "list":
        return [_unplain(x) for x in items]
    if kind == "dict":
        return {_unplain(k): _unplain(v) for k, v in items}
    raise ValueError(f"a value must be a slice, list or dict, got {shown(kind)}")


def _own(path: Path, parameters: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """Returns the arguments that are one's own; their names in the file are marked by `OWN`.

    Raises:
        ValueError: if one is not given where it is needed, or is where it is not.
    """
    for name, value in given.items():
        saved = parameters.get(name)
        if saved == OWN and value is None:
            command = ", or --own-fusion MODULE:NAME" if name == "fusion" else ""
            raise ValueError(
                f"{path} was fitted with {name} of its own, which no file can hold: give the same "
                f"again, as load(path, {name}=...){command}"
            )
        if saved != OWN and value is not None:
            raise ValueError(f"{path} was fitted with {name}={saved!r}: leave out load's {name}")
    return {name: value for name, value in given.items() if parameters.get(name) == OWN}


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _listed(names: np.ndarray | None) -> list[str] | None:
    return None if names is None else names.tolist()
