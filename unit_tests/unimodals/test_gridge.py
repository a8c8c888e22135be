"""GRidge against Newton's method in the primal, and against dense matrices."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

from deq_fusion.unimodals.gridge import Fit, GRidge, fit_dual, moments

GROUPS = [np.arange(0, 5), np.arange(5, 14)]
MULTIPLIERS = np.repeat([0.5, 3.0], [5, 9])
STRENGTH = 2.0


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def drawn(samples, columns=14, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, columns))
    return x, (rng.random(samples) < sigmoid(2 * x[:, 0] - x[:, 1] + 0.5)) * 1.0


def newton(x, y, penalties):
    """Intercept and coefficients that maximise the penalised likelihood, by Newton's method."""
    design = np.column_stack([np.ones(len(x)), x])
    penalty = np.diag([0.0, *penalties])
    beta = np.zeros(design.shape[1])
    for _ in range(60):
        p = sigmoid(design @ beta)
        slope = design.T @ (y - p) - penalty @ beta
        beta = beta + np.linalg.solve(design.T @ np.diag(p * (1 - p)) @ design + penalty, slope)
    return beta[0], beta[1:]


def dual(x, y, strength=STRENGTH, multipliers=MULTIPLIERS):
    return fit_dual((x / multipliers) @ x.T / strength, y)


@pytest.mark.parametrize("samples", [10, 60])  # less than columns, and more
def test_the_dual_fit_is_newtons_in_the_primal(samples):
    x, y = drawn(samples)
    fit = dual(x, y)
    intercept, beta = newton(x, y, STRENGTH * MULTIPLIERS)
    assert_allclose(x.T @ fit.dual / (STRENGTH * MULTIPLIERS), beta, atol=1e-8)
    assert_allclose(fit.intercept, intercept, atol=1e-8)
    assert_allclose(fit.eta, intercept + x @ beta, atol=1e-8)


@pytest.mark.parametrize("strength", [1e-3, 1e6])
def test_it_converges_however_weak_or_strong_the_penalty(strength):
    x, y = drawn(30)
    fit = dual(x, y, strength)
    assert_allclose(fit.dual, y - sigmoid(fit.eta), atol=1e-7)
    assert_allclose(fit.dual.sum(), 0, atol=1e-7)


def test_what_is_left_out_is_a_weighted_ridge_fit_to_the_others():
    x, y = drawn(12)
    fit = dual(x, y)
    p = sigmoid(fit.eta)
    weights, response = p * (1 - p), fit.eta + (y - p) / (p * (1 - p))
    penalty = np.diag([0.0, *(STRENGTH * MULTIPLIERS)])
    design, total = np.column_stack([np.ones(12), x]), 0.0
    for i in range(12):
        kept = np.arange(12) != i
        part, w = design[kept], np.diag(weights[kept])
        beta = np.linalg.solve(part.T @ w @ part + penalty, part.T @ w @ response[kept])
        odds = design[i] @ beta
        total += y[i] * odds - np.log(1 + np.exp(odds))
    assert_allclose(fit.cvl, total, rtol=1e-7)


def test_leaving_out_comes_near_to_fitting_anew():
    x, y = drawn(60)
    total = 0.0
    for i in range(60):
        kept = np.arange(60) != i
        intercept, beta = newton(x[kept], y[kept], 5 * MULTIPLIERS)
        odds = intercept + x[i] @ beta
        total += y[i] * odds - np.log(1 + np.exp(odds))
    assert_allclose(dual(x, y, 5.0).cvl, total, rtol=0.02)


def test_the_moments_are_those_of_dense_matrices():
    x, y = drawn(11)
    x = x / np.sqrt(MULTIPLIERS)
    fit = fit_dual(x @ x.T / STRENGTH, y)
    w = np.diag(fit.roots**2)
    ones = np.ones((11, 1))
    projected = w - w @ ones @ ones.T @ w / w.sum()  # the intercept has no penalty
    inner = x.T @ projected @ x
    m = np.linalg.inv(inner + STRENGTH * np.eye(14))
    c, v = m @ inner, np.diag(m @ inner @ m)
    beta = x.T @ fit.dual / STRENGTH
    matrix, side = moments(x, GROUPS, fit, STRENGTH)
    for g, rows in enumerate(GROUPS):
        ratio = [max(beta[k] ** 2 / v[k] - 1, 0) for k in rows]
        assert_allclose(side[g], np.mean(ratio), rtol=1e-8, atol=1e-12)
        for h, columns in enumerate(GROUPS):
            entries = [c[k, j] ** 2 / v[k] for k in rows for j in columns]
            assert_allclose(matrix[g, h], sum(entries) / len(rows), rtol=1e-8)


