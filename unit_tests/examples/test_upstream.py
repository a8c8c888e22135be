"""The patches for MultiBench hold these files and no others; what git refuses is told plainly."""

import os
import pickle
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from deq_fusion.examples import upstream
from deq_fusion.examples.studies.pages import ROOT, Figures, render
from deq_fusion.examples.studies.published_tables import read_all

README = """# MultiBench

1. Unimodal models: MLP, etc... (see unimodals/)
2. Fusion paradigms: early/late fusion, NL-gate, etc (see fusions/)
"""
ADDED = {
    "fusions/deq.py",
    *(p.relative_to(ROOT).as_posix() for p in ROOT.glob("fusions/equilibrium/**/*.py")),
    "objective_functions/auxiliary_loss.py",
    "examples/affect/affect_deq.py",
    "examples/multimedia/mmimdb_deq.py",
    "tests/test_deq.py",
}
BRANCH = "deq-fusion"
COMMON = """# what MultiBench's tests share, as far as ours use it
import pytest
import torch

@pytest.fixture
def set_seeds():
    torch.manual_seed(0)

def count_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
"""


def git(folder, *words):
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\n")


def snapshot(folder):
    """Every file of a checkout and git's index; what is stored below .git may grow."""
    files = (p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts)
    return {p: p.read_bytes() for p in [*files, folder / ".git/index", folder / ".git/HEAD"]}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout with MultiBench's landmarks."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[user]\nname = Ann\nemail = ann@example.org\n[init]\ndefaultBranch = main\n"
        "[format]\ncoverLetter = true\n[diff]\nnoprefix = true\n"
    )
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    folder = tmp_path / "MultiBench"
    for name in (*upstream.LANDMARKS, "fusions/__init__.py", "tests/common.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(README if name == "README.md" else f"# {name}\n")
    git(tmp_path, "init", "--quiet", str(folder))
    commit(folder)
    return folder


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All")


def test_the_series_has_these_files_unchanged():
    commits = upstream.series(README)
    files = [path for one in commits for path in one.files]
    assert len(files) == len(set(files)) and set(files) == ADDED | {"README.md"}
    for path, content in [item for one in commits for item in one.files.items()]:
        own = ROOT if path.startswith(("fusions/", "objective_functions/")) else upstream.OWN
        assert path == "README.md" or content == (own / path).read_bytes()
    old, new = README.splitlines(), commits[-1].files["README.md"].decode().splitlines()
    (line,) = [after for before, after in zip(old, new, strict=True) if before != after]
    assert line == (
        "2. Fusion paradigms: early/late fusion, NL-gate, Deep Equilibrium Fusion, "
        "etc (see fusions/)"
    )


def test_a_readme_without_the_list_is_refused():
    with pytest.raises(ValueError, match="one line `N. Fusion paradigms: ..., etc`.* got 0"):
        upstream.series("# MultiBench\n")
    with pytest.raises(ValueError, match="got 2"):
        upstream.series(README + README)


def test_the_text_has_a_paragraph_a_line_and_every_command():
    figures = Figures(read_all())
    text = render(upstream.OWN / upstream.TEXT, figures, width=None)
    assert "{{" not in text and "\n## Measurements\n" in text
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).split("\n\n")
    plain = [p for p in prose if not p.startswith(("|", "- ", "\n"))]
    assert len(plain) > 10 and not [p for p in plain if "\n" in p.strip()]
    for name in re.findall(r'table\("(\w+)"', (upstream.OWN / upstream.TEXT).read_text("utf-8")):
        assert figures.commands(name) in text
        assert figures._published(name).origin() in text


@pytest.mark.slow
def test_patches_and_branch_agree_and_nothing_else_is_touched(checkout, tmp_path):
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(checkout), str(other))
    (checkout / "data.pkl").write_text("not git's")
    before, base = snapshot(checkout), git(checkout, "rev-parse", "HEAD")
    *patches, text = upstream.write_series(checkout, tmp_path / "out")
    assert snapshot(checkout) == before and git(checkout, "branch", "--show-current") == "main"
    assert sorted((tmp_path / "out").iterdir()) == [*patches, text] and len(patches) == 5
    assert git(checkout, "diff", "--name-status", f"{base}..{BRANCH}").splitlines() == sorted(
        [*(f"A\t{name}" for name in ADDED), "M\tREADME.md"], key=lambda line: line[2:]
    )
    told = git(checkout, "log", "--format=%an <%ae> %aI", f"{base}..{BRANCH}").splitlines()
    date = git(checkout, "show", "--no-patch", "--format=%cI", base)
    assert told == [f"Ann <ann@example.org> {date}"] * 5

    git(other, "am", "--quiet", *map(str, patches))
    trees = [
        git(f, "rev-parse", f"{tip}^{{tree}}") for f, tip in ((other, "HEAD"), (checkout, BRANCH))
    ]
    assert trees[0] == trees[1]
    git(other, "reset", "--quiet", "--hard", base)
    upstream.write_series(other, tmp_path / "again")  # the same files are the same commits
    assert git(other, "rev-parse", BRANCH) == git(checkout, "rev-parse", BRANCH)


