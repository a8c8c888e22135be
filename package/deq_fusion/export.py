"""A fitted estimator's network for use without this library: `torch.export`, or ONNX."""

import io
import logging
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.files import write_bytes

ROWS = 3  # of the example that is traced; any other number may come later
TOLERANCE = 1e-4  # by which its result may be off, float32 as it is
EQUILIBRIUM = "cannot follow"  # of the plugin's own error


def export(estimator: Any, path: str | Path) -> str:
    """Writes the network of a fitted estimator as a program for any number of rows.

    Where all columns are numbers, the scaling is part of it: it takes raw float32, NaN where a
    cell, or all of a modality, is missing. Otherwise it takes what `preprocessed` gives: the
    numbers of every modality and, of several, which rows have it, (rows, modalities) bool. It
    returns probabilities, or the numbers predicted, as float32. Before it is written it is run,
    and must give what the network does.

    Args:
        estimator: a `FusionClassifier` or `FusionRegressor`.
        path: ends in .pt2, for `torch.export.load`, or .onnx.

    Returns:
        A sentence that says what goes in and what comes out.

    Raises:
        NotFittedError: unless it is fitted.
        ValueError: for another ending, or a network that cannot be exported.
    """
    path = Path(path)
    if path.suffix not in (".pt2", ".onnx"):
        raise ValueError(f"an export must end in .pt2 or .onnx, got {path.name!r}")
    if path.suffix == ".onnx":
        _check_onnx()
    check_is_fitted(estimator, "network_")
    module = Exported(estimator).eval()
    program, rows = _program(module, estimator), _rows(module, estimator, ROWS + 2)
    if path.suffix == ".onnx":
        content, found = _onnx(program, module.names, rows)
    else:
        content, found = _saved(program, rows)
    error = float((found - module(*rows).detach()).abs().max())
    if not error <= TOLERANCE * max(1.0, float(found.abs().max())):
        raise ValueError(
            f"an export must compute what the network does, but is off by {error:.1g}; export to "
            "the other kind of file (.pt2, .onnx), or with another version of torch"
        )
    write_bytes(path, content)
    return module.said


def solves(network: nn.Module) -> bool:
    """Says whether a network solves for an equilibrium, which cannot be exported."""
    fusions = (module for module in network.modules() if isinstance(module, DEQFusion))
    return any(fusion.unroll is None for fusion in fusions)


class Exported(nn.Module):
    """A network with what surrounds it: scaling before, probabilities after.

    Args:
        estimator: a fitted one.

    Attributes:
        names: of the inputs.
        said: a sentence on inputs and outputs.
    """

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        columns = estimator.columns_
        self.network = _single(estimator.network_)
        self.task = estimator.target_.task
        self.raw = not any(column.categories for column in columns.values())
        picked = estimator.picked_ if self.raw else None
        self.together = picked is not None  # all columns are one matrix
        self.names = ["X"] if self.together else list(columns)
        self.told = not self.raw and len(columns) > 1  # which rows have a modality
        self.names += ["present"] * self.told
        if self.raw:
            for number, column in enumerate(columns.values()):
                for name in ("mean", "scale"):
                    value = torch.from_numpy(getattr(column, name)).float()
                    self.register_buffer(f"{name}_{number}", value)
        if picked is not None:
            every = torch.arange(estimator.n_features_in_)
            for number, columns_of_one in enumerate(picked.values()):
                self.register_buffer(f"columns_{number}", every[columns_of_one])
        what = "raw numbers, NaN where missing"
        if not self.raw:
            kind = "FusionRegressor" if self.task == "regression" else "FusionClassifier"
            what = f"what deq_fusion.{kind}.load(MODEL).preprocessed(tables) returns, as tensors"
        what += ", float32" + ", and bool for `present`" * self.told
        gives = "the predicted numbers" if self.task == "regression" else "probabilities"
        self.said = f"takes {', '.join(self.names)} ({what}), and returns {gives}"

    def forward(self, *inputs: Tensor) -> Tensor:
        views, present = list(inputs), None
        if self.told:
            *views, present = views
        if self.together:
            views = [inputs[0].index_select(1, c) for c in self._numbered("columns")]
        if self.raw:
            if len(views) > 1:
                here = [~view.isnan().flatten(1).all(dim=1) for view in views]
                present = torch.stack(here, dim=1)
            scaling = self._numbered("mean"), self._numbered("scale")
            views = [_scaled(*each) for each in zip(views, *scaling, strict=True)]
        outputs = self.network.outputs(views, present)
        if self.task == "regression":
            return outputs
        return outputs.softmax(dim=1) if self.task == "classification" else outputs.sigmoid()

    def _numbered(self, name: str) -> list[Tensor]:
        """Returns the buffers of a name, one a modality."""
        buffers = dict(self.named_buffers(recurse=False))
        return [value for key, value in buffers.items() if key.startswith(f"{name}_")]