def views_of(samples=80, seed=0, classes=2, spread=0.4):
    """A view that tells the classes, and a wider one that tells nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    told = np.eye(classes)[labels] @ rng.normal(scale=spread, size=(classes, 20))
    return [told + rng.normal(size=(samples, 20)), rng.normal(size=(samples, 60))], labels


def test_a_view_that_tells_nothing_is_penalised_more():
    views, labels = views_of()
    model = GRidge().fit(views, labels)
    told, nothing = model.multipliers_[0]
    assert told < 1 < nothing
    fresh, truth = views_of(400, seed=0)
    plain = GRidge(rounds=0).fit(views, labels)
    assert (plain.multipliers_ == 1).all() and plain.strengths_ == model.strengths_
    right = [(m.predict(fresh) == truth).mean() for m in (model, plain)]
    assert right[0] > right[1]


def test_the_first_multipliers_spread_the_penalty_over_all_columns():
    views, labels = views_of()
    (multipliers,) = GRidge(rounds=1).fit(views, labels).multipliers_
    assert_allclose((np.array([20, 60]) / multipliers).sum(), 80)


def test_coefficients_are_those_of_the_penalties_that_were_chosen():
    views, labels = views_of()
    model = GRidge().fit(views, labels)
    x = np.concatenate(views, 1)
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    penalties = model.strengths_[0] * np.repeat(model.multipliers_[0], [20, 60])
    intercept, beta = newton(x, labels, penalties)
    assert_allclose(model.coefficients_[0], beta, atol=1e-8)
    assert_allclose(model.predict_proba(views)[:, 1], sigmoid(intercept + x @ beta), atol=1e-8)


def test_several_classes_are_one_against_the_rest():
    views, labels = views_of(classes=3)
    model = GRidge().fit(views, labels + 5)
    assert model.classes_.tolist() == [5, 6, 7]
    shares = model.predict_proba(views)
    assert_allclose(shares.sum(1), 1)
    ones = [GRidge().fit(views, labels == k).predict_proba(views)[:, 1] for k in range(3)]
    odds = np.stack(ones, 1)
    assert_allclose(shares, odds / odds.sum(1, keepdims=True), rtol=1e-6)
    assert (model.predict(views) == labels + 5).mean() > 0.9


def test_bins_are_columns_of_like_spread():
    views, labels = views_of()
    views[0][:, ::2] *= 10
    model = GRidge(bins=2).fit(views, labels)
    assert model.multipliers_.shape == (1, 4)
    spread = np.concatenate(views, 1).std(0, ddof=1)
    assert model._groups(spread)[1].tolist() == list(range(0, 20, 2))


def test_it_repeats_itself_and_can_be_kept():
    views, labels = views_of(classes=3)
    model, again = GRidge().fit(views, labels), GRidge().fit(views, labels)
    kept = pickle.loads(pickle.dumps(model))
    for other in (again, kept):
        assert (other.predict_proba(views) == model.predict_proba(views)).all()


def test_a_constant_column_and_a_single_view_are_no_obstacle():
    views, labels = views_of()
    views[0][:, 3] = 7
    model = GRidge().fit(views[:1], labels)
    assert (model.multipliers_ == 1).all()
    assert np.isfinite(model.predict_proba(views[:1])).all()


def test_refuses_what_does_not_fit():
    views, labels = views_of()
    fitted = GRidge().fit(views, labels)
    lacking = [views[0], views[1].copy()]
    lacking[1][4] = np.nan
    for call, words in (
        (lambda: GRidge().fit([], labels), "one modality at least, got none"),
        (lambda: GRidge().fit(views, labels * 0), r"two classes at least, got \[0\] alone"),
        (lambda: GRidge().fit(views, labels[1:]), r"shape \(80,\), a class for each row"),
        (lambda: GRidge().fit([views[0], views[1][1:]], labels), "a row for each sample, got sha"),
        (lambda: GRidge().fit(lacking, labels), r"views\[1\] must be finite, but row 4 is not"),
        (lambda: fitted.predict_proba(lacking), r"views\[1\] must be finite"),
        (lambda: fitted.predict_proba(views[::-1]), r"\[20, 60\], got \[60, 20\]"),
        (lambda: GRidge().predict_proba(views), "must follow fit"),
        (lambda: GRidge(bins=21).fit(views, labels), r"bins must be at most .*got 21"),
        (lambda: GRidge(bins=0), "bins must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_nothing_to_tell_the_groups_apart_by_leaves_the_penalties_alone():
    fit = Fit(0.0, np.zeros(6), np.zeros(6), np.full(6, 0.5), -4.0)
    x = np.random.default_rng(0).normal(size=(6, 4))
    _, side = moments(x, [np.arange(2), np.arange(2, 4)], fit, 1.0)
    assert (side == 0).all()
    labels = np.arange(40) % 2
    noise = np.random.default_rng(1).normal(size=(40, 6))
    model = GRidge().fit([noise, noise[::-1]], labels)
    assert np.isfinite(model.multipliers_).all()
