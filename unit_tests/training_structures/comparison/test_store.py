"""What is stored is believed only if it is as it was written, and of the run of its name."""

import json
import math
import os
import shutil
import warnings

import pytest
import torch

from deq_fusion.training_structures.checkpoint import save_checkpoint
from deq_fusion.training_structures.comparison import Score, single_run
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.results import check_result
from deq_fusion.training_structures.comparison.store import MixedSettings
from deq_fusion.training_structures.files import read_json, write_json
from unit_tests.training_structures.comparison import toy


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    toy.run(folder)
    return folder


@pytest.fixture
def folder(tmp_path, whole):
    return shutil.copytree(whole, tmp_path / "results")


def timeless(found):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in found.results]


def again(folder, message):
    """Gives the same command, which says once what it has set aside, and is as before."""
    with pytest.warns(UserWarning, match=message) as told:
        found = toy.run(folder)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert toy.run(folder) == found
    return found


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def strip(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    path.write_text(json.dumps(content), encoding="utf-8")


def as_folder(path):
    path.unlink()
    path.mkdir()


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "suffix"),
    [
        (flip, "damaged"),
        (strip, "old"),
        (as_folder, "damaged"),
        (as_pipe, "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "damaged"),
        (lambda path: path.write_bytes(b"\xff" * 10), "damaged"),
        (lambda path: path.write_bytes(b"[" * 100_000), "damaged"),
        (lambda path: path.write_bytes(path.with_name("sum-0.json").read_bytes()), "damaged"),
        (lambda path: path.write_bytes(path.with_name("concat-1.json").read_bytes()), "damaged"),
    ],
)
def test_a_run_that_is_of_no_use_is_set_aside_and_made_again(folder, whole, damage, suffix):
    path = folder / "runs" / "sum-1.json"
    damage(path)
    found = again(folder, rf"^1 files in .*runs were .*\(sum-1.json.{suffix}\)")
    assert timeless(found) == timeless(toy.run(whole))
    assert path.with_name(f"sum-1.json.{suffix}").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scores", {"accuracy": 7.5, "certainty": 0.5}),
        ("scores", {"accuracy": math.nan, "certainty": 0.5}),
        ("scores", {"accuracy": 0.5, "certainty": math.inf}),
        ("scores", {"accuracy": 0.5, "certainty": 10**400}),
        ("scores", {"accuracy": "high"}),
        ("scores", {}),
        ("scores", None),
        ("run", 1.0),
        ("run", True),
        ("method", ["sum"]),
        ("missing", [1]),
        ("missing", {"a": {"accuracy": 0.5, "certainty": 0.5}}),
        ("seconds", -1),
        ("seconds", math.nan),
        ("epochs", 3.0),
        ("epochs", 4),
        ("best_epoch", 0),
        ("parameters", None),
        ("parameters", 10**400),
        ("settings", 1.5),
        ("settings", {"epochs": 3}),
        ("identity", "deq"),
        ("identity", {"versions": 0.5, "given": {}, "files": {}, "data": {}}),
        ("identity", {"versions": {}, "given": {}, "files": {}}),
        ("date", None),
        ("date", "yesterday"),
        ("date", 20260131),
        ("curve", 3),
        ("curve", [{"epoch": "1"}] * 3),
        ("solver_steps", "many"),
    ],
)
def test_what_no_run_can_have_found_is_not_believed(folder, key, value):
    path = folder / "runs" / "sum-1.json"
    write_json(path, read_json(path) | {key: value})
    again(folder, "^1 files")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (..., r"missing must be scores for each of \['a', 'b'\]"),
        ({"a": {"accuracy": 0.5}}, r"missing must be scores for each of \['a', 'b'\]"),
        ({"a": {"accuracy": 0.5}, "b": {"mae": 0.5}}, "the same scores for each modality"),
        ({"a": {"accuracy": 0.5}, "b": {"accuracy": -1}}, "scores without b: accuracy must be"),
    ],
)
def test_scores_without_a_modality_are_those_that_were_asked_for(missing, message):
    result = {"method": "sum", "run": 0, "scores": {"accuracy": 0.5}, "missing": missing}
    result["settings"] = {"drop_modality": "True"}
    if missing is ...:
        del result["missing"]
    with pytest.raises(ValueError, match=message):
        check_result(result, Method("sum", toy.recipe(), toy.Sum), 0)


@pytest.mark.parametrize("key", ["scores", "solver_steps"])
def test_a_run_that_tells_other_things_than_the_others_is_named(folder, key):
    path = folder / "runs" / "sum-1.json"
    write_json(path, read_json(path) | {key: {"loss": 0.5} if key == "scores" else 3.0})
    odd = "1" if key == "scores" else "[01]"  # of two runs either may be the odd one
    with pytest.raises(ValueError, match=f"but sum, run {odd}, has .*that run's file in .*runs"):
        toy.run(folder)


def test_everything_of_before_is_set_aside_said_once_and_made_again(folder, whole):
    for path in [folder / "comparison.json", *(folder / "runs").iterdir()]:
        strip(path)
    found = again(folder, r"^7 files .*\(comparison.json.old, .*, \.\.\.\), and what they held")
    assert timeless(found) == timeless(toy.run(whole))
    assert len(list((folder / "runs").glob("*.old"))) == 6


