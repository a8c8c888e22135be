"""Every method in every run: what is asked for is checked, carried out, and brought together."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from ..checkpoint import seeded
from ..evaluation import usable
from ..event_log import Watch
from ..workers import watched
from .comparison import Comparison
from .diagnoses.looking import check_diagnose, diagnosed
from .doubling import check_doubled, doubled
from .identity.identities import Identities
from .identity.reuse import Reuse
from .methods import BASELINE, Method, gather
from .recipe import Fusion, Recipe, Score
from .results import check_alike
from .robustness import check_levels, check_noise, measured
from .search import check_search, searched_by, told
from .single_run import Analysis, run_floor, run_fusion
from .store import opened, provenance
from .systems import System
from .work import Work

TWICE = "twice"  # folder of the runs with twice the epochs


def compare(
    recipe: Recipe,
    fusions: Mapping[str, Fusion | System],
    runs: int | Sequence[int] = 20,
    *,
    output: str | Path | None = None,
    baseline: str | None = None,
    subject: str | None = None,
    metric: str | None = None,
    unimodal: bool = True,
    trials: int = 1,
    prune: bool = False,
    drop_modality: bool = False,
    robustness: bool | Sequence[float] | None = None,
    diagnose: bool = False,
    double_epochs: bool = False,
    analyse: Analysis | None = None,
    jobs: int | None = 1,
    threads: int = 1,
    device: str = "cpu",
    progress: bool = True,
    watch: Watch | None = None,
) -> Comparison:
    """Trains every method (floors, single modalities, systems, fusions) in every run, and compares
    them.

    With an `output`, each result is written to `output`/runs as soon as it is there, and read
    from there if it is there already, unless code, data or versions have changed since: then it
    is made again, and the old file kept under another name. A run that was interrupted goes on
    from its checkpoint.

    Args:
        recipe: the benchmark.
        fusions: name -> fusion, see `recipe.Fusion` and `methods.refusal`; or -> system, such as
            those of `recipe.systems`.
        runs: their number, or their numbers: the seed and, if the recipe resplits, the split of
            each.
        output: folder of the results; None: nothing is kept.
        baseline: the method that the others are tested against; None: "concat", if it is there.
        subject: the fusion that the comparison is about, set off in text and pictures.
        metric: the score to compare by; None: the recipe's first.
        unimodal: whether every single modality is a method, too.
        trials: hyperparameter settings that every fusion tries in every run, on validation data.
        prune: whether trials end early that are worse than earlier ones, see `tpe.TPE`.
        drop_modality: whether to score with each modality missing, too.
        robustness: whether to score, too, with rising noise in each modality and in all, and
            where a rising share of the samples lacks one, see `robustness.measured`; or the
            levels of these, from 0 to 1 at most, in place of 0, 0.1, ... 1. The recipe must say
            how its modalities are noised (`Recipe.noise`).
        diagnose: whether to find out, too, what each modality brings to every fusion, whether they
            interact in it, and how well it is calibrated, see `diagnoses.looking.diagnosed`: a
            pass over the scored part for every set of modalities, or two.
        double_epochs: whether to train the methods that the bound on epochs may have stopped again
            with twice as many, and to tell whether validation gains by it, see `doubling`.
        analyse: (trained, recipe) -> what JSON can hold; it is called with every trained model
            (`single_run.Trained`), and what it returns is stored with the run as `analysis`.
        jobs: processes to run in parallel; None leaves it to joblib's `parallel_config`, which
            may name another backend, such as dask: its workers need the same folders.
        threads: threads of each process.
        device: where to train.
        progress: shows a bar over the runs on a terminal, elsewhere a line a minute, with about
            how long the others take.
        watch: sees every epoch of every training, and changes nothing; see `event_log`.

    Returns:
        What was found; runs that failed are among it, and do not keep the others from ending.

    Raises:
        InUse: if another process is at work in `output`.
        MixedSettings: if `output` holds other runs.
        Unwritable: if it cannot be written to.
        Halted: if it cannot go on for now, such as on a full disk; what is finished stays.
        ValueError: for no runs, for the same one twice, for a name that is not there, for too many
            trials, for what no fusion takes, for levels that do not rise from 0 or a modality
            without a noise where robustness is asked for, for too many modalities to diagnose,
            for a search with twice the epochs, for what cannot be sent to other processes, or for
            what cannot be told from others (`identity.values.Unidentified`).
    """
    runs, levels = _numbers(runs), check_levels(robustness)
    if levels is not None:
        check_noise(recipe)
    if diagnose:
        check_diagnose(recipe)
    if double_epochs:
        check_doubled(trials)
    methods, skipped = gather(replace(recipe, refit=None), fusions, unimodal=unimodal)
    _check_fusions(fusions, methods, skipped, subject)
    baseline, scores = _known_baseline(baseline, methods), _scores(metric, recipe)
    by = _searched_by(methods, trials, prune=prune, progress=progress)
    usable(device)
    test_share = _test_share(recipe, runs[0])
    rare = {"prune": prune or None, "robustness": levels, "analyse": analyse}
    rare |= {"diagnose": True if diagnose else None}
    demands = _demands(trials, drop_modality, rare)
    looks: dict[str, Any] = {"analyse": analyse, "robustness": None if levels is None else measured}
    looks |= {"diagnose": diagnosed if diagnose else None}
    identities = Identities(run_fusion, run_floor, search=by, **looks)
    reuse = Reuse(identities, {method.name: identities.of(method) for method in methods})
    with _folder(output, recipe, reuse.aside) as folder, watched():
        how = jobs, threads, device, progress, watch, scores, output is not None
        work = Work(recipe.name, folder, methods, runs, demands, reuse, *how)
        reused = work.carry_out()
        found = [work.done[m.name, run] | {"kind": m.kind} for m in methods for run in runs]
        results = [result for result in found if "error" not in result]
        check_alike(results, folder)
    failures = [result for result in found if "error" in result]
    score, asked = _first_there(scores, results), _call(recipe, fusions, runs, trials, unimodal)
    judged = score, baseline, subject, test_share, asked, provenance(threads, device)
    made = Comparison(recipe, methods, results, skipped, failures, reused, *judged)
    if not double_epochs:
        return made
    same: dict[str, Any] = {"jobs": jobs, "threads": threads, "device": device}
    same |= {"runs": runs, "metric": score.name, "unimodal": False, "progress": progress}
    again = partial(compare, **same)
    kept = None if output is None else Path(output) / TWICE
    return replace(made, doubled=doubled(made, again, kept))


def _demands(trials: int, drop_modality: bool, rare: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is asked of every run besides its number; what is rare, only if it is asked:
    stored runs are compared by it."""
    asked = {name: value for name, value in rare.items() if value is not None}
    return {"trials": trials, "drop_modality": drop_modality, **asked}


