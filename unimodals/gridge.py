"""GRidge: logistic ridge regression with a penalty of its own for each group of columns.

van de Wiel et al. (2016, Statistics in Medicine 35:368, arXiv:1411.3496). Of two classes the
coefficients and the intercept b maximise

    sum_i [y_i eta_i - log(1 + exp(eta_i))] - lambda / 2 sum_g m_g ||beta_g||^2,   eta = b + X beta

where a group is a modality (or a bin of its columns), lambda is chosen by leave-one-out
cross-validation with all m_g = 1, and the multipliers m_g come from empirical Bayes: the squared
coefficients of a group say how large its prior variance tau_g^2 is, and m_g ~ 1 / tau_g^2.

Everything is done in the dual, where a fit of p columns costs n^3 for n samples, however large p
is. What is left out samples in turn is exact for least squares, and one step of it for the
logistic loss (Meijer and Goeman, 2013).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import lsq_linear, minimize_scalar
from scipy.special import expit

SPREAD = 1e-5  # the least standard deviation that a column is divided by, as the R package has it
WEIGHT = 1e-10  # the least of a sample's weight p (1 - p), where its probability is certain
BOUND = 1000.0  # how far a group's prior variance may lie from that of all columns
GAIN = 0.01  # by which a second or later round must better the cross-validated likelihood
STRENGTHS = -4.0, 3.0  # exponents of 10 of lambda, in units of the samples' mean squared length


class Fit(NamedTuple):
    """A fit of two classes in the dual: beta_g = X_g^T dual / (lambda m_g).

    Attributes:
        intercept: b.
        dual: (n,) y - p, the derivative of each sample's log-likelihood.
        eta: (n,) log-odds of the samples.
        roots: (n,) square roots of the weights p (1 - p).
        cvl: log-likelihood of the samples, each left out in turn.
    """

    intercept: float
    dual: np.ndarray
    eta: np.ndarray
    roots: np.ndarray
    cvl: float


class GRidge:
    """Group-penalised logistic ridge regression with empirical-Bayes penalties.

    One class against the rest for more than two classes, with the probabilities scaled to sum
    to one. It follows the authors' R package GRridge ("exactstable") but for two things: what is
    left out is approximated (above), and the moment system of the few groups here is not shrunk
    to a diagonal.

    Args:
        bins: groups that the columns of a modality are cut into, of equal size, by their standard
            deviation; 1: a modality is a group.
        rounds: most rounds of empirical Bayes; 0 is plain ridge regression.

    Attributes:
        classes_: (classes,) the labels.
        strengths_: (fits,) lambda of each class against the rest; two classes have one fit.
        multipliers_: (fits, groups) the m_g, modality by modality.
        coefficients_: (fits, columns) beta, of columns that are standardised.
        intercepts_: (fits,) b.
    """

    classes_: np.ndarray
    strengths_: np.ndarray
    multipliers_: np.ndarray
    coefficients_: np.ndarray
    intercepts_: np.ndarray

    def __init__(self, *, bins: int = 1, rounds: int = 10) -> None:
        if bins < 1 or rounds < 0:
            raise ValueError(
                f"bins must be at least 1 and rounds at least 0, got bins={bins}, rounds={rounds}"
            )
        self.bins, self.rounds = bins, rounds

    def fit(self, views: Sequence[np.ndarray], labels: np.ndarray) -> "GRidge":
        """Learns the penalties and coefficients.

        Args:
            views: a (samples, columns_v) array for each modality, one at least.
            labels: (samples,) classes, two at least.

        Raises:
            ValueError: for arrays that do not fit, are not finite, or labels of a single class.
        """
        views, labels = _checked(views), np.asarray(labels)
        if labels.shape != (len(views[0]),):
            raise ValueError(
                f"labels must have shape ({len(views[0])},), a class for each row of the views, "
                f"got {labels.shape}"
            )
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(
                f"labels must have two classes at least, got {self.classes_.tolist()} alone"
            )
        self._widths = [view.shape[1] for view in views]
        columns = np.concatenate(views, 1)
        self._mean, spread = columns.mean(0), columns.std(0, ddof=1)
        self._spread = np.maximum(spread, SPREAD)
        groups = self._groups(spread)
        standard = (columns - self._mean) / self._spread
        chosen = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        kernels = [standard[:, group] @ standard[:, group].T for group in groups]
        fits = [
            _fit_two(standard, kernels, groups, (labels == label) * 1.0, self.rounds)
            for label in chosen
        ]
        strengths, multipliers, intercepts, coefficients = zip(*fits, strict=True)
        self.strengths_, self.multipliers_ = np.array(strengths), np.array(multipliers)
        self.intercepts_, self.coefficients_ = np.array(intercepts), np.array(coefficients)
        return self

    def predict_proba(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the probabilities (samples, classes) of the classes, in the order of `classes_`.

        Args:
            views: as in `fit`, with the same columns.

        Raises:
            ValueError: before `fit`, and for arrays that do not fit or are not finite.
        """
        if not hasattr(self, "coefficients_"):
            raise ValueError("predict_proba must follow fit, got a GRidge that has not learnt")
        views = _checked(views)
        widths = [view.shape[1] for view in views]
        if widths != self._widths:
            raise ValueError(
                f"views must have the columns that were learnt from, {self._widths}, got {widths}"
            )
        standard = (np.concatenate(views, 1) - self._mean) / self._spread
        odds = standard @ self.coefficients_.T + self.intercepts_
        if len(self.classes_) == 2:
            return np.concatenate([expit(-odds), expit(odds)], 1)
        shares = np.maximum(expit(odds), np.finfo(float).tiny)
        return shares / shares.sum(1, keepdims=True)

    def predict(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the most probable class of each sample, (samples,)."""
        return self.classes_[self.predict_proba(views).argmax(1)]

    def _groups(self, spread: np.ndarray) -> list[np.ndarray]:
        """Returns the columns of each group: bins of a modality by their standard deviation."""
        ends = np.cumsum(self._widths)
        modalities = [np.arange(end - w, end) for w, end in zip(self._widths, ends, strict=True)]
        if min(self._widths) < self.bins:
            raise ValueError(
                f"bins must be at most the columns of each modality, {self._widths}, "
                f"got {self.bins}"
            )
        return [
            np.sort(part)
            for columns in modalities
            for part in np.array_split(columns[np.argsort(spread[columns])], self.bins)
        ]


def fit_dual(
    kernel: np.ndarray, y: np.ndarray, start: Fit | None = None, *, tol: float = 1e-10
) -> Fit:
    """Returns the ridge fit of two classes, by damped Newton steps.

    Args:
        kernel: (n, n) sum_g X_g X_g^T / (lambda m_g).
        y: (n,) 0 or 1.
        start: a fit to begin at.
        tol: the change of the log-odds, relative to the largest, at which it ends.
    """
    dual = np.zeros(len(y)) if start is None else start.dual
    intercept = 0.0 if start is None else start.intercept
    eta = intercept + kernel @ dual
    loss = _loss(eta, y, dual, kernel)
    for _ in range(100):
        new_intercept, new_dual = _newton(kernel, y, eta)
        step, moved = 1.0, np.inf
        while step > 1e-8:  # the penalised likelihood is concave, so a short step betters it
            trial = dual + step * (new_dual - dual), intercept + step * (new_intercept - intercept)
            new_eta = trial[1] + kernel @ trial[0]
            value = _loss(new_eta, y, trial[0], kernel)
            if value <= loss + 1e-12 * abs(loss):
                moved = np.abs(new_eta - eta).max()
                (dual, intercept), eta, loss = trial, new_eta, value
                break
            step /= 2
        if not tol * (1 + np.abs(eta).max()) < moved < np.inf:
            break
    roots = _roots(eta)
    return Fit(intercept, dual, eta, roots, _left_out(kernel, y, eta, roots))


def _loss(eta: np.ndarray, y: np.ndarray, dual: np.ndarray, kernel: np.ndarray) -> float:
    return float((np.logaddexp(0, eta) - y * eta).sum() + dual @ (kernel @ dual) / 2)


def _roots(eta: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(expit(eta) * expit(-eta), WEIGHT))


def _newton(kernel: np.ndarray, y: np.ndarray, eta: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns intercept and dual of the weighted ridge fit to the working response at `eta`."""
    roots = _roots(eta)
    factor = _factor(kernel, roots)
    response = roots * eta + (y - expit(eta)) / roots
    solved, ones = cho_solve(factor, np.stack([response, roots], 1)).T
    intercept = float(roots @ solved / (roots @ ones))  # so that the dual sums to zero
    return intercept, roots * (solved - intercept * ones)


def _factor(kernel: np.ndarray, roots: np.ndarray) -> tuple[np.ndarray, bool]:
    weighted = roots[:, None] * kernel * roots
    weighted.flat[:: len(roots) + 1] += 1
    return cho_factor(weighted, lower=True, overwrite_a=True, check_finite=False)


def _left_out(kernel: np.ndarray, y: np.ndarray, eta: np.ndarray, roots: np.ndarray) -> float:
    """Returns the log-likelihood of every sample under the weighted fit to the others."""
    triangle, _ = _factor(kernel, roots)
    inverse = solve_triangular(triangle, np.eye(len(y)), lower=True, check_finite=False)
    towards = inverse.T @ (inverse @ roots)
    rest = (inverse**2).sum(0) - towards**2 / (roots @ towards)  # 1 - the sample's leverage
    residual = (y - expit(eta)) / roots**2
    odds = eta + residual - residual / np.maximum(rest, WEIGHT)
    return float((y * odds - np.logaddexp(0, odds)).sum())


def _fit_two(
    columns: np.ndarray,
    kernels: Sequence[np.ndarray],
    groups: Sequence[np.ndarray],
    y: np.ndarray,
    rounds: int,
) -> tuple[float, np.ndarray, float, np.ndarray]:
    """Returns lambda, the multipliers, intercept and coefficients of one class against the rest."""
    multipliers = np.ones(len(groups))
    strength, fit = _best_strength(np.sum(kernels, axis=0), y)
    for done in range(rounds if len(groups) > 1 else 0):
        system = moments(columns / np.sqrt(_spread_out(multipliers, groups)), groups, fit, strength)
        new = multipliers * _multipliers(*system, sizes=np.array([len(g) for g in groups]))
        mixed = sum(k / m for k, m in zip(kernels, new, strict=True))
        better = fit_dual(mixed / strength, y, fit)
        gain = (better.cvl - fit.cvl) / abs(fit.cvl)
        if not (gain > GAIN or (done == 0 and gain >= 0)):
            break
        multipliers, fit = new, better
    coefficients = columns.T @ fit.dual / (strength * _spread_out(multipliers, groups))
    return strength, multipliers, fit.intercept, coefficients


def _spread_out(values: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the values of groups as those of their columns."""
    spread = np.empty(sum(map(len, groups)))
    for value, group in zip(values, groups, strict=True):
        spread[group] = value
    return spread


def _best_strength(kernel: np.ndarray, y: np.ndarray) -> tuple[float, Fit]:
    """Returns the lambda with the highest cross-validated likelihood, and its fit."""
    unit = np.trace(kernel) / len(y) or 1.0
    seen: list[tuple[float, Fit]] = []

    def loss(exponent: float) -> float:
        strength = unit * 10**exponent
        start = seen[-1][1] if seen else None
        seen.append((strength, fit_dual(kernel / strength, y, start, tol=1e-3)))
        return -seen[-1][1].cvl

    minimize_scalar(loss, bounds=STRENGTHS, method="bounded", options={"xatol": 0.05})
    strength, fit = max(seen, key=lambda tried: tried[1].cvl)
    return strength, fit_dual(kernel / strength, y, fit)


def moments(
    columns: np.ndarray, groups: Sequence[np.ndarray], fit: Fit, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the equations of the prior variances, matrix @ tau^2 = side, of a fit at `strength`.

    With weights W, whose intercept is projected out of X^T W X, M = (X^T W X + lambda I)^-1,
    C = M X^T W X and v_k the k-th diagonal entry of M X^T W X M, a coefficient's square is
    expected to be sum_l c_kl^2 tau_l^2 + v_k. In units of v_k, averaged over a group g:

        (1 / p_g) sum_k max(beta_k^2 / v_k - 1, 0) = (1 / p_g) sum_h tau_h^2 sum_kl c_kl^2 / v_k

    Args:
        columns: (n, p) the columns, divided by the roots of their multipliers.
        groups: the numbers of each group's columns.
        fit: the fit at these multipliers.
        strength: lambda.

    Returns:
        The matrix (groups, groups) and the right side (groups,).
    """
    weighted = fit.roots[:, None] * columns
    weighted -= np.outer(fit.roots, fit.roots @ weighted / (fit.roots @ fit.roots))
    inner = [weighted[:, group] @ weighted[:, group].T for group in groups]
    dual = np.sum(inner, axis=0)
    dual.flat[:: len(dual) + 1] += strength
    maps = cho_solve(cho_factor(dual, lower=True), weighted)  # (n, p), the rows of M X^T sqrt(W)
    variance = np.maximum((maps**2).sum(0), np.finfo(float).tiny)
    squares = (columns.T @ fit.dual / strength) ** 2 / variance
    maps /= np.sqrt(variance)
    side = np.array([np.maximum(squares[group] - 1, 0).mean() for group in groups])
    outer = [maps[:, group] @ maps[:, group].T / len(group) for group in groups]
    return np.array([[(a * b).sum() for b in inner] for a in outer]), side


def _multipliers(matrix: np.ndarray, side: np.ndarray, *, sizes: np.ndarray) -> np.ndarray:
    """Returns the multipliers 1 / tau^2 of groups, scaled so that sum_g p_g / m_g is p."""
    pooled = side.sum() / matrix.sum()
    if not pooled > 0:  # no coefficient is larger than noise: nothing tells groups apart
        return np.ones(len(sizes))
    scaled = lsq_linear(matrix * pooled, side, bounds=(1 / BOUND, BOUND)).x
    return (sizes @ scaled) / (sizes.sum() * scaled)


def _checked(views: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the views as float64, if there are any, of the same samples, and finite."""
    views = [np.asarray(view, dtype=np.float64) for view in views]
    if not views:
        raise ValueError("views must hold one modality at least, got none")
    shapes = [view.shape for view in views]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or len({s[0] for s in shapes}) > 1:
        raise ValueError(f"views must be matrices with a row for each sample, got shapes {shapes}")
    for number, view in enumerate(views):
        if not np.isfinite(view).all():
            raise ValueError(
                f"views[{number}] must be finite, but row {np.argwhere(~np.isfinite(view))[0][0]} "
                "is not; leave out samples that lack a modality, or fill in what they lack"
            )
    return views
