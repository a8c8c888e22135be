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
    assert scope["model"].predict({"acids": X.iloc[:, :6], "colours": X.iloc[:, 6:]}).shape == y.shape


def test_the_example_runs(capsys):
    code, _ = examples()
    assert code.count("\n") <= 17  # 15 lines and the imports' blank ones
    scope = {}
    exec(compile(code, README.name, "exec"), scope)
    assert scope["fused"].shape == (8, 256)
    assert scope["fusion"].auxiliary_loss > 0
    assert all(p.grad is not None for p in scope["fusion"].parameters())
    assert "True" in capsys.readouterr().out


def test_it_stays_within_120_lines():
    assert README.read_text(encoding="utf-8").count("\n") <= 120


def test_nothing_is_left_to_be_filled_in():
    for name in ("README.md", "RESULTS.md"):
        text = README.with_name(name).read_text(encoding="utf-8")
        assert not re.search(r"^[A-Z]+_[A-Z]+$|@@", text, re.MULTILINE), name
