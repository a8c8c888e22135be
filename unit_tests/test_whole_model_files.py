"""Files of whole models, as `torch.save(model, path)` writes them, load after the code has moved.

whole_models.pt.xz was written when MultiBench's classes were in a dozen files: "module.class" ->
(model, input, output), by the names of an installation and by a checkout's bare ones. Large models
are on the device meta, without numbers, and have neither input nor output.
"""

import importlib
import io
import lzma
import pickletools
import zipfile
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

FILE = Path(__file__).with_name("whole_models.pt.xz")
FOLDERS = ("fusions", "unimodals", "training_structures")
MULTIBENCHS = (
    "fusions.common_fusions",
    "fusions.mult",
    "unimodals.common_models",
    "training_structures.Supervised_Learning",
)


@pytest.fixture(scope="module")
def contents():
    return lzma.decompress(FILE.read_bytes())


@pytest.fixture(scope="module")
def models(contents):
    return torch.load(io.BytesIO(contents), weights_only=False)


def named(name):
    """The class or module that the file calls so."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_the_file_names_multibenchs_modules_and_no_other(contents):
    archive = zipfile.ZipFile(io.BytesIO(contents))
    (record,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
    operations = pickletools.genops(archive.read(record))
    modules = {argument.split()[0] for code, argument, _ in operations if code.name == "GLOBAL"}
    ours = {name for name in modules if name.removeprefix("deq_fusion.").startswith(FOLDERS)}
    assert ours == {prefix + name for prefix in ("", "deq_fusion.") for name in MULTIBENCHS}


def test_the_file_holds_every_class_of_multibenchs_modules(models):
    for name in ("fusions.common_fusions", "fusions.mult", "unimodals.common_models"):
        module = importlib.import_module(f"deq_fusion.{name}")
        classes = {
            f"{module.__name__}.{key}"
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, torch.nn.Module)
            if value.__module__ == module.__name__ and not key.startswith("_")
        }
        assert classes <= set(models)


def test_models_of_before_are_of_the_classes_of_now_and_give_what_they_gave(models):
    for name, (model, inputs, output) in models.items():
        assert type(model) is named(name), name
        if output is not None:
            model.eval()
            with torch.no_grad():
                assert_close(model(inputs), output, msg=lambda text, name=name: f"{name}: {text}")
