"""Event files have every number of every epoch, and logging changes nothing else."""

import sys
from functools import partial

import pytest

from deq_fusion.training_structures import event_log
from deq_fusion.training_structures.comparison import single_run
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.single_run import run_fusion
from unit_tests.training_structures.comparison import toy

pytest.importorskip("tensorboard")


def read(folder):
    """What TensorBoard shows: name -> (epoch, value) pairs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_a_comparison_writes_a_folder_for_each_training_and_is_the_same(tmp_path):
    run = partial(toy.run, fusions={"sum/it": toy.Sum}, changes={"search": {"lr": (0.1, 0.2)}})
    plain = run(tmp_path / "plain", trials=2)
    logged = run(tmp_path / "logged", trials=2, watch=event_log.event_logs(tmp_path / "log"))
    names = {f"sum%2Fit-{run}{trial}" for run in (0, 1) for trial in ("", "+1")}
    assert {path.name for path in (tmp_path / "log").iterdir()} == names
    assert toy.scores(logged) == toy.scores(plain)
    assert [r.get("identity") for r in logged.results] == [r.get("identity") for r in plain.results]
    assert [r["settings"] for r in logged.results] == [r["settings"] for r in plain.results]
    assert run(tmp_path / "logged", trials=2).reused == run(tmp_path / "plain", trials=2).reused


def test_a_training_that_resumes_goes_on_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(single_run, "CHECKPOINT_SECONDS", 0.0)
    checkpoint, watch = tmp_path / "c", event_log.event_logs(tmp_path / "log")
    method = partial(Method, "sum", fusion=toy.Sum)
    run = partial(run_fusion, run=0, watch=watch, checkpoint=checkpoint)
    run(method(recipe=toy.recipe(epochs=2)))
    result = run(method(recipe=toy.recipe(epochs=5)))
    found = read(tmp_path / "log" / "sum-0")
    losses = [(r["epoch"], pytest.approx(r["valid_loss"], rel=1e-5)) for r in result["curve"]]
    assert found["valid_loss"] == losses and len(losses) == 5
    assert {"train_loss", "learning_rate_0", "seconds", "valid_certainty"} <= found.keys()
    assert "epoch" not in found


def test_what_only_watches_cannot_end_a_training():
    class Ends:
        def __enter__(self):
            return lambda history: True

        def __exit__(self, *error):
            pass

    result = run_fusion(
        Method("sum", toy.recipe(), toy.Sum), run=0, watch=lambda method, run, trial: Ends()
    )
    assert result["epochs"] == toy.EPOCHS


def test_without_tensorboard_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"need TensorBoard .*pip install tensorboard"):
        event_log.event_logs("log")
