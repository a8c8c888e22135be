"""Confusion matrices: which classes are taken for which, summed over a comparison's runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix
from torch import Tensor

from deq_fusion.training_structures.comparison import Recipe
from deq_fusion.training_structures.comparison.report.text import csv_text, in_markdown
from deq_fusion.training_structures.comparison.single_run import Trained
from deq_fusion.training_structures.evaluation import evaluate
from deq_fusion.training_structures.files import write_bytes

from ..target import Target

HEAD = "method", "class", "taken for", "rows"


def count(trained: Trained, recipe: Recipe) -> list[list[int]]:
    """Returns how many rows of each class, the outer lists, were taken for each, the inner ones;
    of a trained model, on the part that is scored."""
    scored = trained.loaders[2 if recipe.part == "test" else 1]
    counts = evaluate(trained.model, scored, metrics=_counts, precision=recipe.precision)
    size = round(len(counts) ** 0.5)
    return np.array(list(counts.values())).astype(int).reshape(size, size).tolist()


def _counts(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    classes = range(prediction.shape[1])
    matrix = confusion_matrix(truth, prediction.argmax(dim=1), labels=classes)
    return {f"{i} {j}": float(matrix[i, j]) for i in classes for j in classes}


def sums(results: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Returns method -> (classes, classes), summed over the runs that counted."""
    found: dict[str, np.ndarray] = {}
    for result in results:
        if "analysis" in result:
            matrix = np.array(result["analysis"])
            found[result["method"]] = found.get(result["method"], 0) + matrix
    return found


def write(
    folder: Path, results: Sequence[Mapping[str, Any]], target: Target, said: Sequence[str]
) -> None:
    """Writes data.md, what was understood and the matrices, and confusion.csv to a folder.

    Raises:
        CannotWrite: if they cannot be written.
    """
    matrices = sums(results)
    names = [] if target.classes is None else list(map(str, target.classes))
    parts = ["# The data", "", *(f"- {in_markdown(sentence)}" for sentence in said)]
    if matrices:
        parts += ["", "# Classes, and what they were taken for", ""]
        parts += ["Rows of the scored parts of all runs; floors are not counted."]
        lines = [
            (method, name, other, int(matrix[i, j]))
            for method, matrix in matrices.items()
            for i, name in enumerate(names)
            for j, other in enumerate(names)
        ]
        write_bytes(folder / "confusion.csv", csv_text(HEAD, lines).encode())
    for method, matrix in matrices.items():
        parts += ["", f"## {in_markdown(method)}", "", *_table(names, matrix)]
    write_bytes(folder / "data.md", ("\n".join(parts) + "\n").encode())


def _table(names: Sequence[str], matrix: np.ndarray) -> list[str]:
    shown = [in_markdown(name) for name in names]
    lines = [["class", *shown], ["---"] * (len(shown) + 1)]
    lines += [[name, *map(str, row)] for name, row in zip(shown, matrix.tolist(), strict=True)]
    return [f"| {' | '.join(line)} |" for line in lines]
