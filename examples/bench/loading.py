"""How fast the adapters read: ``python -m examples.bench.loading [--rows N] [--folder DIR]``.

Shuffled batches from files that the page cache holds, one thread; beside each a naive reader:
h5py, a sample at a time, put together by torch's default collation. Writes its files into a
temporary folder, prints a Markdown table, removes them.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.hdf5 import build_file
from datasets.imdb.get_data import get_dataloader

ROWS = 25959


class NaiveReader(Dataset):
    """Reads one row of each dataset at a time, as many a public loader does."""

    def __init__(self, path: Path, names: Sequence[str], rows: int):
        self.path, self.names, self.rows = path, names, rows
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> list[torch.Tensor]:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        return [torch.from_numpy(np.asarray(self.file[name][row])) for name in self.names]


class Case(NamedTuple):
    """One line of the table: a set, our loader and the naive one."""

    name: str
    ours: Callable[[], Iterable]
    naive: Callable[[], Iterable]


def imdb_cases(folder: Path, rows: int) -> Iterator[Case]:
    """MM-IMDB's features at real width, in two batch sizes, with one worker and with none."""
    path = write_imdb(folder / "multimodal_imdb.hdf5", rows)
    names = ("features", "vgg_features", "genres")
    splits = (rows - 2, 1, 1)
    for batch_size in (128, 256):
        for workers in (0, 1):
            options = {"batch_size": batch_size, "num_workers": workers}
            yield Case(
                f"MM-IMDB, batch {batch_size}, {workers or 'no'} worker",
                lambda o=options: get_dataloader(path, splits=splits, **o)[0],
                lambda o=options: DataLoader(
                    NaiveReader(path, names, rows - 2),
                    shuffle=True,
                    persistent_workers=o["num_workers"] > 0,
                    **o,
                ),
            )


CASES = [imdb_cases]


def write_imdb(path: Path, rows: int) -> Path:
    """Writes random features and genres in MM-IMDB's layout."""
    rng = np.random.default_rng(0)

    def create(file: h5py.File) -> None:
        file.create_dataset("features", (rows, 300), "f4")
        file.create_dataset("vgg_features", (rows, 4096), "f4")
        file["genres"] = rng.integers(0, 2, (rows, 23), dtype=np.int32)

    def fill(file: h5py.File, start: int, stop: int) -> None:
        for name in ("features", "vgg_features"):
            shape = (stop - start, file[name].shape[1])
            file[name][start:stop] = rng.random(shape, dtype=np.float32)

    return build_file(path, rows, create, fill, settings={}, batch_size=4096, progress=False)


def samples_per_second(loader: Iterable, *, seconds: float = 2.0) -> float:
    """Returns the rate in the second of two equal times; the first fills caches, starts workers."""
    for _ in range(2):
        count, start = 0, time.perf_counter()
        for batch in chain.from_iterable(repeat(loader)):
            count += len(batch[-1])
            spent = time.perf_counter() - start
            if spent > seconds:
                break
    return count / spent


def main(argv: Sequence[str] | None = None) -> None:
    """Measures all cases and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m examples.bench.loading", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="films (default: %(default)s)")
    parser.add_argument("--folder", help="where to put the temporary files (default: the system's)")
    args = parser.parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            print("| set | samples/s | naive | ratio |\n|---|---|---|---|")
            for case in chain.from_iterable(cases(Path(folder), args.rows) for cases in CASES):
                ours, naive = samples_per_second(case.ours()), samples_per_second(case.naive())
                print(f"| {case.name} | {ours:,.0f} | {naive:,.0f} | {ours / naive:.1f} |")
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
