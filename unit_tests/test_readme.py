"""The README's Python example runs as it stands, and the file stays short."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def examples():
    """The Python code of the README: the plugin's, and that of one's own data."""
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_own_data_are_compared_in_a_few_lines(capsys):
    _, code = examples()
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 6
    scope = {}
    exec(compile(code.replace("runs=6", "runs=1, epochs=2"), README.name, "exec"), scope)
    said = capsys.readouterr().out
    assert all(name in said for name in ("deq", "concat", "sum", "gmu", "late", "acids", "colours"))
    X, y = scope["X"], scope["y"]
    assert (
        scope["model"].predict({"acids": X.iloc[:, :6], "colours": X.iloc[:, 6:]}).shape == y.shape
    )


def test_the_example_runs(capsys):
    code, _ = examples()
    assert code.count("\n") <= 10  # eight lines, an import and a blank one
    scope = {}
    exec(compile(code, README.name, "exec"), scope)
    fusion, fused = scope["fusion"], scope["fusion"]([scope["text"], scope["image"]])
    assert fused.shape == (8, 256)
    assert fusion.auxiliary_loss > 0
    assert all(p.grad is not None for p in fusion.parameters())
    assert capsys.readouterr().out == "tensor(True)\n"


def test_it_stays_on_a_page():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 100
    assert [line for line in lines if len(line) > 100] == []


def test_links_lead_to_files_of_the_project():
    links = re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    gone = [link for link in links if "://" not in link and not (README.parent / link).exists()]
    assert links and gone == []


def test_nothing_is_left_to_be_filled_in():
    for name in ("README.md", "RESULTS.md"):
        text = README.with_name(name).read_text(encoding="utf-8")
        assert not re.search(r"^[A-Z]+_[A-Z]+$|@@", text, re.MULTILINE), name
