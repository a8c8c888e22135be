"""The package as it is installed, for mkdocstrings: a folder of links to the library's folders."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRONT = ROOT / "package/deq_fusion"


def on_startup(**_: object) -> None:
    """Makes build/docs/deq_fusion, in which every folder is where its import name says."""
    package = ROOT / "build/docs/deq_fusion"
    package.mkdir(parents=True, exist_ok=True)
    for link in package.iterdir():
        link.unlink()
    beside = {name for name in packages() if (ROOT / name).is_dir()}
    for folder in [*FRONT.iterdir(), *(ROOT / name for name in sorted(beside))]:
        (package / folder.name).symlink_to(folder)


def packages() -> list[str]:
    """Returns the package folders at the top, which setup.py lists."""
    for statement in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "PACKAGES":
            return [name for name in ast.literal_eval(statement.value) if "." not in name]
    raise ValueError("setup.py must list the package folders as PACKAGES")
