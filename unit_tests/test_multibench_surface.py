"""Code written for MultiBench finds its names here, with its arguments, order and defaults.

`multibench_surface.txt` holds them, and which of them MultiBench's example files import.
"""

import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("multibench_surface.txt")
NOT_HERE = {  # modules that the examples import, too
    "datasets.avmnist.get_data": "no loader of AV-MNIST",
    "datasets.enrico.get_data": "no loader of Enrico",
    "datasets.gentle_push.data_loader": "no loader of Gentle Push",
    "datasets.kinetics.get_data": "not in MultiBench, either",
    "datasets.mimic.get_data": "no loader of MIMIC-III",
    "datasets.robotics.data_loader": "not in MultiBench, either",
    "datasets.robotics.get_data": "no loader of Vision & Touch",
    "datasets.stocks.get_data": "no loader of stocks",
    "training_structures.Simple_Late_Fusion": "not in MultiBench, either",
}
LOADER = "datasets.imdb.get_data.get_dataloader"
OTHER_DEFAULTS = {
    "datasets.affect.get_data.get_dataloader": {"raw_path"},  # a file on its author's machine
    # its noisy test sets need programs that no longer run, and its images memory
    LOADER: {"no_robust", "num_workers", "vgg", "batch_size"},
    "fusions.searchable.train_sampled_models": {"state_dict"},  # a dict that all calls share
    "training_structures.architecture_search.ModelSearcher": {"device"},  # "cuda:0"
}
WITHOUT = {"unimodals.common_models.Sequential": "kwargs"}  # torch's, to which they go, takes none


def rows():
    """(module, name, arguments or None, whether an example imports it) of the table."""
    module = None
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        if found := re.fullmatch(r"([* ]) (\w+)(?:\((.*)\))?", line):
            mark, name, arguments = found.groups()
            yield module, name, arguments, mark == "*"
        else:
            module = line


def marked(all_rows):
    for module, name, arguments, _ in all_rows:
        yield pytest.param(module, name, arguments, id=f"{module}.{name}")


def signature_of(arguments, ours):
    """MultiBench's arguments as a signature; a default may name what the class holds."""
    scope = {"torch": torch, "nn": nn, "np": np, **(vars(ours) if inspect.isclass(ours) else {})}
    exec(f"def stated({arguments}): ...", scope)
    return inspect.signature(scope["stated"])


def own_signature(ours):
    if inspect.isclass(ours) and ours.__init__ is nn.Module.__init__:
        return inspect.Signature()  # which says (*args, **kwargs), and takes none
    return inspect.signature(ours)


def alike(ours, theirs):
    """Whether two defaults are the same, or two losses of one kind, or a tuple and a list."""
    if isinstance(theirs, nn.Module):
        return type(ours) is type(theirs) and repr(ours) == repr(theirs)
    if isinstance(theirs, list):
        return isinstance(ours, (list, tuple)) and list(ours) == theirs
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize("module, name, arguments", list(marked(rows())))
def test_a_name_of_multibench_is_here_with_its_arguments(module, name, arguments):
    ours = getattr(import_module(f"deq_fusion.{module}"), name)
    if arguments is None:
        return
    where = f"{module}.{name}"
    theirs = [
        p for p in signature_of(arguments, ours).parameters.values() if p.name != WITHOUT.get(where)
    ]
    own = list(own_signature(ours).parameters.values())
    first, extras = own[: len(theirs)], own[len(theirs) :]
    assert [(p.name, p.kind) for p in first] == [(p.name, p.kind) for p in theirs]
    different = {
        p.name
        for p, q in zip(first, theirs, strict=True)
        if q.default is not q.empty and not alike(p.default, q.default)
    }
    assert different == OTHER_DEFAULTS.get(where, set())
    for p in extras:
        assert p.kind is p.KEYWORD_ONLY and p.default is not p.empty, f"{p} is none of MultiBench's"


def test_the_table_is_read_whole_and_no_name_is_there_twice():
    found = [(module, name) for module, name, *_ in rows()]
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    stated = [line for line in lines if line.startswith(("* ", "  "))]
    assert len(found) == len(set(found)) == len(stated)
    modules = [line for line in lines if not line.startswith(("* ", "  ", "#"))]
    assert list(dict.fromkeys(module for module, _ in found)) == modules


def test_what_is_said_not_to_be_here_is_not():
    for module in NOT_HERE:
        parent, _, child = module.rpartition(".")
        package = f"deq_fusion.{parent}"
        try:
            found = find_spec(f".{child}", package)
        except ModuleNotFoundError:
            found = None
        assert found is None, f"{module} is here: its signatures belong into the table"


@pytest.mark.slow
def test_the_modules_import_under_multibenchs_own_names():
    modules = sorted({module for module, *_ in rows()})
    names = {name: [n for m, n, *_ in rows() if m == name] for name in modules}
    code = f"""
from importlib import import_module
for module, names in {names}.items():
    for name in names:
        getattr(import_module(module), name)
    assert import_module(module).__file__.startswith({str(ROOT)!r}), module
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
