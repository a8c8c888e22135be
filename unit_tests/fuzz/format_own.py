"""Files that the project writes itself, a checkpoint and a comparison's folder, and archives."""

import gzip
import io
import itertools
import json
import pickle
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_fusion.datasets.files.archives import unpack
from deq_fusion.training_structures.checkpoint import load_checkpoint, save_checkpoint, seeded
from deq_fusion.training_structures.comparison.report.table import cells, make_rows
from deq_fusion.training_structures.files import sealed_json
from deq_fusion.training_structures.fit import fit, load_best
from unit_tests.training_structures.comparison import toy

from .containers import mutate_file
from .formats import Format, Unchecked
from .structure import mutate_tree

CHECKPOINT = "run.ckpt"


@contextmanager
def _clock() -> Iterator[None]:
    """Makes what is timed take the same time always, and so files the same bytes."""
    with mock.patch("time.perf_counter", map(float, itertools.count()).__next__):
        yield


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _files_in(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


class _Model(nn.Linear):
    def forward(self, inputs):
        return super().forward(*inputs)


def _fit(path: Path, epochs: int):
    torch.manual_seed(0)
    model, x = _Model(3, 2), torch.randn(8, 3)
    data = DataLoader(TensorDataset(x, x[:, 0].gt(0).long()), batch_size=4)
    options = {"checkpoint": path, "resume": True, "progress": False}
    return model, fit(model, data, data, nn.functional.cross_entropy, epochs=epochs, **options)


def _checkpoint_file() -> dict[str, bytes]:
    with _folder() as folder, _clock(), seeded(0):
        _fit(folder / CHECKPOINT, 2)
        return _files_in(folder)


def _read_checkpoint(folder: Path) -> dict:
    contents = load_checkpoint(folder / CHECKPOINT)
    model, history = _fit(folder / CHECKPOINT, 2)
    resumed = {key: value.clone() for key, value in model.state_dict().items()}
    load_best(model, folder / CHECKPOINT)
    found = {"contents": contents, "resumed": resumed, "epochs": history.epochs}
    return found | {"best": dict(model.state_dict())}


def _change_checkpoint(rng: Random, name: str, content: bytes) -> tuple[bytes, str]:
    """Returns a checkpoint with a right checksum, in which something is what it must not be."""
    with _folder() as folder:
        (folder / CHECKPOINT).write_bytes(content)
        tree = _plain(load_checkpoint(folder / CHECKPOINT))
        tree, done = mutate_tree(rng, tree)
        try:
            save_checkpoint(folder / CHECKPOINT, _tensors(tree if isinstance(tree, dict) else {}))
        except (TypeError, ValueError, OSError, OverflowError, pickle.PicklingError):
            return content[:-1], "cut"
        return (folder / CHECKPOINT).read_bytes(), f"right checksum, {done}"


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return type(value)(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _tensors(value):
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(np.array(value))
        except TypeError:
            return value.tolist()
    if isinstance(value, dict):
        return {key: _tensors(entry) for key, entry in value.items()}
    return type(value)(map(_tensors, value)) if isinstance(value, (list, tuple)) else value


def _store_files() -> dict[str, bytes]:
    with _folder() as folder, _clock():
        toy.run(folder, runs=[0, 1])
        return _files_in(folder)


def _not_run(folder: Path, method, run: int, *_, **__) -> dict:
    return {"method": method.name, "run": run, "error": "it would be run again"}


def _read_store(folder: Path) -> dict:
    with mock.patch("deq_fusion.training_structures.comparison.work.run_and_store", _not_run):
        found = toy.run(folder, runs=[0, 1])
    rows = make_rows(found.results, toy.recipe().scores, baseline="sum") if found.results else []
    lines = cells(rows, toy.recipe().scores, "sum")
    return {"results": found.results, "again": found.failures, "lines": Unchecked(lines)}


def _change_store(rng: Random, name: str, content: bytes) -> tuple[bytes, str]:
    """Returns a run or a manifest of other contents, in most cases with a right checksum."""
    if rng.random() < 0.2:
        return mutate_file(rng, name, content)
    tree = json.loads(content)
    tree.pop("sha256")
    tree, done = mutate_tree(rng, tree, plain=True)
    tree = tree if isinstance(tree, dict) and tree else {"other": tree}
    try:
        return sealed_json(tree), f"right checksum, {done}"
    except UnicodeEncodeError:  # half of a surrogate pair
        return content[:-1], "cut"


def _members() -> dict[str, bytes]:
    texts = {"split.json": b"{}" * 40, "dataset/a.json": b'{"plot": "x"}', "dataset/b.json": b"12"}
    return {**texts, "dataset/c.bin": np.random.default_rng(11).bytes(300), "else.txt": b"else"}


def _zip_file() -> dict[str, bytes]:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in _members().items():
            kind = zipfile.ZIP_STORED if name.endswith("bin") else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=kind)
    return {"archive.zip": written.getvalue()}


def _tar_file() -> dict[str, bytes]:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in _members().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return {"archive.tar.gz": gzip.compress(written.getvalue(), mtime=0)}


def _read_archive(name: str, folder: Path) -> dict:
    paths = unpack(folder / name, folder / "out", wanted=["dataset", "split.json"], progress=False)
    left = sorted(path.name for path in (folder / "out").iterdir())
    return {"left": left, "files": _contents(paths)}


def _contents(paths: list[Path]) -> dict[str, str]:
    files = (file for path in paths for file in (path, *path.rglob("*")) if file.is_file())
    found = {file.as_posix().partition("/out/")[2]: file.read_bytes().hex() for file in files}
    return found | {"links": str([p for path in paths for p in path.rglob("*") if p.is_symlink()])}


def _independent_zip(folder: Path) -> dict:
    with zipfile.ZipFile(folder / "archive.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return _unpacked({name: archive.read(name) for name in names}, names)


def _independent_tar(folder: Path) -> dict:
    content = gzip.decompress((folder / "archive.tar.gz").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = [member for member in archive if member.isfile()]
        names = [member.name for member in files]
        return _unpacked({m.name: archive.extractfile(m).read() for m in files}, names)


def _unpacked(files: dict[str, bytes], names: list[str]) -> dict:
    """Returns what of an archive is wanted, from its top, or from the folder that holds it."""
    assert len(set(names)) == len(names)
    files = {name.removeprefix("./"): content for name, content in files.items()}
    found = {"links": "[]"}
    for wanted in ("dataset", "split.json"):
        tops = ("", *sorted({f"{name.split('/')[0]}/" for name in files if "/" in name}))
        for top in tops:
            here = {n: c for n, c in files.items() if (n + "/").startswith(f"{top}{wanted}/")}
            if here:
                break
        found |= {name.removeprefix(top): content.hex() for name, content in here.items()}
    return {"left": ["dataset", "split.json"], "files": found}


FORMATS = (
    Format(
        "checkpoint",
        _checkpoint_file,
        _read_checkpoint,
        None,
        finite=False,
        change=_change_checkpoint,
        signed=True,
    ),
    Format(
        "results store",
        _store_files,
        _read_store,
        None,
        (".json",),
        finite=False,
        change=_change_store,
        signed=True,
    ),
    Format("zip", _zip_file, partial(_read_archive, "archive.zip"), _independent_zip),
    Format("tar.gz", _tar_file, partial(_read_archive, "archive.tar.gz"), _independent_tar),
)
