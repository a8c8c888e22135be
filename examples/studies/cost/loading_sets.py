"""The cases of reading: each set's adapter, and beside it a naive reader of the same files.

The naive readers do as little as can be done a row at a time: they check nothing, and neither
split nor scale. Batches are put together by torch's default collation.
"""

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from deq_fusion.datasets.affect import get_data as sequences
from deq_fusion.datasets.affect import utterance
from deq_fusion.datasets.brca import get_data as brca
from deq_fusion.datasets.files.restricted_pickle import load
from deq_fusion.datasets.imdb import get_data as imdb
from deq_fusion.datasets.vqa import get_data as vqa
from deq_fusion.datasets.vqa.get_data import VQA
from deq_fusion.examples.studies.cost import loading_files as files

WARM = 4  # batches that are not timed: they open files, start workers and fill their queues
RATE = "samples/s"
Timed = tuple[int, float]
"""Samples read, and the seconds that took."""


class Case(NamedTuple):
    """One line of the table.

    Attributes:
        what: what is read, and how.
        target: samples a second if `unit` is `RATE`; the most seconds if it is "s".
        ours: reads once by the adapter.
        naive: reads once row by row, equally many samples.
    """

    set: str
    what: str
    unit: str
    target: float
    ours: Callable[[], Timed]
    naive: Callable[[], Timed]


def imdb_cases(folder: Path, scale: float, rows: int) -> Iterator[Case]:
    """MM-IMDB's features, shuffled, in batches of 128."""
    films = _scaled(files.FILMS, scale)
    path = files.write_imdb(folder / "multimodal_imdb.hdf5", films)
    splits = (films - 2, 1, 1)
    for workers in (0, 1):
        ours, _, _ = imdb.get_dataloader(path, splits=splits, batch_size=128, workers=workers)
        naive = _by_row(Films(path, films - 2), 128, workers)
        readers = (partial(_stream, loader, rows) for loader in (ours, naive))
        what = f"text (300) and image (4096), {_workers(workers)}"
        yield Case("MM-IMDB", what, RATE, 20_000, *readers)