def test_a_damaged_manifest_is_written_again_and_the_runs_are_kept(folder):
    before = {p.name: p.read_bytes() for p in (folder / "runs").iterdir()}
    flip(folder / "comparison.json")
    again(folder, "comparison.json.damaged")
    assert {p.name: p.read_bytes() for p in (folder / "runs").iterdir()} == before


def test_a_kill_between_setting_aside_and_writing_anew_costs_nothing(folder):
    (folder / "comparison.json").rename(folder / "comparison.json.damaged")
    assert toy.run(folder).failures == []
    assert read_json(folder / "comparison.json")["epochs"] == str(toy.EPOCHS)


def test_a_folder_of_the_format_of_before_is_set_aside_and_made_again(folder, whole):
    manifest = folder / "comparison.json"
    write_json(manifest, read_json(manifest) | {"format": "deq-fusion comparison 1", "torch": "1"})
    for path in (folder / "runs").iterdir():
        content = read_json(path)
        del content["identity"]
        write_json(path, content)
    found = again(folder, r"^7 files .* of an earlier version; .*\(comparison.json.old, ")
    assert timeless(found) == timeless(toy.run(whole))


def test_a_manifest_of_before_of_another_comparison_is_left(folder):
    strip(folder / "comparison.json")
    with pytest.raises(MixedSettings, match="epochs was 3 and is 5"):
        toy.run(folder, changes={"epochs": 5})
    assert not list(folder.glob("*.old"))


@pytest.mark.parametrize("damage", ["bits", "old", "contents", "folder"])
def test_a_damaged_checkpoint_is_set_aside_and_its_run_begun_anew(
    folder, whole, monkeypatch, damage
):
    monkeypatch.setattr(single_run, "CHECKPOINT_SECONDS", 0.0)
    (folder / "runs" / "sum-1.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(single_run, "load_best", lambda *_: 1 / 0)  # after training
        assert len(toy.run(folder).failures) == 1
    (path,) = (folder / "runs").glob("*.ckpt")
    if damage == "bits":
        flip(path)
    elif damage == "old":
        torch.save(torch.load(path, weights_only=True), path)
    elif damage == "contents":
        save_checkpoint(path, {"model": 3})
    else:
        as_folder(path)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        found = toy.run(folder)
    assert timeless(found)[:3] == timeless(toy.run(whole))[:3] and not found.failures
    (entry,) = found.results[3].pop("warnings")
    assert "was no checkpoint to go on from, is now sum-1." in entry["text"]
    assert found.results[3]["scores"] == toy.run(whole).results[3]["scores"]
    kind = "old" if damage == "old" else "damaged"
    assert [p.name for p in (folder / "runs").glob("*ckpt*")] == [f"{path.name}.{kind}"]


def test_another_files_damage_is_no_reason_to_start_anew(tmp_path):
    def build(fusion, train):
        (tmp_path / "own.json").write_text("{", encoding="utf-8")
        return read_json(tmp_path / "own.json")

    found = toy.run(tmp_path / "a", {"sum": toy.Sum}, runs=[0], changes={"build": build})
    assert "own.json must end with its checksum" in found.failures[0]["error"]


def test_a_run_that_scores_what_cannot_be_fails_and_is_not_stored(tmp_path):
    def metrics(prediction, truth):
        return {"accuracy": 7.5}

    found = toy.run(tmp_path, {"sum": toy.Sum}, runs=[0], changes={"metrics": metrics})
    assert "scores: accuracy must be a number in [0, 1], got 7.5" in found.failures[-1]["error"]
    assert not list((tmp_path / "runs").glob("*.json"))


def test_an_analysis_that_json_cannot_hold_fails_its_run_alone(tmp_path):
    found = toy.run(tmp_path, {"sum": toy.Sum}, runs=[0], analyse=lambda *_: torch.zeros(3))
    assert "not JSON serializable" in found.failures[0]["error"]
    assert [result["method"] for result in found.results] == ["majority"]


@pytest.mark.parametrize(
    ("score", "accepted", "refused"),
    [
        (Score("accuracy"), [0, 1.0, 0.5], [-0.1, 1.1, math.nan, math.inf]),
        (Score("f1_nonzero"), [0.5, math.nan], [2.0, -math.inf]),
        (Score("auc"), [math.nan, 1.0], [1.5]),
        (Score("corr", percent=False), [-1.0, math.nan], [math.inf]),
        (Score("r2"), [-3.0], [math.inf]),
        (Score("accuracy", percent=False), [75.0], [math.inf]),
    ],
)
def test_the_range_of_a_score(score, accepted, refused):
    assert all(map(score.accepts, accepted)) and not any(map(score.accepts, refused))


def test_a_result_must_be_of_its_run():
    method = Method("sum", toy.recipe(), toy.Sum)
    with pytest.raises(ValueError, match="it must be of sum, run 1, but is of concat, run 2"):
        check_result({"method": "concat", "run": 2}, method, 1)
