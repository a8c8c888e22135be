"""HDF5 rows are what h5py reads, in any order and process; an interrupted build goes on."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets.files.hdf5 import Rows, open_file, read_attribute, read_whole
from datasets.files.hdf5_build import build_file

ROOT = Path(__file__).parents[3]
LAYOUTS = {
    "plain": {},
    "chunked": {"chunks": (4, 2)},
    "compressed": {"chunks": (5, 3), "compression": "gzip"},
}


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(23, 6)).astype(np.float32)


@pytest.fixture
def path(tmp_path, values):
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, options in LAYOUTS.items():
            file.create_dataset(name, data=values, **options)
        file.create_dataset("big_endian", data=values.astype(">f4"))
        file.create_dataset("names", data=np.array([b"a%d" % row for row in range(23)]))
        file.create_dataset("unwritten", (23, 6), "f4")
        file.create_dataset("group/inner", data=values[:, 0])
        file["single"] = 3.0
    return path


@pytest.mark.parametrize("name", [*LAYOUTS, "big_endian"])
@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_rows_come_in_the_order_asked_for(path, values, name, memory):
    rows = Rows(path, name, memory=memory)
    assert (len(rows), rows.shape) == (23, (23, 6))
    for wanted in ([3, 22, 0, 3, 4], np.array([7]), [], np.random.default_rng(1).permutation(23)):
        np.testing.assert_array_equal(
            rows[wanted], values[np.asarray(wanted, dtype=int)], strict=True
        )


def test_what_is_read_belongs_to_the_reader(path, values):
    rows = Rows(path, "plain")
    rows[[1, 2]][:] = 0
    np.testing.assert_array_equal(rows[[1, 2]], values[[1, 2]])


def test_names_and_groups_are_read(path, values):
    assert Rows(path, "names")[[12, 0]].tolist() == [b"a12", b"a0"]
    np.testing.assert_array_equal(Rows(path, "group/inner")[[5]], values[[5], 0])


def read_in_a_process(rows, wanted, results):
    results.put(rows[wanted])


@pytest.mark.filterwarnings("ignore:This process .* multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_forked_process_opens_the_file_for_itself(path, values, name):
    rows = Rows(path, name, memory=0)
    rows[[0]]  # opened here first
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=read_in_a_process, args=(rows, [9, 1], results))
    process.start()
    np.testing.assert_array_equal(results.get(timeout=20), values[[9, 1]])
    process.join()
    np.testing.assert_array_equal(rows[[2]], values[[2]])


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_can_be_pickled_without_their_content(path, values, name):
    rows = Rows(path, name)
    rows[[0]]
    copy = pickle.dumps(rows)
    assert len(copy) < 1000
    np.testing.assert_array_equal(pickle.loads(copy)[[8]], values[[8]])


@pytest.mark.parametrize("wanted", [[-1], [23], [0.0], [[1]], [True] * 23])
def test_rows_that_are_not_there_are_refused(path, wanted):
    with pytest.raises(
        IndexError, match=r"rows (of plain in .* 0\.\.22|must be a list of integer)"
    ):
        Rows(path, "plain")[wanted]


def test_a_wrong_name_is_answered_with_those_there(path):
    with pytest.raises(
        ValueError, match=r"data.hdf5 must hold a dataset 'chunky', it has \[.*'chun"
    ):
        Rows(path, "chunky")
    with pytest.raises(ValueError, match="single in .* must have rows"):
        Rows(path, "single")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.hdf5"):
        Rows(tmp_path / "none.hdf5", "features")


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_a_truncated_file_is_named(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"data\.hdf5 must be a complete HDF5 file"):
        Rows(path, "plain")


def create(file):
    file.create_dataset("squares", (20, 3), "f4")
    file["fixed"] = np.arange(4)


def fill(file, start, stop):
    file["squares"][start:stop] = np.arange(start, stop)[:, None] ** 2


def build(path, fill=fill, create=create, **options):
    options = {"settings": {"network": "a"}, "batch_size": 3, "progress": False} | options
    return build_file(path, options.pop("total", 20), create, fill, **options)


def check_squares(path, count=20):
    np.testing.assert_array_equal(
        Rows(path, "squares")[range(count)], np.tile(np.arange(count)[:, None] ** 2.0, 3)
    )
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_a_built_file_holds_what_was_filled_in(tmp_path):
    path = build(tmp_path / "out.hdf5")
    check_squares(path)
    with open_file(path) as file:
        assert file["squares"].id.get_offset() and file["fixed"][()].tolist() == [0, 1, 2, 3]


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path):
    path, filled = tmp_path / "out.hdf5", []

    def failing(file, start, stop):
        if start == 9:
            file["squares"][start] = -1
            raise KeyboardInterrupt
        fill(file, start, stop)

    def noting(file, start, stop):
        filled.append((start, stop))
        fill(file, start, stop)

    with pytest.raises(KeyboardInterrupt):
        build(path, failing)
    assert not path.exists()
    build(path, noting, batch_size=8)
    assert filled == [(9, 17), (17, 20)]
    check_squares(path)
    build(path, noting)  # complete: nothing to do
    assert len(filled) == 2


KILLED = """
import sys, time
from pathlib import Path
from datasets.files.hdf5_build import build_file
def create(file):
    file.create_dataset("squares", (200, 3), "f4")
