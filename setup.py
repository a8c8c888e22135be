"""Installs as `deq_fusion.*`, so that no top-level name can clash with another package's."""

from pathlib import Path

from setuptools import setup

ROOT = "deq_fusion"  # a namespace without a folder of its own
PACKAGES = (
    "fusions",
    "fusions.equilibrium",
    "fusions.equilibrium.fusion_map",
    "unimodals",
    "objective_functions",
    "training_structures",
    "training_structures.comparison",
    "training_structures.comparison.identity",
    "datasets",
    "datasets.files",
    "datasets.digits",
    "datasets.brca",
    "datasets.affect",
    "datasets.imdb",
    "datasets.vqa",
)
PLOT = ["matplotlib"]
BENCH = ["torchdeq"]
CLUSTER = ["distributed"]
FEATURES = ["transformers", "pillow"]  # raw texts and images
TEST = ["pytest", "setuptools>=70.1"]  # the first setuptools that builds a wheel on its own

setup(
    name="deq-fusion",
    version="0.1.0",
    description="Deep equilibrium multimodal fusion, as a MultiBench-style plugin.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The deq-fusion authors",
    license="MIT",
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.4",
        "numpy",
        "scipy",
        "h5py",
        "tqdm",
        "scikit-learn",
        "joblib>=1.5",  # the first that gives loky's workers an initializer
        "filelock>=4.1",
    ],
    extras_require={
        "plot": PLOT,
        "bench": BENCH,
        "cluster": CLUSTER,
        "features": FEATURES,
        "test": TEST,
        "dev": [*TEST, *PLOT, *BENCH, *CLUSTER, *FEATURES, "ruff"],
    },
    packages=[f"{ROOT}.{package}" for package in PACKAGES],
    package_dir={f"{ROOT}.{package}": package.replace(".", "/") for package in PACKAGES},
)
