"""The measure of a trained model: the shares of its gates, step by step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deq_fusion.examples.studies.gates.rows import NoisyFusion, with_noise
from deq_fusion.examples.studies.study import is_deq, only_fusion
from deq_fusion.fusions.analysis import gate_shares, trace
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.comparison import Recipe
from deq_fusion.training_structures.comparison.single_run import Trained
from deq_fusion.training_structures.evaluation import inputs_of

CHUNK, DIGITS = 512, 5  # samples that are solved at a time; decimals that are kept

Curves = list[list[float]]
"""Shares, [steps][modalities]."""


def measure(trained: Trained, recipe: Recipe, *, steps: int, samples: int) -> dict[str, Any]:
    """Returns the shares of the gate in a joint solve, from the image of zero on.

    Args:
        trained: a model with DEQ fusion, or with `NoisyFusion`, which is then asked about the
            noise that it was scored with.
        recipe: what it was trained by; its scored part is looked at.
        steps: of the solve, which nothing ends sooner.
        samples: after so many no further batch is read.

    Returns:
        `samples` and `shares`, [steps][modalities]; `groups`: class -> the same of its samples,
        see `groups_of`; and without noise in training `noise_at_inference`: modality -> shares
        with noise in its features. Empty for fusions without gates.
    """
    fusion = only_fusion(trained)
    deq = fusion.fusion if isinstance(fusion, NoisyFusion) else fusion
    if not is_deq(deq) or deq.fuse is None or not deq.fuse.gate:
        return {}
    _, valid, test = trained.loaders
    scored = test if recipe.part == "test" else valid
    features, truth = inputs_of(deq, trained.model, scored, enough=samples)
    gates = gates_of(deq, features, steps)
    result = _shares(gates) | {
        "groups": {
            name: _shares(gates[:, members])
            for name, members in groups_of(truth, recipe.task).items()
        }
    }
    if fusion is deq and len(features) > 1:
        result["noise_at_inference"] = {
            name: _shares(gates_of(deq, _noisy(features, index), steps))["shares"]
            for index, name in enumerate(recipe.modalities)
        }
    return result


def gates_of(fusion: DEQFusion, features: Sequence[Tensor], steps: int) -> Tensor:
    """Returns the mean of |G(z + z_i)| over entries, (steps, samples, N), of a joint solve.

    The solver is the fusion's. A sample that has arrived to the last bit stays where it is.
    """
    device, found = next(fusion.parameters()).device, []
    for chunk in zip(*(x.split(CHUNK) for x in features), strict=True):
        chunk = [x.to(device) for x in chunk]
        gates = trace(fusion, chunk, joint=True, steps=steps)["joint"].gates.cpu()
        found.append(_filled(gates, steps))
    return torch.cat(found, dim=1)


def groups_of(truth: Any, task: str) -> dict[str, Tensor]:
    """Returns group -> which samples it has, (samples,) bool, of groups that have any.

    The groups are the classes, the labels (whoever has several is in several), or of regression
    what is below, at and above zero. There are none for truths of another form.

    Args:
        truth: (n,) or (n, 1) classes or numbers, or (n, labels) of 0 and 1.
        task: see `Recipe`.
    """
    if not isinstance(truth, Tensor):
        return {}
    if task == "multilabel":
        found = {f"label {k}": has > 0 for k, has in enumerate(truth.T)} if truth.dim() == 2 else {}
    elif truth.numel() != len(truth):
        found = {}
    elif task == "classification":
        labels = truth.flatten()
        found = {f"class {int(k)}": labels == k for k in labels.unique().tolist()}
    else:
        y = truth.flatten()
        found = {"below zero": y < 0, "zero": y == 0, "above zero": y > 0}
    return {name: members for name, members in found.items() if members.any()}


def _noisy(features: Sequence[Tensor], modality: int) -> list[Tensor]:
    return with_noise(features, modality, torch.Generator().manual_seed(0))


def _shares(gates: Tensor) -> dict[str, Any]:
    rows = gate_shares(gates.double()).tolist()
    return {"samples": gates.shape[1], "shares": [[round(x, DIGITS) for x in row] for row in rows]}


def _filled(gates: Tensor, steps: int) -> Tensor:
    rows = [gates[0]]
    for step in range(1, steps):
        row = gates[step] if step < len(gates) else rows[-1]
        rows.append(torch.where(row.isnan(), rows[-1], row))
    return torch.stack(rows)
