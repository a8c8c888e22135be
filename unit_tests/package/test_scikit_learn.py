"""The estimators inside scikit-learn: its own checks, and what composes estimators."""

import numpy as np
import pytest
import sklearn
from joblib import Parallel, delayed
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from deq_fusion import FusionClassifier, FusionRegressor
from unit_tests.package.models import PARTS, QUICK, VIEWS, X, Y, classifier, mixed

EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "weights and repeated rows have the same loss, but repeated rows make other batches and "
        "another validation part, as of all that is trained by batches"
    ),
}
SMALL = {"width": 16, "epochs": 5, "lr": 3e-2, "fusion_options": {"max_steps": 5}}
CHECKED = [FusionClassifier, pytest.param(FusionRegressor, marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", CHECKED)
@pytest.mark.filterwarnings("ignore")  # the checks provoke them
def test_scikit_learns_own_checks(kind):
    estimator = kind("deq", **SMALL)
    results = check_estimator(
        estimator, expected_failed_checks=EXPECTED_FAILURES, on_fail=None, on_skip=None
    )
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert failed == {}
    names = [r["check_name"] for r in results if r["status"] == "xfail"]
    assert names == list(EXPECTED_FAILURES)
    assert sum(r["status"] == "passed" for r in results) >= 55


def test_groups_that_are_routed_keep_both_cuts_apart():
    """As the documentation has it: the same as fits by hand that are given the groups."""
    groups = np.arange(len(Y)) // 3 % 12
    cut = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    model = classifier("concat", modalities=PARTS)
    with sklearn.config_context(enable_metadata_routing=True):
        model.set_fit_request(groups=True)
        found = cross_validate(
            model, X, Y, cv=cut, params={"groups": groups}, return_estimator=True
        )["estimator"]
    for fitted, (known, _) in zip(found, cut.split(X, Y, groups), strict=True):
        of_groups, of_rows = (
            classifier("concat", modalities=PARTS).fit(X[known], Y[known], groups=told)
            for told in (groups[known], None)
        )
        np.testing.assert_array_equal(fitted.predict_proba(X), of_groups.predict_proba(X))
        assert not np.allclose(fitted.predict_proba(X), of_rows.predict_proba(X))


def test_cross_validate_takes_the_matrix_and_refuses_a_dict():
    found = cross_validate(classifier(modalities=PARTS), X, Y, cv=2, return_estimator=True)
    rows = next(StratifiedKFold(2).split(X, Y))
    first = classifier(modalities=PARTS).fit(X[rows[0]], Y[rows[0]])
    assert found["test_score"][0] == first.score(X[rows[1]], Y[rows[1]])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        cross_validate(classifier(), VIEWS, Y, cv=2)


def test_a_frame_with_text_is_cross_validated():
    frame, y = mixed()
    names = {"who": ["age", "sex"], "what": ["treated", "dose"]}
    assert len(cross_validate(classifier(modalities=names), frame, y, cv=2)["test_score"]) == 2


@pytest.mark.slow
def test_a_grid_over_fusions_in_parallel():
    grid = {"fusion": ["concat", "deq"], "width": [4, 8]}
    search = GridSearchCV(classifier(modalities=PARTS, epochs=2), grid, cv=2, n_jobs=2).fit(X, Y)
    assert search.best_params_ in list(map(dict, search.cv_results_["params"]))
    assert len(search.cv_results_["params"]) == 4
    assert search.predict(X).shape == (178,) and search.best_estimator_.network_ is not None


def test_a_pipeline():
    whole = make_pipeline(StandardScaler(), classifier(modalities=PARTS)).fit(X, Y)
    assert whole.score(X, Y) == classifier(modalities=PARTS).fit(X, Y).score(X, Y)
    frame, y = mixed()
    keep = ColumnTransformer([("numbers", "passthrough", ["age", "dose"])])
    assert make_pipeline(keep, classifier()).fit(frame, y).predict(frame).shape == (40,)


@pytest.mark.slow
def test_joblib_fits_and_passes_fitted_ones():
    def fitted(width):
        return FusionClassifier("deq", modalities=PARTS, **QUICK | {"width": width}).fit(X, Y)

    models = Parallel(n_jobs=2)(delayed(fitted)(width) for width in (4, 8))
    assert [model.network_.head.in_features for model in models] == [4, 8]
    here = fitted(8).predict_proba(X)
    np.testing.assert_allclose(models[1].predict_proba(X), here, rtol=1e-4)
