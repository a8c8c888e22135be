"""The library's folders work in a checkout, as the wheel `deq_fusion`, and inside MultiBench.

So they import themselves relatively, each other never but where MultiBench's names leave no other
way, and nothing heavy; and no library module
prints, picks a device or imports the examples. The front door and the examples compose them, by
the names that an installation has.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = (
    "fusions",
    "unimodals",
    "objective_functions",
    "training_structures",
    "datasets",
    "eval_scripts",
    "private_test_scripts",
    "robustness",
    "utils",
)
MEETING = {  # what looks beyond its folder, and at what; in a checkout and below deq_fusion alike
    "training_structures/siblings.py": {"fusions", "utils"},
}
MODULES = [path for folder in LIBRARY for path in sorted((ROOT / folder).rglob("*.py"))]
FRONT = ROOT / "package" / "deq_fusion"
COMPOSING = [path for folder in (FRONT, ROOT / "examples") for path in sorted(folder.rglob("*.py"))]
MULTIBENCH = (  # tests of the names that MultiBench's users import
    "unit_tests/fusions/test_deq_in_multibench.py",
    "unit_tests/test_packaging.py",
    "unit_tests/test_two_names.py",
)
FOLDERS = {path.parent for path in [*MODULES, *COMPOSING]} - {FRONT}
LIGHT = {
    "torch",
    "numpy",
    "h5py",
    "tqdm",
    "sklearn",
    "scipy",
    "joblib",
    "filelock",
}  # what an installation brings
PRINTING = {  # as MultiBench; the table
    "eval_scripts": {"complexity.py", "robustness.py"},
    "training_structures": {
        *("Supervised_Learning.py", "multibench.py", "program.py", "terminal.py"),
        *("architecture_search.py", "candidates.py"),
    },
    "utils": {"evaluation_metric.py"},
}
PICKING = {"Supervised_Learning.py"}  # without a device, the one MultiBench would take


def faults(find):
    """What `find(path, tree)` yields of the library's modules, (line, what it does), with names."""
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES)
    return [
        f"{path.relative_to(ROOT)}, line {line}: {what}"
        for path, tree in trees
        for line, what in find(path, tree)
    ]


def imports(nodes):
    """(line, level, module) of every import among the nodes."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or ""


def at_import_time(node):
    """The nodes that run when the module is imported: all but the bodies of functions."""
    yield node
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from at_import_time(child)


def run_python(code, *, path, cwd):
    """Runs code in a fresh interpreter that sees `path` before what is installed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dotted(path):
    root = FRONT if path.is_relative_to(FRONT) else ROOT
    return ".".join(path.relative_to(root).with_suffix("").parts)


def test_library_folders_import_themselves_relatively_and_each_other_never():
    def find(path, tree):
        depth = (
            len(path.relative_to(ROOT).parts) - 1
        )  # folders above the file, its top one included
        for line, level, module in imports(ast.walk(tree)):
            top = module.split(".")[0]
            if top in MEETING.get(path.relative_to(ROOT).as_posix(), ()) and level in (0, 2):
                continue
            if level > depth:
                yield line, "leaves its top folder"
            if not level and top in (*LIBRARY, "deq_fusion", "examples"):
                yield line, f"imports {module}"

    assert faults(find) == []


def test_the_equilibrium_knows_nothing_of_the_map_of_fusion():
    known = re.compile(r"import fusion_map|from .fusion_map|\bgates?\b|\bcells?\b|input_dims")
    for path in sorted((ROOT / "fusions" / "equilibrium").glob("*.py")):
        assert not known.findall(path.read_text(encoding="utf-8")), path


def test_importing_a_library_module_needs_nothing_but_an_installation():
    def find(path, tree):
        inside = path.relative_to(ROOT).as_posix()
        plugin = inside == "fusions/deq.py" or inside.startswith("fusions/equilibrium/")
        allowed = sys.stdlib_module_names | ({"torch"} if plugin else LIGHT)
        nodes = ast.walk(tree) if plugin else at_import_time(tree)
        if inside in MEETING:
            allowed = {*allowed, *MEETING[inside]}
        for line, level, module in imports(nodes):
            if not level and module.split(".")[0] not in allowed:
                yield line, f"imports {module}"

    assert faults(find) == []