@contextmanager
def _folder(output: str | Path | None, recipe: Recipe, aside: list[Path]) -> Iterator[Path]:
    """Yields the folder of the runs; without an output, one that is gone afterwards."""
    with ExitStack() as stack:
        kept = output or stack.enter_context(TemporaryDirectory(prefix="comparison-"))
        yield stack.enter_context(opened(kept, recipe, aside))


def _numbers(runs: int | Sequence[int]) -> list[int]:
    numbers = list(range(runs)) if isinstance(runs, int) else list(runs)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"runs must be different numbers, at least one, got {runs}")
    return numbers


def _check_fusions(
    fusions: Mapping[str, Fusion | System],
    methods: Sequence[Method],
    skipped: Mapping[str, str],
    subject: str | None,
) -> None:
    if not fusions:
        raise ValueError("fusions must name at least one fusion, got none")
    if subject not in (None, *fusions):
        raise ValueError(f"unknown subject {subject!r}; choose from {', '.join(fusions)}")
    if not methods:
        reasons = "; ".join(f"{name} {reason}" for name, reason in skipped.items())
        raise ValueError(f"no fusion takes this dataset: {reasons}")


def _known_baseline(baseline: str | None, methods: Sequence[Method]) -> str | None:
    names = [method.name for method in methods]
    if baseline not in (None, *names):
        raise ValueError(f"unknown baseline {baseline!r}; choose from {', '.join(names)}")
    return baseline or (BASELINE if BASELINE in names else None)


def _scores(metric: str | None, recipe: Recipe) -> Sequence[Score]:
    """Returns those of a recipe's scores to compare by: the first that the results have."""
    chosen = [score for score in recipe.scores if metric in (None, score.name)]
    if not chosen:
        known = ", ".join(score.name for score in recipe.scores)
        raise ValueError(f"unknown metric {metric!r}; choose from {known}")
    return chosen


def _first_there(scores: Sequence[Score], results: Sequence[Mapping[str, Any]]) -> Score:
    if not results:
        return scores[0]
    there = results[0]["scores"]
    for score in scores:
        if score.name in there:
            return score
    raise ValueError(f"this set has no {scores[0].name}; choose a metric from {', '.join(there)}")


def _searched_by(
    methods: Sequence[Method], trials: int, *, prune: bool, progress: bool
) -> str | None:
    """Returns what searches, and says so; None if nothing does.

    Raises:
        ValueError: if there are fewer settings of a method to try than trials.
    """
    for method in methods:
        if method.fusion is not None:
            check_search(method, trials)  # before any work
    by = searched_by(trials, prune=prune)
    if by is not None and progress:
        tqdm.write(told(trials, by), file=sys.stderr)
    return by


def _test_share(recipe: Recipe, run: int) -> float | None:
    """Returns scored samples per training sample where runs are fresh splits of one set; the data
    are read in any case, so that what is wrong with them is told before any work."""
    with seeded(run):
        train, valid, test = recipe.loaders(run)
    if not recipe.resplit:
        return None
    return len((test if recipe.part == "test" else valid).dataset) / len(train.dataset)


def _call(
    recipe: Recipe, fusions: Iterable[str], runs: list[int], trials: int, unimodal: bool
) -> str:
    """Returns a call as text, for the reader of a report."""
    more = f", trials={trials}" * (trials > 1) + ", unimodal=False" * (not unimodal)
    return f"compare({recipe.name}, {list(fusions)}, runs={runs}{more})"
