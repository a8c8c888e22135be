"""Tables 5 to 8 of Ni et al. (2023, arXiv:2306.16645) as printed: DEQ fusion taken apart."""

from collections.abc import Mapping

from deq_fusion.examples.studies.paper_tables.paper import TABLE_1, TABLE_2, TABLE_3
from deq_fusion.examples.studies.paper_tables.rows import Ablation

ABLATIONS: Mapping[int, Ablation] = {
    5: Ablation(
        "Parts of DEQ fusion left out, on BRCA",
        {"brca": TABLE_1.scores},
        {
            "only_weighted_sum": {"brca": "87.6±0.4 87.9±0.4 84.3±0.8"},
            "no_equilibrium": {"brca": "86.2±0.6 86.5±0.6 82.9±0.9"},
            "no_f_fuse": {"brca": "88.8±0.4 89.4±0.4 87.2±0.8"},
            "no_f_theta": {"brca": "88.3±0.5 88.8±0.5 86.0±1.0"},
            "full": {"brca": "89.1±0.7 89.7±0.7 87.6±1.0"},
        },
    ),
    6: Ablation(
        "The gate of DEQ fusion left out, on BRCA",
        {"brca": TABLE_1.scores},
        {
            "no_gate": {"brca": "88.4±0.8 89.0±0.8 86.1±1.1"},
            "full": {"brca": "89.1±0.7 89.7±0.7 87.6±1.0"},
        },
    ),
    7: Ablation(
        "Parts of DEQ fusion left out, on MM-IMDB and CMU-MOSI",
        {"imdb": TABLE_2.scores, "mosi": TABLE_3.scores},
        {
            "only_weighted_sum": {"imdb": "58.76 49.63", "mosi": "43.3 83.3 83.2 0.755 0.786"},
            "no_equilibrium": {"imdb": "60.73 52.64", "mosi": "43.0 83.6 83.6 0.757 0.787"},
            "no_f_fuse": {"imdb": "59.80 49.27", "mosi": "43.7 84.8 84.9 0.741 0.782"},
            "no_f_theta": {"imdb": "60.76 53.09", "mosi": "45.3 84.4 84.3 0.747 0.782"},
            "no_gate": {"imdb": "60.83 52.67", "mosi": "43.8 83.1 83.1 0.751 0.789"},
            "full": {"imdb": "61.52 53.38", "mosi": "46.1 85.4 85.4 0.737 0.797"},
        },
    ),
}

STEPS = (1, 10, 20, 40, 100)
CONVERGENCE: Mapping[str, tuple[str, str]] = {  # dataset -> its name, figures as printed at `STEPS`
    "brca": ("BRCA", "7.06e-1 3.38e-2 8.80e-3 5.18e-3 1.29e-3"),
    "imdb": ("MM-IMDB", "2.86e-1 9.17e-4 7.65e-5 8.87e-6 2.17e-6"),
    "mosi": ("CMU-MOSI", "3.09e-2 4.16e-7 6.94e-8 5.66e-8 5.66e-8"),
}
NAMES = {dataset: name for dataset, (name, _) in CONVERGENCE.items()}
