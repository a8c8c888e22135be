"""Cohorts of TCGA with MM-Dynamics as the host: all but the data is BRCA's recipe."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from deq_fusion.datasets.tcga.cohorts import CLINICAL, COHORTS, OMICS, find_cohort
from deq_fusion.datasets.tcga.get_data import get_dataloader
from deq_fusion.examples.brca.recipe import SIZES
from deq_fusion.examples.brca.recipe import recipe as hosted
from deq_fusion.examples.noise import vectors
from deq_fusion.training_structures.comparison import Loaders, Recipe, Score
from deq_fusion.training_structures.metrics import classification

SCORES = "accuracy", "f1_macro", "f1_weighted", "auc"
TABLES = {  # clinical -> the modalities there are
    "none": tuple(OMICS),
    "known": (*OMICS, CLINICAL),
    "all": (*OMICS, CLINICAL),
}


def recipe(
    data_dir: str | Path | None = None,
    *,
    official: bool = False,
    cohort: Annotated[str, f"which patients: {', '.join(COHORTS)}"] = "brca",
    clinical: Annotated[
        str,
        "the clinical table as a fourth modality: none; known, its columns but those that define "
        "the label or may follow it; all",
    ] = "none",
    sizes: Annotated[
        str, f"how large the host is, and how it is trained: {', '.join(SIZES)}"
    ] = "ours",
    hidden: Annotated[int | None, "width of the features; by default that of sizes"] = None,
    balanced: Annotated[
        bool, "let all classes count alike in training, and select by macro F1"
    ] = False,
) -> Recipe:
    """Returns the recipe for a cohort; a run is a seed and a fresh stratified split of patients.

    Raises:
        ValueError: without a folder, and for settings that make no sense.
    """
    if data_dir is None:
        raise ValueError(
            "data_dir (--data-dir) must name the folder of the cohorts; get them with: "
            "deq-fusion prepare tcga --data-dir DIR"
        )
    if official:
        raise ValueError("the cohorts have no official split: leave out official (--official)")
    folder = Path(data_dir)
    about = find_cohort(cohort)
    if clinical not in TABLES:
        raise ValueError(f"clinical must be one of {list(TABLES)}, got {clinical!r}")
    modalities = TABLES[clinical]
    more = "" if clinical == "none" else f", clinical columns: {clinical}"
    more += ", classes balanced" * balanced
    return replace(
        hosted(folder, sizes=sizes, hidden=hidden, balanced=balanced),
        name=f"TCGA {cohort.upper()}, {about.label}, {SIZES[sizes].label}, fresh splits{more}",
        modalities=modalities,
        load=partial(load, folder, cohort, "all" if clinical == "all" else "known"),
        metrics=classification,
        scores=[Score(name) for name in SCORES],
        noise=dict.fromkeys(modalities, vectors),
        about=notes(cohort, clinical),
    )


def load(
    data_dir: Path, cohort: str, clinical: str, run: int, modalities: Sequence[str]
) -> Loaders:
    """Returns the loaders of a run, whose number decides the split."""
    return get_dataloader(
        data_dir, cohort, modalities=modalities, clinical=clinical, split_seed=run
    )


def notes(cohort: str, clinical: str) -> list[str]:
    """Returns sentences on the label, and on the clinical columns that give it away."""
    about = find_cohort(cohort)
    told = [about.caution] if about.caution else []
    if clinical == "none" or not about.given_away:
        return told
    why = "; ".join(f"{column} ({reason})" for column, reason in about.given_away.items())
    verb = "left out" if clinical == "known" else "in use, though they may give the label away"
    return [*told, f"Clinical columns that are {verb}: {why}."]
