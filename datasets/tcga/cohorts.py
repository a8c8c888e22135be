"""The three cohorts: what is told of their patients, and which clinical columns give it away."""

from collections.abc import Mapping
from dataclasses import dataclass, field

OMICS = {"mRNA": "rna", "methylation": "methylation", "miRNA": "mirna"}
"""The omics, each with the name of its table."""
CLINICAL = "clinical"
MODALITIES = (*OMICS, CLINICAL)
TREATED = "a treatment, chosen after the diagnosis and by how grave it was"
RECORDED = "whether a treatment was recorded, after the diagnosis"


@dataclass(frozen=True)
class Cohort:
    """A cohort of patients.

    Attributes:
        about: its cancer.
        label: what is told of a patient.
        classes: their names, in the order of the labels.
        given_away: clinical column -> why it defines the label, or may follow it.
        caution: a sentence on the label that whoever reads scores needs.
    """

    about: str
    label: str
    classes: tuple[str, ...]
    given_away: Mapping[str, str] = field(default_factory=dict)
    caution: str = ""


COHORTS: Mapping[str, Cohort] = {
    "brca": Cohort(
        "breast invasive carcinoma",
        "PAM50 subtype",
        ("Luminal A", "HER2-enriched", "Luminal B", "Basal-like", "Normal-like"),
        caution="PAM50 is computed from the expression of 50 genes, so that mRNA defines the "
        "label, and the rest can only add where mRNA here lacks some of them.",
    ),
    "kipan": Cohort(
        "kidney cancer, three kinds of it",
        "early or late pathologic stage",
        ("early", "late"),
        {"radiation_therapy_yes": TREATED, "radiation_therapy_nan": RECORDED},
    ),
    "lgg": Cohort(
        "lower grade glioma",
        "vital status at the last contact",
        ("alive", "dead"),
        {
            "radiation_therapy_yes": TREATED,
            "radiation_therapy_nan": RECORDED,
            "karnofsky_performance_score": "taken at various times, some after treatment, which "
            "the table does not tell apart",
        },
        caution="Vital status does not say for how long a patient was followed: some who are "
        "called alive were lost to sight early.",
    ),
}


def find_cohort(name: str) -> Cohort:
    """Returns a cohort by its name.

    Raises:
        ValueError: lists the known ones, if it is none of them.
    """
    if name not in COHORTS:
        raise ValueError(f"cohort must be one of {list(COHORTS)}, got {name!r}")
    return COHORTS[name]
