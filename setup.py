"""Installs as `deq_fusion.*`, so that no top-level name can clash with another package's."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
ROOT = "deq_fusion"
FRONT = "package/deq_fusion"  # the folder of that name; the others are mapped into it
PACKAGES = (
    "fusions",
    "fusions.equilibrium",
    "fusions.equilibrium.fusion_map",
    "fusions.robotics",
    "unimodals",
    "unimodals.gentle_push",
    "unimodals.robotics",
    "objective_functions",
    "training_structures",
    "training_structures.comparison",
    "training_structures.comparison.diagnoses",
    "training_structures.comparison.identity",
    "training_structures.comparison.program",
    "training_structures.comparison.report",
    "robustness",
    "datasets",
    "datasets.files",
    "datasets.digits",
    "datasets.brca",
    "datasets.affect",
    "datasets.imdb",
    "datasets.vqa",
    "datasets.synthetic",
    "datasets.tcga",
    "eval_scripts",
    "private_test_scripts",
    "examples",
    "examples.affect",
    "examples.brca",
    "examples.digits",
    "examples.imdb",
    "examples.paradigms",
    "examples.studies",
    "examples.studies.candidates",
    "examples.studies.convergence",
    "examples.studies.cost",
    "examples.studies.gates",
    "examples.studies.paper_tables",
    "examples.studies.structures",
    "examples.studies.uniqueness",
    "examples.synthetic",
    "examples.synthetic.vectors",
    "examples.tcga",
    "examples.vqa",
    "own_data",
    "utils",
)


def folder_of(package: str) -> str:
    """Returns where a package is: in the folder of the front door, or beside it."""
    folder = package.replace(".", "/")
    return f"{FRONT}/{folder}" if (HERE / FRONT / folder).is_dir() else folder


(VERSION,) = re.findall(
    r'^__version__ = "(.+)"$', (HERE / FRONT / "__init__.py").read_text(encoding="utf-8"), re.M
)
PLOT = ["matplotlib"]
BENCH = ["torchdeq"]
CLUSTER = ["distributed"]
FEATURES = ["transformers", "pillow"]  # raw texts and images
PARQUET = ["pyarrow"]
POLARS = ["polars", "pyarrow"]
SEARCH = ["optuna"]
ONNX = ["onnx", "onnxscript"]
LOG = ["tensorboard"]
TEST = ["pytest", "pytest-xdist", "griffe", "setuptools>=70.1"]  # builds a wheel on its own
DOCS = [  # the site's tools need Python 3.11; the rest of the project does not
    f"{name}; python_version >= '3.11'"
    for name in ("mkdocs-material", "mkdocstrings[python]", "latex2mathml", "matplotlib")
]

setup(
    name="deq-fusion",
    version=VERSION,
    description="Deep equilibrium multimodal fusion, as a MultiBench-style plugin.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The deq-fusion authors",
    license="MIT",
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",  # earlier ones may run code that a file of weights holds
        "numpy",
        "scipy",
        "h5py",
        "tqdm",
        "scikit-learn>=1.6",  # the first with validate_data
        "joblib>=1.5",  # the first that gives loky's workers an initializer
        "filelock>=4.1",
        "pandas>=2.0",
        "safetensors>=0.4",
    ],
    extras_require={
        "plot": PLOT,
        "bench": BENCH,
        "cluster": CLUSTER,
        "features": FEATURES,
        "parquet": PARQUET,
        "polars": POLARS,
        "search": SEARCH,
        "onnx": ONNX,
        "log": LOG,
        "test": TEST,
        "docs": DOCS,
        "dev": [
            *(*TEST, *DOCS, *PLOT, *BENCH, *CLUSTER, *FEATURES),
            *(*PARQUET, *POLARS, *SEARCH, *ONNX, *LOG, "ruff", "mypy"),
        ],
    },
    packages=[ROOT, *(f"{ROOT}.{package}" for package in PACKAGES)],
    package_dir={ROOT: FRONT} | {f"{ROOT}.{package}": folder_of(package) for package in PACKAGES},
    package_data={ROOT: ["py.typed"]},
    entry_points={"console_scripts": ["deq-fusion = deq_fusion.command:main"]},
)
