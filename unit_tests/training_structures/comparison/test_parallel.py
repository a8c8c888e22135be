"""More processes, here or on a dask cluster, give the scores of one."""

from contextlib import nullcontext
from functools import partial

import joblib
import pytest

from unit_tests.training_structures.comparison import toy


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return toy.scores(toy.run(tmp_path_factory.mktemp("alone"), drop_modality=True))


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(tmp_path, alone):
    found = toy.run(tmp_path, jobs=2, drop_modality=True)
    assert toy.scores(found) == alone
    assert [(r["method"], r["run"]) for r in found.results] == list(alone)


def test_without_a_number_of_jobs_joblib_decides(tmp_path, alone):
    assert toy.scores(toy.run(tmp_path, jobs=None, drop_modality=True)) == alone


@pytest.mark.slow
def test_a_failure_in_another_process_is_told(tmp_path, alone):
    changes = {"fusion_options": {"sum": {"fail": True}}}
    found = toy.run(tmp_path, jobs=2, drop_modality=True, changes=changes)
    assert [(f["method"], f["run"]) for f in found.failures] == [("sum", 0), ("sum", 1)]
    assert all("this fusion fails" in failure["error"] for failure in found.failures)
    assert toy.scores(found) == {k: v for k, v in alone.items() if k[0] != "sum"}


def load_apart(run, modalities):
    """The toy's data, the training part read by a process of its own."""
    train, *others = toy.load(run, modalities)
    return type(train)(train.dataset, batch_size=train.batch_size, num_workers=1), *others


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jobs", "backend"),
    [(2, nullcontext), (None, partial(joblib.parallel_config, "loky", n_jobs=2))],
)
def test_loaders_may_have_processes_of_their_own(tmp_path, alone, jobs, backend):
    with backend():
        found = toy.run(tmp_path, jobs=jobs, drop_modality=True, changes={"load": load_apart})
    assert found.failures == [] and toy.scores(found) == alone


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_dask_cluster_gives_the_scores_of_one_process(tmp_path, alone):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        found = toy.run(tmp_path, jobs=None, drop_modality=True)
    assert toy.scores(found) == alone
    assert len(list((tmp_path / "runs").glob("*.json"))) == len(alone)
