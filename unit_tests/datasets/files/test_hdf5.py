"""HDF5 rows are what h5py reads, in any order and process; an interrupted build goes on."""

import json
import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from deq_fusion.datasets.files import hdf5_build
from deq_fusion.datasets.files.hdf5 import MEMORY, Rows, open_file, read_attribute, read_whole
from deq_fusion.datasets.files.hdf5_build import build_file

ROOT = Path(__file__).parents[3]
LAYOUTS = {
    "plain": {},
    "chunked": {"chunks": (4, 2)},
    "compressed": {"chunks": (5, 3), "compression": "gzip"},
    "shuffled": {"chunks": (6, 6), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "summed": {"chunks": (3, 5), "fletcher32": True},
    "lzf": {"chunks": (5, 3), "compression": "lzf", "shuffle": True},
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


def test_rows_of_an_open_file_leave_it_open_and_outlive_it(path, values):
    with open_file(path) as file:
        rows = {name: Rows(file, name) for name in ("plain", "chunked")}
        assert file["plain"].shape == values.shape
    for found in rows.values():
        assert found.path == path
        np.testing.assert_array_equal(found[[3, 1]], values[[3, 1]])


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
from deq_fusion.datasets.files.hdf5_build import build_file
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


@pytest.mark.parametrize("dtype", ["f2", ">f4", "i8", "S3", "?"])
def test_rows_that_follow_each_other_are_read_at_once(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 9, (40, 2, 5)).astype(dtype)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["x"] = values
    rows = Rows(tmp_path / "x.hdf5", "x")
    for wanted in ([4, 0, 4], [3, 4, 5, 9, 10, 2, 3], [5, 4, 3], range(40), []):
        found = rows[wanted]
        assert found.shape == (len(wanted), 2, 5) and found.dtype.isnative
        np.testing.assert_array_equal(found, values[list(wanted)])


def test_a_file_that_is_cut_or_grows_while_it_is_used_is_named(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["x"] = np.ones((6, 5))
    rows = Rows(tmp_path / "x.hdf5", "x")
    rows[[5]]
    with open(tmp_path / "x.hdf5", "r+b") as file:
        file.truncate(rows._offset + 3)
    with pytest.raises(ValueError, match="x.hdf5 has changed since it was opened"):
        rows[[5]]
    rows._size = rows._offset + 3  # cut between that look and the reading
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
        file.attrs["link"], file.attrs["empty"] = file["x"].ref, h5py.Empty("f4")
        record = np.array([(b"a", h5py.Reference())], [("name", "S3"), ("link", h5py.ref_dtype)])
        file.attrs.create("records", record, dtype=record.dtype)
    with open_file(tmp_path / "x.hdf5") as file:
        assert read_attribute(file, "x/@names").tolist() == ["a", "b"]
        assert read_attribute(file, "count") == 3 and read_attribute(file, "none") is None
        assert read_attribute(file, "records").dtype.names == ("name", "link")
        for name in ("large", "link", "empty"):
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


def test_damage_in_a_chunk_is_named(path, values):
    with h5py.File(path, "w") as file:  # without the user block, of which versions differ
        for name, options in LAYOUTS.items():
            file.create_dataset(name, data=values, **options)
    with h5py.File(path) as file:
        places = {
            name: file[name].id.get_chunk_info(2).byte_offset
            for name in LAYOUTS
            if name in ("compressed", "shuffled", "summed")  # lzf has no checksum
        }
    content = path.read_bytes()
    for name, place in places.items():
        damaged = bytearray(content)
        damaged[place + 9] ^= 16
        path.write_bytes(damaged)
        for memory in (0, MEMORY):
            with pytest.raises(ValueError, match=f"{name} of .*data.hdf5 cannot be read"):
                Rows(path, name, memory=memory)[range(23)]


def write_chunk(path, content, *, shape=(4, 2), mask=0, **options):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", shape, "f8", chunks=shape, **options)
        dataset.id.write_direct_chunk((0, 0), content, mask)
    return path


def test_a_chunk_ends_where_it_is_declared_to_end(tmp_path):
    values = np.arange(8.0).tobytes()
    path = tmp_path / "x.hdf5"
    gzip = {"compression": "gzip"}
    assert Rows(write_chunk(path, values, mask=1, **gzip), "x")[[1]].tolist() == [[2, 3]]
    bomb = zlib.compress(bytes(1 << 22))  # within the size that is stored at most
    for content, options, why in (
        (bomb, gzip, "expand to more than the chunk"),
        (zlib.compress(values)[:-3], gzip, "are cut"),
        (zlib.compress(values + b"x"), gzip, "must have 64 bytes, not 65"),
        (zlib.compress(values[:-1]), gzip, "must have 64 bytes, not 63"),
        (bytes(5000), gzip, "cannot have 5,000 bytes for 64"),
    ):
        write_chunk(path, content, **options)
        for memory in (0, MEMORY):
            with pytest.raises(ValueError, match=f"x of .*x.hdf5 cannot be read.*{why}"):
                Rows(path, "x", memory=memory)[[0]]


def test_what_hdf5_would_leave_to_chance_is_refused(tmp_path):
    """The stored size of a plain chunk, and the width by which bytes were shuffled, in the file."""
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("plain", data=np.ones((4, 2)), chunks=(4, 2))
        file.create_dataset("shuffled", data=np.ones((4, 2)), chunks=(4, 2), shuffle=True)
    content = path.read_bytes()
    key = struct.pack("<IIQQQ", 64, 0, 0, 0, 0)  # of the chunk: its size, filters, and place
    assert content.count(key) == 2
    path.write_bytes(content.replace(key, struct.pack("<I", 60) + key[4:], 1))
    with pytest.raises(ValueError, match="must have 64 bytes, not 60"):
        Rows(path, "plain", memory=0)[[0]]
    width = content.index(b"shuffle\0") + 8
    assert content[width] == 8
    for other in (0, 1, 4, 200):
        path.write_bytes(content[:width] + bytes([other]) + content[width + 1 :])
        try:
            found = Rows(path, "shuffled")[range(4)]
        except ValueError as error:
            assert "x.hdf5 cannot be read" in str(error)
        else:
            with h5py.File(path) as file:
                np.testing.assert_array_equal(found, file["shuffled"][()])


def test_lzf_data_of_another_length_are_refused(tmp_path):
    path, values = tmp_path / "x.hdf5", np.random.default_rng(0).integers(0, 3, (40, 50))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(40, 50), compression="lzf")
        raw = file["x"].id.read_direct_chunk((0, 0))[1]
    np.testing.assert_array_equal(Rows(path, "x")[range(40)], values)
    for content, why in (
        (raw + b"\0a", "its lzf data must unpack to 16,000 bytes, not 16,001"),
        (b"\0a", "its lzf data must unpack to 16,000 bytes, not 1"),
        (b"\0a\xe0\xff\0", "its lzf data must unpack to 16,000 bytes, not 265"),
        (raw[:-1], ""),  # h5py finds out
        (b"\xff", ""),
    ):
        write_chunk(path, content, shape=(40, 50), compression="lzf")
        with pytest.raises(ValueError, match=f"x of .*x.hdf5 cannot be read.*{why}"):
            Rows(path, "x", memory=0)[[0]]


def test_chunks_that_would_take_the_memory_are_refused(tmp_path):
    small = zlib.compress(b"")
    for shape, options, why in (
        ((1 << 14, 1 << 12), {"compression": "gzip"}, "has 536,870,912 bytes"),
        ((1 << 12, 1 << 10), {"compression": "lzf"}, "has 33,554,432 bytes, 16,777,216 are the"),
        ((4, 2), {"compression": "gzip", "scaleoffset": 2}, "gzip may be combined with shuffle"),
    ):
        path = write_chunk(tmp_path / "x.hdf5", small, shape=shape, **options)
        with pytest.raises(ValueError, match=f"x of .*x.hdf5 cannot be read.*{why}"):
            Rows(path, "x")


def test_a_batch_of_chunks_is_bounded(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("x", data=np.ones((6, 10)), chunks=(1, 10), compression="gzip")
    monkeypatch.setattr("deq_fusion.datasets.files.hdf5.BATCH", 3199)
    rows = Rows(tmp_path / "x.hdf5", "x", memory=0)
    assert rows[[0] * 39].shape == (39, 10)
    with pytest.raises(ValueError, match=r"40 rows of x in .* have 3,200 bytes, at most 3,199"):
        rows[[0] * 40]


def test_ten_to_the_ninth_films_are_refused_before_they_are_read(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("x", (10**9, 23), "i4", chunks=(10**6, 23), compression="gzip")
        file.create_dataset("late", (10**9, 23), "i4")
    for name in ("x", "late"):
        with pytest.raises(ValueError, match=f"{name} in .*x.hdf5 must be written to its end"):
            Rows(tmp_path / "x.hdf5", name)


def test_texts_of_any_length_are_read_within_their_limit(tmp_path):
    path, texts = tmp_path / "x.hdf5", [f"t\u00e4t {n}" * n for n in range(400)]
    with h5py.File(path, "w") as file:
        file["x"] = texts
        file.create_dataset("y", data=texts, chunks=(30,), compression="gzip")
        file.create_dataset("z", data=texts, chunks=(30,))
    wanted = [text.encode() for text in texts]
    with open_file(path) as file:
        for name in "xyz":
            assert read_whole(file, name).tolist() == wanted
            assert Rows(path, name, memory=0)[[7, 3]].tolist() == [wanted[7], wanted[3]]
            total = 400 * 16 + sum(map(len, wanted))
            with pytest.raises(ValueError, match=f"{name} in .* declared to have {total:,}"):
                read_whole(file, name, limit=total - 1)


def test_references_to_one_text_count_as_often_as_they_are(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["x"] = ["long" * 10_000] + ["a"] * 999
        place = file["x"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place : place + 16_000] = content[place : place + 16] * 1000
    path.write_bytes(content)
    with open_file(path) as file:
        with pytest.raises(ValueError, match="at most 1,000,000 bytes, .* to have 40,016,000"):
            read_whole(file, "x", limit=10**6)


def test_a_heap_in_which_hdf5_would_hang_is_refused(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["x"] = ["one", "two"]
        file["x"].attrs["names"] = ["three", "four"]
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 18] = bytes(2)  # the first object becomes free space ...
    content[heap + 24 : heap + 32] = bytes(8)  # ... of no length
    path.write_bytes(content)
    with open_file(path) as file:
        for read, name in ((read_whole, "x"), (read_attribute, "x/@names")):
            with pytest.raises(ValueError, match="x.hdf5 cannot be read: the file is damaged"):
                read(file, name)


def test_what_was_built_is_compared_with_its_checksums(tmp_path):
    path = build(tmp_path / "out.hdf5")
    rows = Rows(path, "squares")
    with open_file(path) as file:
        assert file["row_crc32/squares"].shape == (20,)
        assert file["row_crc32/fixed"][2] == zlib.crc32(np.int64(2).tobytes())
        offset, fixed = rows._offset, file["fixed"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 12 * 7] ^= 1
    content[fixed + 8] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(rows[[6, 8]][:, 0], [36, 64])
    with pytest.raises(ValueError, match="row 7 of squares in .*out.hdf5 is not what was written"):
        rows[[6, 7]]
    with open_file(path) as file:
        with pytest.raises(ValueError, match="row 1 of fixed in .*out.hdf5 is not what was"):
            read_whole(file, "fixed")


def test_a_link_in_place_of_an_unfinished_file_is_not_written_through(tmp_path):
    (tmp_path / "other").write_text("precious")
    for name in ("out.hdf5.part", "out.hdf5.part.json"):
        link = tmp_path / name
        link.symlink_to(tmp_path / "other")
        with pytest.raises(ValueError, match=f"{name} must be a file .* but is a symbolic link"):
            build(tmp_path / "out.hdf5")
        link.unlink()
    (tmp_path / "out.hdf5.part.json.tmp").symlink_to(tmp_path / "other")
    build(tmp_path / "out.hdf5")
    assert (tmp_path / "other").read_text() == "precious"


def test_there_must_be_room_before_the_first_batch(tmp_path, monkeypatch):
    def create(file):
        file.create_dataset("squares", (20, 100_000), "f4")

    free = SimpleNamespace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(hdf5_build.shutil, "disk_usage", lambda path: free)
        with pytest.raises(
            OSError, match=r"out.hdf5.part needs 7,\d\d\d,\d\d\d bytes more, .* 1,000"
        ):
            build(tmp_path / "out.hdf5", create=create)
    build(tmp_path / "out.hdf5", create=create, fill=lambda file, start, stop: None)


@pytest.mark.parametrize("done", ["3", -1, 21, True, None, [3]])
def test_a_note_of_wrong_types_is_damaged(tmp_path, done):
    path, note = tmp_path / "out.hdf5", tmp_path / "out.hdf5.part.json"

    def failing(file, start, stop):
        raise OSError

    with pytest.raises(OSError):
        build(path, failing)
    note.write_text(json.dumps(json.loads(note.read_text()) | {"done": done}))
    with pytest.raises(ValueError, match=r"out\.hdf5\.part\.json is damaged .*; delete it"):
        build(path)
    for text in ("[]", "3", '{"done": 3}', "[" * 100_000):
        note.write_text(text)
        with pytest.raises(ValueError, match=r"out\.hdf5\.part\.json is damaged .*; delete it"):
            build(path)


def test_damaged_settings_of_a_built_file_are_no_settings(tmp_path):
    path = build(tmp_path / "out.hdf5")
    for value in (np.arange(3), "{", "[" * 60_000):
        with h5py.File(path, "r+") as file:
            file.attrs["build_settings"] = value
        with pytest.raises(ValueError, match="out.hdf5 was made with the settings {}"):
            build(path)


def test_a_pipe_or_a_folder_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.hdf5")
    (tmp_path / "folder.hdf5").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ValueError, match=f"{name}.hdf5 must be a file, but is a {name}"):
            Rows(tmp_path / f"{name}.hdf5", "x")


def test_numbers_of_a_layout_that_no_program_writes_are_refused(tmp_path):
    """As a damaged type makes them: HDF5 would read a half of another exponent, as float64."""
    odd = h5py.h5t.IEEE_F16LE.copy()
    odd.set_ebias(200)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        space = h5py.h5s.create_simple((3, 2))
        dataset = h5py.h5d.create(file.id, b"x", odd, space)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((3, 2)))
        file["plain"] = np.ones((3, 2), ">f2")
    with pytest.raises(ValueError, match="x in .*x.hdf5 must be plain numbers or texts"):
        Rows(tmp_path / "x.hdf5", "x")
    assert Rows(tmp_path / "x.hdf5", "plain")[[1]].tolist() == [[1.0, 1.0]]