def broken(folder, how):
    if how == "none":
        shutil.rmtree(folder / ".git")
    elif how == "another":
        git(folder, "rm", "--quiet", "fusions/common_fusions.py")
        commit(folder)
    elif how == "changed":
        (folder / "README.md").write_text("mine")
    elif how == "branch":
        git(folder, "branch", BRANCH)
    elif how == "there":
        (folder / "fusions/deq.py").write_text("another's")
        commit(folder)
    elif how == "nameless":
        git(folder, "config", "--global", "--unset", "user.name")
        git(folder, "config", "--global", "--unset", "user.email")
        git(folder, "config", "--global", "user.useConfigOnly", "true")
    return folder / "fusions" if how == "inside" else folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "how, says",
    [
        ("none", "must be the top folder of a git checkout"),
        ("inside", "must be the top folder of a git checkout"),
        ("another", "a checkout of MultiBench, but lacks fusions/common_fusions.py"),
        ("changed", "must have no uncommitted changes.*README.md"),
        ("branch", "must not have a branch deq-fusion yet.*--branch"),
        ("there", "must not have fusions/deq.py yet"),
        ("nameless", "git commit-tree failed.*user.name|tell me who you are"),
    ],
)
def test_what_is_refused_changes_nothing(checkout, tmp_path, how, says):
    folder = broken(checkout, how)
    refs = None if how == "none" else git(checkout, "show-ref")
    with pytest.raises(SystemExit) as end:
        upstream.main(["--multibench", str(folder), "--output", str(tmp_path / "out")])
    assert re.search(says, end.value.code, re.DOTALL) and end.value.code.startswith("upstream: ")
    assert not (tmp_path / "out").exists()
    assert refs is None or git(checkout, "show-ref") == refs


@pytest.mark.slow
def test_old_patches_and_names_that_git_refuses_are_told_in_time(checkout, tmp_path):
    (tmp_path / "0001-old.patch").touch()
    with pytest.raises(ValueError, match="must hold no patches yet, got 0001-old.patch"):
        upstream.write_series(checkout, tmp_path)
    with pytest.raises(ValueError, match="'a b' is not a valid branch name"):
        upstream.write_series(checkout, tmp_path / "out", branch="a b")
    assert git(checkout, "branch", "--list").split() == ["*", "main"]


def run(words, folder):
    """Runs a script as in MultiBench: what it imports has no `deq_fusion` before it."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_tests_for_multibench_pass_here(tmp_path):
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "__init__.py").touch()
    (tests / "common.py").write_text(COMMON)
    shutil.copy(upstream.OWN / "tests/test_deq.py", tests)
    said = run(["-m", "pytest", "-q", "-p", "no:xdist", "tests/test_deq.py"], tmp_path)
    assert re.search(r"\b7 passed", said)


def shortened(name, folder, **changes):
    """Copies an example with other literals; each must be there once."""
    text = (upstream.OWN / "examples" / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert text.count(new[0]) == 1, old
        text = text.replace(*new)
    (folder / "script.py").write_text(text, encoding="utf-8")
    return ["script.py"]


@pytest.mark.slow
def test_the_example_of_affect_runs(tmp_path):
    rng, data = np.random.default_rng(0), {}
    for part, count in (("train", 16), ("valid", 8), ("test", 8)):
        widths = {"vision": 35, "audio": 74, "text": 300}
        data[part] = {key: rng.normal(size=(count, 50, width)) for key, width in widths.items()}
        data[part]["labels"] = rng.uniform(-3, 3, (count, 1, 1))
        data[part]["id"] = np.array([f"{part}[{row}]" for row in range(count)])
    (tmp_path / "mosi_raw.pkl").write_bytes(pickle.dumps(data))
    path = "/home/pliang/multibench/affect/pack/mosi/mosi_raw.pkl", "mosi_raw.pkl"
    epochs = "    100,\n", "    1,\n"
    script = shortened("affect/affect_deq.py", tmp_path, path=path, epochs=epochs)
    said = run(script, tmp_path)
    assert "Epoch 0 valid loss" in said and "acc: " in said.partition("Testing:")[2]


@pytest.mark.slow
def test_the_example_of_mmimdb_runs(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "multimodal_imdb.hdf5", "w") as file:
        for name, width in (("features", 300), ("vgg_features", 4096)):
            file[name] = rng.normal(size=(24, width)).astype(np.float32)
        file["genres"] = rng.integers(0, 2, (24, 23), dtype=np.int32)
        file.attrs["splits"] = '{"train": 12, "dev": 6, "test": 6}'
    path = "../video/multimodal_imdb.hdf5", "multimodal_imdb.hdf5"
    epochs = "    1000,\n", "    1,\n"
    script = shortened("multimedia/mmimdb_deq.py", tmp_path, path=path, epochs=epochs)
    said = run(script, tmp_path)
    assert "Epoch 0 valid loss" in said and "f1_macro: " in said.partition("Testing:")[2]