def _scaled(view: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    scaled = (view - mean) / scale
    return torch.where(scaled.isnan(), 0.0, scaled)


def _single(network: nn.Module) -> nn.Module:
    """Returns a copy in float32, on the CPU."""
    return deepcopy(network).cpu().float().eval()


def _rows(module: Exported, estimator: Any, rows: int) -> tuple[Tensor, ...]:
    """Returns as many rows as are asked for of what goes in, the same at every call."""
    columns = list(estimator.columns_.values())
    if module.together:
        shapes = [(estimator.n_features_in_,)]
    else:
        shapes = [(*c.shape[:-1], c.width) if module.raw else c.shape for c in columns]
    draw = torch.Generator().manual_seed(0)
    views = [torch.randn(rows, *shape, generator=draw) for shape in shapes]
    if module.told:  # in turns a row lacks a modality
        views.append(torch.arange(rows)[:, None] % (len(shapes) + 1) != torch.arange(len(shapes)))
    return tuple(views)


def _program(module: Exported, estimator: Any) -> torch.export.ExportedProgram:
    """Returns the traced program; what cannot be traced is a ValueError."""
    example = _rows(module, estimator, ROWS)
    batch = torch.export.Dim("batch")
    dynamic = {"inputs": tuple({0: batch} for _ in example)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of itself
            return torch.export.export(module, example, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # torch.export fails in many ways
        if EQUILIBRIUM in str(error):
            named = estimator.fusion if isinstance(estimator.fusion, str) else "FUSION"
            raise ValueError(
                "an equilibrium cannot be exported, only a fixed number of steps: fit with "
                'fusion_options={"unroll": 6}, which solves nothing; on the command line: '
                f"deq-fusion compare ... --option {named}.unroll=6 --save MODEL"
            ) from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"torch.export must follow the whole network, but cannot: {first[:200]}; fit another "
            "fusion or encoder"
        ) from error


def _saved(program: torch.export.ExportedProgram, rows: tuple[Tensor, ...]) -> tuple[bytes, Any]:
    """Returns the program's file, and what it makes of these rows."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    result = torch.export.load(buffer).module()(*rows)
    return buffer.getvalue(), result.detach()


def _onnx(
    program: torch.export.ExportedProgram, names: list[str], rows: tuple[Tensor, ...]
) -> tuple[bytes, Any]:
    """Returns the same of the program's ONNX, run by ONNX's own reference."""
    from onnx.reference import ReferenceEvaluator

    noisy = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # it says which packages are not there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what other packages say of themselves
            options: dict[str, Any] = {"dynamo": True, "verbose": False, "input_names": names}
            exported = torch.onnx.export(program, **options, output_names=["output"])
            model = exported.model_proto
            given = {name: value.numpy() for name, value in zip(names, rows, strict=True)}
            (result,) = ReferenceEvaluator(model).run(None, given)
    finally:
        noisy.setLevel(level)
    return model.SerializeToString(), torch.from_numpy(result)


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"an export to .onnx needs onnx and onnxscript: pip install onnx onnxscript ({error})"
        ) from error
