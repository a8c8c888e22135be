"""The examples run, on embedded data and on small files of the real layout."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from deq_fusion.examples.brca import train as brca
from deq_fusion.examples.compare_fusions import PROGRAM, RECIPES
from deq_fusion.examples.digits import train as digits
from deq_fusion.examples.digits.recipe import WIDTH
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import command_line


@pytest.fixture
def omics(tmp_path):
    """Three views of 40 patients, of which the first tells the class."""
    rng = np.random.default_rng(0)
    for part, count in (("tr", 30), ("te", 10)):
        labels = np.arange(count) % 2
        np.savetxt(tmp_path / f"labels_{part}.csv", labels, fmt="%d")
        for view, width in ((1, 6), (2, 5), (3, 4)):
            x = rng.random((count, width)) + (2 * labels[:, None] if view == 1 else 0)
            np.savetxt(tmp_path / f"{view}_{part}.csv", x, delimiter=",")
    return tmp_path


def compared(*arguments):
    options = {"program": PROGRAM, "subject": "deq"}
    return command_line(RECIPES, FUSIONS, arguments, **options)


def test_digits_learns(capsys):
    result = digits.main(["--epochs", "6"])
    assert result["scores"]["accuracy"] > 0.85  # chance is 0.1
    assert result["solver_converged"] > 0.99
    assert "converged" in capsys.readouterr().out


def test_the_equations_are_options_of_a_comparison(tmp_path):
    options = ["--option", "deq.equations=paper", "--option", "deq.equations.gate=False"]
    found = compared(
        *("--fusions", "deq", "--no-unimodal", "--runs", "1", "--epochs", "1"),
        *("--output", str(tmp_path)),
        *options,
    )
    (result,) = (result for result in found.results if result["method"] == "deq")
    for option in ("'equations': 'paper'", "'equations.gate': False"):
        assert option in result["settings"]["options"]
    plain = FUSIONS["deq_paper"]([WIDTH] * 4, WIDTH)[0]
    without_gate = sum(p.numel() for p in plain.parameters()) - WIDTH * (WIDTH + 1)
    assert result["fusion_parameters"] == without_gate


def test_brca_runs_and_resumes(omics, tmp_path):
    path = tmp_path / "run.ckpt"
    arguments = ["--data-dir", str(omics), "--official", "--checkpoint", str(path)]
    brca.main([*arguments, "--epochs", "2"])
    resumed = brca.main([*arguments, "--epochs", "4"])
    whole = brca.main([*arguments[:3], "--epochs", "4"])
    assert resumed["scores"] == whole["scores"]
    assert resumed["valid"] == whole["valid"]


@pytest.mark.parametrize(
    "other", [["--seed", "1"], ["--fusion", "concat"], ["--modalities", "mRNA"]]
)
def test_a_checkpoint_is_not_resumed_by_another_run(omics, tmp_path, other, capsys):
    arguments = ["--data-dir", str(omics), "--epochs", "1"]
    arguments += ["--checkpoint", str(tmp_path / "run.ckpt")]
    brca.main(arguments)
    with pytest.raises(SystemExit):
        brca.main([*arguments, *other])
    message = capsys.readouterr().err
    assert "with the same settings" in message or "weights of this very model" in message


def test_brca_takes_a_choice_of_views(omics):
    one = brca.main(["--data-dir", str(omics), "--epochs", "1", "--modalities", "miRNA"])
    all_three = brca.main(["--data-dir", str(omics), "--epochs", "1"])
    assert one["parameters"] < all_three["parameters"]


def test_fusions_views_and_the_floor_are_compared(omics, tmp_path):
    fusions = ["deq", "concat", "evidential", "late", "interactions3", "cross"]
    arguments = ["--data-dir", str(omics), "--runs", "1", "--epochs", "2"]
    arguments += ["--fusions", ",".join(fusions), "--output", str(tmp_path / "out")]
    found = compared("--dataset", "brca", "--modalities", "mRNA,methylation", *arguments)
    kept = [name for name in fusions if name != "interactions3"]
    views = ["only mRNA", "only methylation"]
    assert [r["method"] for r in found.results] == ["linear", "gridge", *views, *kept]
    assert found.skipped == {"interactions3": "takes 3 modalities, and there are 2"}
    assert not found.failures
    assert found.results[0]["scores"]["accuracy"] == 1.0  # the first view tells the class


def test_missing_data_is_explained(capsys):
    with pytest.raises(SystemExit, match="2"):
        compared("--dataset", "brca")
    assert "data_dir (--data-dir) must name the folder" in capsys.readouterr().err


def test_a_folder_without_data_is_explained(tmp_path, capsys):
    for command in (
        lambda: brca.main(["--data-dir", str(tmp_path)]),
        lambda: compared(
            "--dataset", "brca", "--data-dir", str(tmp_path), "--output", str(tmp_path / "out")
        ),
    ):
        with pytest.raises(SystemExit):
            command()
        assert "get it with: deq-fusion prepare brca" in capsys.readouterr().err


BENCHMARKS = {"affect", "brca", "digits", "imdb", "synthetic", "tcga", "vqa"}


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_the_help_of_every_benchmark_teaches(name, capsys):
    script = import_module(f"deq_fusion.examples.{name}.train")
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0 and script.__doc__.strip() in told and "None" not in told
    assert f"python -m deq_fusion.examples.{name}.train" in told
    for argument in ("--fusion", "--own-fusion", "--unimodal", "--set", "--modalities"):
        assert f"  {argument}" in told


def test_examples_are_a_script_a_benchmark_and_a_few_short_ones():
    folder = Path(import_module("deq_fusion.examples").__file__).parent
    there = {path.name for path in folder.iterdir() if path.is_file() or [*path.glob("*.py")]}
    short = {"quickstart.py", "own_fusion.py", "own_dataset.py", "inside_multibench.py"}
    shared = {"__init__.py", "compare_fusions.py", "run_one.py", "checks.py", "studies"}
    shared |= {"aligned_models.py", "noise.py", "paradigms", "parts.py"}  # of several benchmarks
    shared |= {"upstream.py"}
    assert there == BENCHMARKS | short | shared
    assert all((folder / name / "recipe.py").is_file() for name in BENCHMARKS)
