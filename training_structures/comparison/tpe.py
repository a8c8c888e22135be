"""Optuna's search: tree-structured Parzen estimators, and median pruning."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from sklearn.model_selection import ParameterGrid

from ..run import Callback, History, more_is_better
from .methods import Method
from .space import OWN, Choice, Search, Space, choice_of, grid_of, space_of

STARTUP = 5  # trials before the first that others decide: the recipe's own, and draws
PATIENT = 3  # trials that run to their end before one is pruned; so many epochs each runs at least
ATTEMPTS = 20  # at a setting that was not tried yet
EDGE = 2.0**-20  # of the quantiles: at 0 and 1 a distribution may have no value


class TPE(Search):
    """The trials of a method's run: the recipe's own setting, then what Optuna's TPE suggests.

    A suggestion depends on the trials before it, and on the names of method, run and trial, from
    which its sampler is seeded: a search whose trials resume from their checkpoints is the
    undisturbed one. A distribution is searched by its quantiles, so any of scipy's will do.

    Args:
        method: whose trials they are.
        run: its number.
        prune: whether a trial ends when its best score so far is worse than the median of those
            that earlier trials, which ran to their end, had at the same epoch, after the first
            fifth of the recipe's epochs.
    """

    def __init__(self, method: Method, run: int, *, prune: bool) -> None:
        import optuna  # an extra

        self._optuna = optuna
        self._method, self._run, self._prune = method, run, prune
        self._space = space_of(method)
        self._ways = {_name(key): _distribution(values) for key, values in self._space.items()}
        self._tried: list[Choice] = []
        self._trial: Any = None
        self._reported = 0  # epochs of it
        self._maximise = more_is_better(method.recipe.select)
        direction = "maximize" if self._maximise else "minimize"
        whole = {"n_startup_trials": PATIENT, "n_min_trials": PATIENT}
        early = max(PATIENT, method.recipe.epochs // 5)
        with _quiet(optuna):
            pruner = optuna.pruners.MedianPruner(**whole, n_warmup_steps=early)
            self._study = optuna.create_study(direction=direction, pruner=pruner)

    def ask(self) -> Choice:
        found = self._suggested() if self._tried else OWN
        self._tried.append(found)
        return found

    def tell(self, score: float | None, curve: Sequence[float], *, pruned: bool = False) -> None:
        worst = float("-inf" if self._maximise else "inf")
        score = worst if score is None else score
        if self._trial is not None:
            self._report(curve)
            how = {"state": self._optuna.trial.TrialState.PRUNED} if pruned else {"values": score}
            with _quiet(self._optuna):
                self._study.tell(self._trial, **how)
            return
        known = _known(self._method, self._space)
        self._study.add_trial(
            self._optuna.trial.create_trial(
                value=score,
                params=known,
                distributions={name: self._ways[name] for name in known},
                intermediate_values=dict(enumerate(curve)),
            )
        )

    @property
    def callbacks(self) -> list[Callback]:
        return [] if self._trial is None or not self._prune else [self._to_end]

    def _to_end(self, history: History) -> bool:
        """Says after an epoch whether the trial is to end."""
        key = f"valid_{self._method.recipe.select}"
        self._report([record[key] for record in history.epochs])
        return self._trial.should_prune()

    def _report(self, curve: Sequence[float]) -> None:
        """Tells Optuna of the epochs that it does not know: of a resumed trial, several."""
        for epoch in range(self._reported, len(curve)):
            self._trial.report(curve[epoch], epoch)
        self._reported = len(curve)

    def _suggested(self) -> Choice:
        """Returns what no trial has tried, unless there is nothing else."""
        for attempt in range(ATTEMPTS):
            found = self._asked(attempt)
            if found not in self._tried:
                return found
            failed = self._optuna.trial.TrialState.FAIL  # which counts for nothing
            self._study.tell(self._trial, state=failed)
        left = [params for params in self._all() if self._chosen(params) not in self._tried]
        if left:
            self._study.enqueue_trial(random.Random(self._seed(ATTEMPTS)).choice(left))
        return self._asked(ATTEMPTS)

    def _asked(self, attempt: int) -> Choice:
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=self._seed(attempt), n_startup_trials=STARTUP, multivariate=False
        )
        self._trial, self._reported = self._study.ask(self._ways), 0
        return self._chosen(self._trial.params)

    def _seed(self, attempt: int) -> int:
        names = repr((self._method.name, self._run, len(self._tried), attempt))
        return int.from_bytes(sha256(names.encode()).digest()[:4], "big")

    def _chosen(self, params: Mapping[str, Any]) -> Choice:
        point = {key: _value(values, params[_name(key)]) for key, values in self._space.items()}
        return choice_of(point)

    def _all(self) -> Iterable[dict[str, int]]:
        """Yields the parameters of all settings; none if there is no end to them."""
        if grid_of(self._space) is None:
            return []
        return ParameterGrid({_name(k): range(len(v)) for k, v in self._space.items()})


def _name(key: tuple[str, str]) -> str:
    return ".".join(key)


def _distribution(values: Any) -> Any:
    """Returns what Optuna draws from: places among values, or quantiles."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if hasattr(values, "ppf"):
        return FloatDistribution(EDGE, 1 - EDGE)
    return CategoricalDistribution(range(len(values)))


def _value(values: Any, drawn: Any) -> Any:
    if not hasattr(values, "ppf"):
        return values[drawn]
    found = values.ppf(drawn)
    return int(found) if hasattr(values, "pmf") else float(found)


def _known(method: Method, space: Space) -> dict[str, Any]:
    """Returns what of the recipe's own setting lies in the space, as Optuna would draw it."""
    own = {
        "optimizer": getattr(method.recipe.optimizer, "keywords", {}),
        "options": method.recipe.fusion_options.get(method.name, {}),
    }
    found = {}
    for (kind, name), values in space.items():
        if name not in own[kind]:
            continue
        value = own[kind][name]
        if hasattr(values, "ppf"):
            quantile = float(values.cdf(value)) if isinstance(value, int | float) else 0.0
            found |= {_name((kind, name)): quantile} if EDGE <= quantile <= 1 - EDGE else {}
        elif value in list(values):
            found[_name((kind, name))] = list(values).index(value)
    return found


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keeps Optuna from telling of every study and trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
