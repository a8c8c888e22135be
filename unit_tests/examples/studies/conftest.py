"""For all studies: pictures of few pixels, and no pages of the comparisons, which are no part of a
study and slow to draw."""

import pytest

from deq_fusion.datasets.digits.get_data import split_arrays
from deq_fusion.datasets.loaders import make_loaders


@pytest.fixture(scope="module", autouse=True)  # tests elsewhere look at pages
def coarse():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deq_fusion.examples.studies.drawing.DPI", 40)
        patch.setattr(
            "deq_fusion.training_structures.comparison.report.report._page", lambda found: ""
        )
        yield


@pytest.fixture(scope="module")
def few_digits():
    """The recipe of digits has 200 of them in each part."""

    def some(*, batch_size, modalities):
        parts = split_arrays(modalities=modalities)
        parts = [([view[:200] for view in views], labels[:200]) for views, labels in parts]
        return make_loaders(parts, batch_size=batch_size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deq_fusion.examples.digits.recipe.get_dataloader", some)
        yield