def fill(file, start, stop):
    file["squares"][start:stop] = [[row**2] * 3 for row in range(start, stop)]
    time.sleep(0.002)
build_file(Path(sys.argv[1]), 200, create, fill, settings={}, batch_size=1, progress=False)
"""


def test_a_killed_build_loses_at_most_a_batch(tmp_path):
    path, note = tmp_path / "out.hdf5", tmp_path / "out.hdf5.part.json"
    command = [sys.executable, "-c", KILLED, str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = [0]
    for _ in range(2):  # killed twice, then left alone
        process = subprocess.Popen(command, env=environment)
        limit = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < limit:
            if note.exists() and json.loads(note.read_text())["done"] >= done[-1] + 20:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done.append(json.loads(note.read_text())["done"])
        with open_file(f"{path}.part") as file:  # still readable, and as far as noted
            assert file["squares"][: done[-1], 0].tolist() == [n**2 for n in range(done[-1])]
    assert 0 < done[1] < done[2] < 200
    assert subprocess.run(command, env=environment).returncode == 0
    check_squares(path, 200)


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "out.hdf5"

    def failing(file, start, stop):
        raise OSError

    with pytest.raises(OSError):
        build(path, failing)
    for other in ({"settings": {"network": "b"}}, {"total": 19}):
        with pytest.raises(ValueError, match=r"out\.hdf5\.part\.json was made with .*'a'"):
            build(path, **other)
    build(path)
    with pytest.raises(ValueError, match=r"out\.hdf5 was made with .*'a'.*'b'"):
        build(path, settings={"network": "b"})


def test_a_damaged_note_is_named(tmp_path):
    path, note = tmp_path / "out.hdf5", tmp_path / "out.hdf5.part.json"

    def failing(file, start, stop):
        raise OSError

    with pytest.raises(OSError):
        build(path, failing)
    note.write_text(note.read_text()[:10])
    with pytest.raises(ValueError, match=r"out\.hdf5\.part\.json is damaged .*; delete it"):
        build(path)
    note.unlink()
    check_squares(build(path))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_an_item_at_least(tmp_path, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        build(tmp_path / "out.hdf5", batch_size=batch_size)
    assert not list(tmp_path.iterdir())  # no file of zeros that looks complete


def test_chunked_datasets_cannot_be_built(tmp_path):
    def create(file):
        file.create_dataset("squares", (20, 3), "f4", chunks=(5, 3))

    with pytest.raises(ValueError, match="dataset squares must be contiguous .* chunks"):
        build(tmp_path / "out.hdf5", create=create)


def test_numbers_of_another_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = np.full((4, 3), 7.0)
    (tmp_path / "raw.bin").write_bytes(bytes(96))
    with h5py.File(tmp_path / "links.hdf5", "w") as file:
        file["x"] = h5py.ExternalLink("other.hdf5", "x")
        outside = [(str(tmp_path / "raw.bin"), 0, 96)]
        file.create_dataset("raw", (4, 3), "f8", external=outside)
        layout = h5py.VirtualLayout((4, 3), "f8")
        layout[:] = h5py.VirtualSource(tmp_path / "other.hdf5", "x", (4, 3))
        file.create_virtual_dataset("virtual", layout)
    for name in ("x", "raw", "virtual"):
        with pytest.raises(ValueError, match="must be in that file itself, but it is a link"):
            Rows(tmp_path / "links.hdf5", name)


@pytest.mark.parametrize("dtype", ["f2", ">f4", "i8", "S3"])
def test_large_rows_are_read_as_small_ones_are(tmp_path, monkeypatch, dtype):
    values = np.random.default_rng(0).integers(0, 9, (6, 2, 5)).astype(dtype)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["x"] = values
    rows = Rows(tmp_path / "x.hdf5", "x")
    mapped = rows[[4, 0, 4]]
    monkeypatch.setattr("datasets.files.hdf5.LARGE", 1)
    read = rows[[4, 0, 4]]
    assert read.dtype == mapped.dtype and read.shape == (3, 2, 5)
    np.testing.assert_array_equal(read, mapped)
    np.testing.assert_array_equal(read, values[[4, 0, 4]].astype(read.dtype))
    assert rows[[]].shape == (0, 2, 5)
    with open(tmp_path / "x.hdf5", "r+b") as file:
        file.truncate(rows._offset + 3)
    with pytest.raises(ValueError, match="x.hdf5 ended within x; get it again"):
        rows[[5]]


@pytest.mark.parametrize("chunks", [None, (4, 2)])
def test_values_that_were_never_written_are_refused(tmp_path, chunks):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        part = file.create_dataset("part", (23, 6), "f4", chunks=chunks)
        file.create_dataset("empty", (0, 6), "f4", maxshape=(None, 6), chunks=chunks)
        lacking = "nothing was written"
        if chunks:
            part[:16] = 1
            lacking = "12 of 18 chunks are there"
    with pytest.raises(ValueError, match=f"part in .*x.hdf5 must be written to its end.*{lacking}"):
        Rows(tmp_path / "x.hdf5", "part")
    assert len(Rows(tmp_path / "x.hdf5", "empty")) == 0


def test_small_datasets_are_read_whole_within_their_limit(path, values):
    with open_file(path) as file:
        np.testing.assert_array_equal(read_whole(file, "compressed"), values)
        assert read_whole(file, "names")[3] == b"a3"
        assert read_whole(file, "single") == 3
        with pytest.raises(ValueError, match=r"plain in .* at most 551 bytes, .* 552 \(float32"):
            read_whole(file, "plain", limit=551)


def test_attributes_are_read_within_their_limit(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["x"] = np.arange(3)
        file["x"].attrs["names"] = ["a", "b"]
        file.attrs["count"], file.attrs["large"] = 3, np.zeros(1000)
        file.attrs["link"] = file["x"].ref
        record = np.array([(b"a", h5py.Reference())], [("name", "S3"), ("link", h5py.ref_dtype)])
        file.attrs.create("records", record, dtype=record.dtype)
    with open_file(tmp_path / "x.hdf5") as file:
        assert read_attribute(file, "x/@names").tolist() == ["a", "b"]
        assert read_attribute(file, "count") == 3 and read_attribute(file, "none") is None
        assert read_attribute(file, "records").dtype.names == ("name", "link")
        for name in ("large", "link"):
            with pytest.raises(ValueError, match=f"attribute {name} of .*x.hdf5 must be texts or"):
                read_attribute(file, name, 7999)


def test_links_are_followed_inside_of_the_file_only(tmp_path, path, values):
    with h5py.File(path, "r+") as file:
        file["soft"] = h5py.SoftLink("/group/again")
        file["group/again"] = h5py.SoftLink("inner")
        file["round"] = h5py.SoftLink("/round")
        file["out"] = h5py.ExternalLink("none.hdf5", "/group")
    np.testing.assert_array_equal(Rows(path, "soft")[[5]], values[[5], 0])
    for name in ("round", "out", "out/inner"):
        with pytest.raises(ValueError, match=f"{name} in .* must be in that file itself"):
            Rows(path, name)


@pytest.mark.parametrize(
    "value",
    [np.zeros(2, "V3"), np.zeros(2, "i4, f4"), None],
    ids=["opaque", "record", "none"],
)
def test_what_is_no_number_and_no_text_is_refused(tmp_path, value):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["x"] = h5py.Empty("f4") if value is None else value
    with pytest.raises(ValueError, match="x in .*x.hdf5 must be plain numbers or texts"):
        Rows(tmp_path / "x.hdf5", "x")
