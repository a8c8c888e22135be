"""Notebooks: the scripts of docs/notebooks, run cell by cell when the site is built.

They are in jupytext's percent format: a cell `# %% [markdown]` is text, any other is shown with
what it prints, what its last line names, and the figures that it draws, much as Jupyter shows it.
"""

import ast
import contextlib
import functools
import io
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = Path(__file__).parents[1] / "notebooks"
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds a page for every script, and its figures."""
    for script in sorted(FOLDER.glob("*.py")):
        page, figures = run(script, script.read_text(encoding="utf-8"))
        files.append(File.generated(config, f"notebooks/{script.stem}.md", content=page))
        for name, figure in figures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=figure))


@functools.cache  # a server that rebuilds at every change runs those alone that changed
def run(script: Path, text: str) -> tuple[str, dict[str, bytes]]:
    """Returns a script's page, and name -> figure.

    Args:
        script: its path.
        text: what it holds.
    """
    page, figures, scope = [], {}, {"__name__": "__main__", "__file__": str(script)}
    plt.switch_backend("agg")
    torch.set_num_threads(1)  # on tiny tensors threads only wait for each other
    _, *cells = CELL.split(text)
    for is_text, cell in zip(cells[::2], map(str.strip, cells[1::2]), strict=True):
        if is_text:
            page.append(re.sub("^# ?", "", cell, flags=re.MULTILINE))
            continue
        page.append(f"```python\n{cell}\n```")
        printed, value = executed(cell, scope, str(script))
        page += [f"```{{ .text .output }}\n{printed.rstrip()}\n```"] if printed.strip() else []
        page += [shown(value)] if value is not None else []
        for number in plt.get_fignums():
            name = f"{script.stem}_{len(figures) + 1}.svg"
            drawing = io.BytesIO()
            plt.figure(number).savefig(drawing, format="svg", bbox_inches="tight")
            figures[name] = drawing.getvalue()
            page.append(f"![figure]({name})")
        plt.close("all")
    return "\n\n".join(page), figures


def executed(code: str, scope: dict[str, Any], filename: str) -> tuple[str, Any]:
    """Runs a cell, and returns what it prints, and the value that its last line names, or None."""
    last = ast.parse(code).body[-1]
    named = isinstance(last, ast.Expr) and isinstance(last.value, ast.Name | ast.Attribute)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, filename, "exec"), scope)
    return printed.getvalue(), eval(ast.unparse(last), scope) if named else None


def shown(value: Any) -> str:
    """Returns a value as a notebook shows it: as HTML, or as text."""
    if hasattr(value, "_repr_html_"):
        return f'<div class="output" markdown="0">{value._repr_html_()}</div>'
    return f"```{{ .text .output }}\n{value!r}\n```"