def test_library_modules_print_nothing():
    def find(path, tree):
        if path.name in PRINTING.get(path.relative_to(ROOT).parts[0], ()):
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "print":
                    yield node.lineno, "prints"

    assert faults(find) == []


def test_library_modules_pick_no_device():
    def find(path, tree):
        allowed = path.parent.name == "training_structures" and path.name in PICKING
        keys = set()  # a name that is compared or looked up picks nothing
        for node in ast.walk(tree):  # outer nodes come first
            if isinstance(node, ast.Dict):
                keys.update(node.keys)
            elif isinstance(node, ast.Compare):
                keys.update((node.left, *node.comparators))
            elif isinstance(node, ast.Subscript):
                keys.add(node.slice)
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "cuda":
                yield node.lineno, "calls .cuda()"
            elif (
                isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in keys
            ):
                if not allowed and re.fullmatch(r"(cuda|mps|xpu)(:\d+)?", node.value):
                    yield node.lineno, f"names the device {node.value!r}"

    assert faults(find) == []


def test_what_composes_imports_the_names_of_an_installation():
    tests = (path for path in sorted((ROOT / "unit_tests").rglob("*.py")))
    for path in [*COMPOSING, *tests]:
        inside = path.relative_to(ROOT).as_posix()
        if inside in MULTIBENCH:
            continue
        for line, level, module in imports(ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
            bare = not level and module.split(".")[0] in (*LIBRARY, "examples")
            assert not bare, f"{inside}, line {line} imports {module}: deq_fusion.{module}"


def test_every_folder_is_a_package():
    assert [folder for folder in FOLDERS if not (folder / "__init__.py").is_file()] == []


def test_setup_lists_every_package_folder():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    values = {ast.unparse(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
    assert sorted(ast.literal_eval(values["PACKAGES"])) == sorted(map(dotted, FOLDERS))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The unpacked wheel, built from a copy so that the checkout stays clean."""
    try:
        version = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        version = "0.0"  # none
    if tuple(map(int, version.split(".")[:2])) < (70, 1):
        pytest.skip(f"building a wheel offline needs setuptools >= 70.1, got {version}")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for folder in (*LIBRARY, "examples", "package"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--wheel-dir", built, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = built.glob("*.whl")
    shutil.unpack_archive(archive, built / "unpacked", format="zip")
    return built / "unpacked"


@pytest.mark.slow
def test_the_wheel_owns_one_top_level_name(wheel):
    (info,) = wheel.glob("*.dist-info")
    assert (info / "top_level.txt").read_text().split() == ["deq_fusion"]
    assert {path.name for path in wheel.iterdir()} == {"deq_fusion", info.name}


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_they_import(wheel, tmp_path):
    shipped = {path.relative_to(wheel / "deq_fusion") for path in wheel.rglob("deq_fusion/**/*.py")}
    front = {path.relative_to(FRONT) for path in COMPOSING if path.is_relative_to(FRONT)}
    assert shipped == front | {
        path.relative_to(ROOT) for path in [*MODULES, *COMPOSING] if not path.is_relative_to(FRONT)
    }
    assert (wheel / "deq_fusion" / "py.typed").is_file()
    dots = (".".join(("deq_fusion", *path.with_suffix("").parts)) for path in shipped)
    names = [name.removesuffix(".__init__") for name in dots]
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys(["matplotlib", "pandas", "pytest", "torchvision"]))  # not there
own = [name for name in {sorted(names)} if name.startswith("deq_fusion.own_data")]
for name in {sorted(names)}:
    if name not in own:
        importlib.import_module(name)
del sys.modules["pandas"]  # which only own data need, once they are asked for
for name in own:
    importlib.import_module(name)
print(sys.modules["deq_fusion.fusions.deq"].DEQFusion.__module__)
print(sys.modules["deq_fusion.fusions.deq"].__file__)
"""
    module, file = run_python(code, path=[wheel], cwd=tmp_path).splitlines()
    assert module == "deq_fusion.fusions.deq"
    assert Path(file) == wheel / "deq_fusion" / "fusions" / "deq.py"


@pytest.mark.slow
def test_the_plugin_brings_nothing_that_is_heavy_but_torch(wheel, tmp_path):
    code = """
import sys, torch
before = set(sys.modules)
from deq_fusion import DEQFusion
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
print([name for name in sys.modules if name.startswith("deq_fusion.") and "fusions" not in name])
"""
    brought, others = run_python(code, path=[wheel], cwd=tmp_path).splitlines()
    assert set(ast.literal_eval(brought)) - sys.stdlib_module_names == {"deq_fusion"}
    assert others == "[]"


@pytest.mark.slow
def test_the_command_is_installed_and_its_help_imports_no_torch(wheel, tmp_path):
    (info,) = wheel.glob("*.dist-info")
    assert "deq-fusion = deq_fusion.command:main" in (info / "entry_points.txt").read_text()
    code = """
import sys
from deq_fusion.command import main
for argv in ["--help"], ["compare", "--help"], ["prepare", "--help"], ["--version"]:
    try:
        main(argv)
    except SystemExit as end:
        assert not end.code
assert "torch" not in sys.modules and "sklearn" not in sys.modules
"""
    said = run_python(code, path=[wheel], cwd=tmp_path)
    (version,) = re.findall(r'__version__ = "(.+)"', (FRONT / "__init__.py").read_text())
    assert f"deq-fusion {version}" in said
    assert f"-{version}.dist-info" in info.name
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


OWN_DATA = """
from pathlib import Path
import numpy as np, torch
from sklearn.datasets import load_wine
torch.set_num_threads(1)
X, y = load_wine(return_X_y=True, as_frame=True)
X.insert(0, "bottle", [f"b{i:03}" for i in range(len(X))])
labels = y.map(["red", "white", "rose"].__getitem__).rename("kind")
X.iloc[:, :7].sample(frac=1, random_state=0).to_csv("acids.csv", index=False)  # another order
X.iloc[5:, [0, *range(7, 14)]].to_csv("colours.csv", index=False)  # five bottles are missing
labels.to_frame().assign(bottle=X.bottle).to_csv("labels.csv", index=False)

from deq_fusion import compare_data
tables = {"acids": X.iloc[:, 1:7], "colours": X.iloc[:, 7:]}
five = ["deq", "concat", "sum", "gmu", "late"]
found = compare_data(tables, y, five, runs=1, epochs=2, progress=False)
assert {row.method for row in found.table()} >= {*five, "only acids", "only colours", "linear"}

files = {"acids": "acids.csv", "colours": "colours.csv"}
files = compare_data(files, "labels.csv:kind", five, runs=1, epochs=2, progress=False)
files = files.to_dataframe().set_index("method")["mean"]
from deq_fusion.command import main
main("compare --table acids=acids.csv --table colours=colours.csv --target labels.csv:kind --runs 1"
     f" --epochs 2 --fusions {','.join(five)} --output out --save best.model".split())
import json
runs = json.loads(Path("out/results.json").read_text())["runs"]
assert len(runs) == len(files) == 9
assert all(files[run["method"]] == run["scores"]["balanced_accuracy"] for run in runs)
tables = "--table acids=acids.csv --table colours=colours.csv"
main(f"predict best.model {tables} --output p.csv".split())
assert Path("p.csv").read_text().count("\\n") == 1 + 178
"""


@pytest.mark.slow
def test_the_wheel_alone_compares_ones_own_data(wheel, tmp_path):
    run_python(OWN_DATA, path=[wheel], cwd=tmp_path)


@pytest.mark.slow
def test_every_requirement_is_pinned(wheel):
    (path,) = wheel.glob("*.dist-info/METADATA")
    lines = Parser().parsestr(path.read_text(encoding="utf-8")).get_all("Requires-Dist")
    required = {re.match(r"[\w-]+", line)[0] for line in lines}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert required <= set(re.findall(r"^([\w-]+)==", pins, flags=re.MULTILINE))


def test_a_checkout_ahead_of_multibench_hides_none_of_its_modules(tmp_path):
    for folder in LIBRARY:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
        (tmp_path / folder / "of_multibench.py").touch()
    names = ", ".join(f"{folder}.of_multibench" for folder in LIBRARY)
    run_python(f"import {names}", path=[ROOT, tmp_path], cwd=ROOT)
