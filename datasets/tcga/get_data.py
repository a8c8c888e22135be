"""TCGA BRCA, KIPAN and LGG: three omics and a clinical table of each patient.

`prepare.py` beside this file writes the folder that is read here. It holds a folder a cohort, with
`rna.csv`, `methylation.csv`, `mirna.csv`, `clinical.csv` and `labels.csv`, each with a header and
the patient's barcode first, and `checksums.json`. A patient is one row, so that a split of rows is
one of patients. The README beside this file says more of the data.
"""

from collections.abc import Sequence
from pathlib import Path

from sklearn.preprocessing import MinMaxScaler
from torch.utils.data import DataLoader

from ..loaders import Part, cut_parts, make_loaders, naming, stratified_split
from .stored import read_patients


def split_arrays(
    data_dir: str | Path,
    cohort: str,
    *,
    modalities: Sequence[str] | None = None,
    clinical: str = "known",
    test_share: float = 0.3,
    valid_share: float = 0.2,
    split_seed: int = 0,
    scale: bool = True,
) -> tuple[Part, Part, Part]:
    """Returns (train, valid, test) as numpy arrays, each (views, labels).

    A part's views are (patients, features_m) float32, its labels (patients,) int64. There is no
    official split: each seed gives one, stratified. No patient is in two parts.

    Args:
        data_dir: see `read_patients`, as the next three.
        cohort: its name.
        modalities: those wanted.
        clinical: which of the clinical columns.
        test_share: test's share of the patients, in (0, 1).
        valid_share: validation's share of the others, in (0, 1).
        split_seed: chooses the split.
        scale: whether features are shifted and stretched so that train spans [0, 1]; the other
            parts follow train's scale.

    Raises:
        FileNotFoundError: see `read_patients`.
        ValueError: see `read_patients`; or if a share leaves a part without a class.
    """
    for name, share in (("test_share", test_share), ("valid_share", valid_share)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {share}; try 0.2")
    found = read_patients(data_dir, cohort, modalities=modalities, clinical=clinical)
    where = Path(data_dir) / cohort
    with naming(where):
        labels, views = found.labels, found.views
        rest, test = stratified_split(
            labels, held_out=round(test_share * len(labels)), seed=split_seed
        )
        kept, held = stratified_split(
            labels[rest], held_out=round(valid_share * len(rest)), seed=split_seed
        )
        train = rest[kept]
        if scale:
            views = [MinMaxScaler().fit(view[train]).transform(view) for view in views]
        return cut_parts(views, labels, (train, rest[held], test), source=where)


def get_dataloader(
    data_dir: str | Path,
    cohort: str = "brca",
    *,
    modalities: Sequence[str] | None = None,
    clinical: str = "known",
    batch_size: int | None = None,
    test_share: float = 0.3,
    valid_share: float = 0.2,
    split_seed: int = 0,
    scale: bool = True,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); a batch is the views and then the labels.

    Args:
        data_dir: see `split_arrays`, as all but the batch size.
        cohort: "brca", "kipan" or "lgg".
        modalities: names, in the order wanted; None takes the three omics.
        clinical: "known", or "all" of the clinical columns.
        batch_size: patients a batch; None puts a whole part into one, as MM-Dynamics trains.
        test_share: test's share of the patients.
        valid_share: validation's share of the others.
        split_seed: chooses the split.
        scale: whether features are scaled so that train spans [0, 1].
    """
    parts = split_arrays(
        data_dir,
        cohort,
        modalities=modalities,
        clinical=clinical,
        test_share=test_share,
        valid_share=valid_share,
        split_seed=split_seed,
        scale=scale,
    )
    return make_loaders(parts, batch_size=batch_size)
