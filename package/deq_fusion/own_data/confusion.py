"""Confusion matrices: which classes are taken for which, summed over a comparison's runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix
from torch import Tensor

from deq_fusion.training_structures.comparison import Comparison, Recipe
from deq_fusion.training_structures.comparison.report.findings import Section
from deq_fusion.training_structures.comparison.report.table import markdown
from deq_fusion.training_structures.comparison.report.text import csv_text, in_markdown
from deq_fusion.training_structures.comparison.single_run import Trained
from deq_fusion.training_structures.evaluation import evaluate
from deq_fusion.training_structures.files import write_bytes

from ..target import Target
from .recipe import OwnData

HEAD = "method", "class", "taken for", "rows"
HEADING = "Classes, and what they were taken for"
READ = (
    "Rows are true classes, columns predicted ones; counted are the rows of the scored parts of "
    "all runs, and no floors."
)
SHOWN_CLASSES = 20  # at most, that the page has a matrix of
ENOUGH = 10  # rows of a class, in the scored parts of all runs, from which on its recall is judged
FAR_BELOW = 1 / 3  # of the other classes' mean recall


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


def told(found: Comparison, own: OwnData) -> Comparison:
    """Returns a comparison of classes whose report says which class is rarely found, and has the
    matrix of the method that is chosen; any other as it is."""
    matrices = sums(found.results)
    try:
        name = found.best().name
    except ValueError:
        return found
    if name not in matrices or own.target.classes is None:
        return found
    names, matrix = list(map(str, own.target.classes)), matrices[name]
    said = rarely_found(name, names, matrix, balanced=own.balanced)
    recipe = replace(found.recipe, about=(*found.recipe.about, *said))
    shown: tuple[Section, ...] = ()
    if len(names) <= SHOWN_CLASSES:
        text = f"{READ} Of {name}, the best on validation data; data.md has all methods."
        shown = (Section(HEADING, text, *_cells(names, matrix)),)
    return replace(found, recipe=recipe, sections=shown)


def rarely_found(
    method: str, names: Sequence[str], matrix: np.ndarray, *, balanced: bool
) -> list[str]:
    """Returns a sentence for each class whose recall is under a third of the others' mean.

    Args:
        method: whose matrix it is.
        names: of the classes.
        matrix: (classes, classes), as `sums` returns it.
        balanced: whether every class counts the same in the loss already.
    """
    rows = matrix.sum(axis=1)
    recalls = np.diag(matrix) / np.maximum(rows, 1)
    advice = (
        "classes weigh the same already: more rows of it would help, or merging it with another"
        if balanced
        else "let every class count the same in the loss: class_weight='balanced', "
        "--class-weight balanced"
    )
    said = []
    for number, (name, recall) in enumerate(zip(names, recalls, strict=True)):
        others = np.delete(recalls, number)[np.delete(rows, number) > 0]
        if rows[number] >= ENOUGH and len(others) and recall < FAR_BELOW * others.mean():
            said.append(
                f"class {name} is rarely found: {method} finds {100 * recall:.0f} % of its "
                f"{rows[number]} scored rows in all runs, and {100 * others.mean():.0f} % of the "
                f"other classes on average; {advice}"
            )
    return said


def write(folder: Path, found: Comparison, target: Target) -> None:
    """Writes data.md, what was understood and the matrices, and confusion.csv to a folder.

    Raises:
        CannotWrite: if they cannot be written.
    """
    matrices = sums(found.results)
    names = [] if target.classes is None else list(map(str, target.classes))
    parts = ["# The data", "", *(f"- {in_markdown(text)}" for text in found.recipe.about)]
    if said := found.chosen():
        parts += ["", "# What was chosen", "", in_markdown(said)]
    if matrices:
        parts += ["", f"# {HEADING}", "", READ]
        lines = [
            (method, name, other, int(matrix[i, j]))
            for method, matrix in matrices.items()
            for i, name in enumerate(names)
            for j, other in enumerate(names)
        ]
        write_bytes(folder / "confusion.csv", csv_text(HEAD, lines).encode())
    for method, matrix in matrices.items():
        parts += ["", f"## {in_markdown(method)}", "", markdown(*_cells(names, matrix))]
    write_bytes(folder / "data.md", ("\n".join(parts) + "\n").encode())


def _cells(names: Sequence[str], matrix: np.ndarray) -> tuple[list[str], list[list[str]]]:
    """Returns the heading and the lines of a matrix, as text."""
    lines = [[name, *map(str, row)] for name, row in zip(names, matrix.tolist(), strict=True)]
    return ["class", *names], lines