def vqa_cases(folder: Path, scale: float, rows: int, *, offsets: bool = False) -> Iterator[Case]:
    """VQA-v2's questions with 36 x 2048 float16 regions, shuffled, in batches of 64."""
    path = files.write_vqa(folder, _scaled(files.IMAGES, scale), offsets=offsets)
    for workers in (0, 1):
        ours, _, _ = vqa.get_dataloader(folder, min_count=1, batch_size=64, workers=workers)
        naive = _by_row(Questions(ours.dataset, path), 64, workers)
        readers = (partial(_stream, loader, rows // 4) for loader in (ours, naive))
        what = f"36 x 2048, {'offsets' if offsets else 'image blocks'}, {_workers(workers)}"
        yield Case("VQA-v2", what, RATE, 800, *readers)


def brca_cases(folder: Path, scale: float, rows: int) -> Iterator[Case]:
    """BRCA's tables, from files to loaders; the naive reader makes tensors of them."""
    train, test = (_scaled(count, scale) for count in files.PATIENTS)
    files.write_brca(folder, (train, test))
    ours, naive = partial(brca.get_dataloader, folder), partial(read_tables, folder)
    yield Case("BRCA", "load", "s", 2, partial(_load, ours), partial(_load, naive))


def mosi_cases(folder: Path, scale: float, rows: int) -> Iterator[Case]:
    """CMU-MOSI's two layouts: from the file to loaders, and one pass over all parts."""
    counts = {part: _scaled(count, scale) for part, count in files.UTTERANCES.items()}
    path = files.write_utterances(folder / utterance.FILE, counts)
    ours = partial(utterance.get_dataloader, path, batch_size=32)
    naive = partial(read_utterances, path)
    readers = partial(_load_and_pass, ours), partial(_load_and_pass, naive)
    yield Case("CMU-MOSI", "utterances (npz): load, one pass", "s", 2, *readers)
    path = files.write_sequences(folder / "mosi_raw.pkl", counts)
    ours = partial(sequences.get_dataloader, path, max_pad=True, scale=True, num_workers=0)
    naive = partial(read_sequences, path)
    readers = partial(_load_and_pass, ours), partial(_load_and_pass, naive)
    yield Case("CMU-MOSI", "sequences (pickle): load, one pass", "s", 2, *readers)


SETS: dict[str, Callable[[Path, float, int], Iterator[Case]]] = {
    "imdb": imdb_cases,
    "vqa": vqa_cases,
    "vqa-offsets": partial(vqa_cases, offsets=True),
    "brca": brca_cases,
    "mosi": mosi_cases,
}


class Films(Dataset):
    """Films of an open HDF5 file, one at a time."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count, self.file = path, count, None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> list[torch.Tensor]:
        self.file = self.file or h5py.File(self.path, "r")
        names = ("features", "vgg_features", "genres")
        return [torch.from_numpy(self.file[name][row]).float() for name in names]


class Questions(Dataset):
    """The questions of a part, one at a time: each reads its image from the open file."""

    def __init__(self, part: VQA, path: Path) -> None:
        self.part, self.path, self.file = part, path, None

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        self.file = self.file or h5py.File(self.path, "r")
        place = int(self.part.part.image_ids[row])  # images are numbered as they are stored
        if "offsets" in self.file:
            start, stop = self.file["offsets"][place : place + 2]
            regions = self.file["features"][start:stop]
        else:
            regions = self.file["features"][place]
        truth = {name: column[row] for name, column in self.part.truth.items()}
        return self.part.tokens[row], torch.from_numpy(regions).to(self.part.dtype), truth


class Items(Dataset):
    """Rows of arrays, one at a time; with `padded`, zeros in front are moved behind."""

    def __init__(self, arrays: Sequence[np.ndarray], *, padded: bool = False) -> None:
        self.arrays, self.padded = arrays, padded

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, row: int) -> list[torch.Tensor]:
        *views, label = (array[row] for array in self.arrays)
        if self.padded:
            start = views[-1].any(axis=1).argmax()  # text is last
            views = [np.pad(view[start:], ((0, start), (0, 0))) for view in views]
        return [*map(torch.as_tensor, views), torch.as_tensor(label)]


def read_tables(folder: Path) -> list[DataLoader]:
    """Reads BRCA's tables with the csv module, cell by cell."""
    parts = []
    for part in ("tr", "te"):
        tables = []
        for name in (*range(1, len(files.WIDTHS) + 1), "labels"):
            with (folder / f"{name}_{part}.csv").open(newline="", encoding="utf-8") as lines:
                tables.append(torch.tensor([[float(c) for c in row] for row in csv.reader(lines)]))
        parts.append(_by_row(Items(tables), 32))
    return parts


def read_utterances(path: Path) -> list[DataLoader]:
    """Reads the npz; its two parts are served row by row."""
    with np.load(path, allow_pickle=False) as file:
        arrays = [file[name] for name in (*files.FEATURES, "labels")]
        tests = file["split"] == "test"
    return [_by_row(Items([a[rows] for a in arrays]), 32) for rows in (~tests, tests)]


def read_sequences(path: Path) -> list[DataLoader]:
    """Reads the pickle; its three parts are served row by row."""
    parts = load(path, encoding="latin1").values()
    names = (*files.SEQUENCES, "labels")
    return [_by_row(Items([part[k] for k in names], padded=True), 32) for part in parts]


def _by_row(dataset: Dataset, batch_size: int, workers: int = 0) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _stream(loader: Iterable, rows: int) -> Timed:
    """Reads whole batches, in as many passes as it takes, until there are `rows` samples."""
    batches = chain.from_iterable(repeat(loader))
    for _ in islice(batches, WARM):
        pass
    count, start = 0, time.perf_counter()
    while count < rows:
        count += len(next(batches)[0])
    return count, time.perf_counter() - start


def _load(make: Callable[[], Iterable[DataLoader]]) -> Timed:
    start = time.perf_counter()
    loaders = make()
    return sum(len(loader.dataset) for loader in loaders), time.perf_counter() - start


def _load_and_pass(make: Callable[[], Iterable[DataLoader]]) -> Timed:
    start = time.perf_counter()
    count = sum(len(batch[0]) for loader in make() for batch in loader)
    return count, time.perf_counter() - start


def _scaled(count: int, scale: float) -> int:
    return max(30, round(count * scale))


def _workers(count: int) -> str:
    return "one worker" if count else "no worker"
