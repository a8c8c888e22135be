"""Files are read whole and within bounds; what an error repeats of them is short and printable."""

import os
import socket
import tracemalloc

import numpy as np
import pytest

from deq_fusion.datasets.files import writing
from deq_fusion.datasets.files.reading import (
    check_file,
    clean_text,
    listed,
    open_regular,
    read_bytes,
    read_text,
    shown,
)


@pytest.mark.parametrize("text", ["", "film", "naïve \U0001f600 \u2028", "\ufffd\ufeff\x00"])
def test_text_without_lone_surrogates_stays(text):
    assert clean_text(text) is text


def test_lone_surrogates_become_the_replacement_character():
    assert clean_text("a\ud83db\udc00\udfff") == "a\ufffdb\ufffd\ufffd"
    assert clean_text("\ud83d\ude00") == "\ufffd\ufffd"  # two halves, but no pair of JSON's


def test_files_are_read_up_to_their_bound(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbf\xc3\xa9")
    assert read_bytes(path, limit=5) == b"\xef\xbb\xbf\xc3\xa9" and read_text(path) == "é"
    with pytest.raises(ValueError, match="a must have at most 4 bytes, but has 5; get it again"):
        read_bytes(path, limit=4)
    path.write_bytes(b"\xff\xfea\x00")
    with pytest.raises(ValueError, match="a must be UTF-8 text, but .*; fetch it"):
        read_text(path, advice="fetch it")


def test_a_small_file_takes_no_more_memory_than_it_has(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    tracemalloc.start()
    try:
        assert read_bytes(tmp_path / "a") == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def kinds(folder):
    (folder / "file").write_bytes(b"")
    (folder / "circle").symlink_to("circle")
    (folder / "nowhere").symlink_to("gone")
    os.mkfifo(folder / "pipe")
    yield folder, ValueError, "must be a file, but is a folder"
    yield folder / "pipe", ValueError, "must be a file, but is a pipe or a device"
    yield "/dev/zero", ValueError, "must be a file, but is a pipe or a device"
    yield folder / "gone", FileNotFoundError, "no file .*gone; check"
    yield folder / "nowhere", FileNotFoundError, "no file .*nowhere"
    yield folder / "circle", FileNotFoundError, "no file .*circle"
    yield folder / "file" / "under", FileNotFoundError, "no file .*under"
    yield f"{folder}/a\x00b", FileNotFoundError, r"no file '.*a\\x00b' \(embedded null"
    yield folder / ("a" * 5000), FileNotFoundError, r"no file '.*a\.\.\.'; check"


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path):
    for path, error, match in kinds(tmp_path):
        for read in (check_file, open_regular, read_bytes, read_text):
            with pytest.raises(error, match=match):
                read(path, advice="check the path")


def test_a_socket_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(ValueError, match="must be a file, but is a socket"):
            read_bytes("socket")


def test_a_pipe_that_came_in_the_files_place_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("deq_fusion.datasets.files.reading.check_file", lambda path, advice: path)
    with pytest.raises(ValueError, match="pipe must be a file"):
        open_regular(tmp_path / "pipe")


def test_what_the_system_refuses_stays_an_error_of_the_systems(tmp_path, monkeypatch):
    def stat(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.stat", stat)
    with pytest.raises(PermissionError, match="denied: '.*secret'"):
        check_file(tmp_path / "secret")


LOOP: list = []
LOOP += [LOOP, LOOP]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("film", "'film'"),
        ("naïve", "'naïve'"),
        ("\x1b[31m\ud83d\u202e", r"'\x1b[31m\ud83d\u202e'"),
        ("a" * 100, "'" + "a" * 80 + "...'"),
        (b"\x00a", r"b'\x00a'"),
        (np.str_("a"), "'a'"),
        (np.float32(0.5), "0.5"),
        (np.longdouble(2), "2.0"),
        (True, "True"),
        (None, "None"),
        (1j, "1j"),
        (10**50, str(10**50)),
        (LOOP, "a list of 2"),
        (OSError(), "an OSError"),
        (np.zeros((2, 0)), "an array of shape (2, 0) and dtype float64"),
        (np.zeros(()), "an array of shape () and dtype float64"),
    ],
)
def test_foreign_values_are_shown_short_and_printable(value, expected):
    assert shown(value) == expected


def test_integers_that_python_does_not_print_are_measured():
    assert shown(-(10**6000)) == "an integer of 19932 bits"


@pytest.mark.parametrize("value", ["\U0001f600\n" * 10**6, b"\xff" * 10**6, "\udfff" * 81])
def test_what_is_mostly_escaped_is_cut_earlier(value):
    assert 30 < len(shown(value)) < 170 and shown(value).isprintable()


def test_names_are_listed_up_to_a_bound():
    assert listed(["a", "b\n"]) == r"['a', 'b\n']"
    assert listed(range(10), most=2) == "[0, 1] and 8 more"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path, other = tmp_path / "a", tmp_path / "other"
    other.write_bytes(b"mine")
    monkeypatch.setattr(writing.secrets, "token_hex", lambda size: "x")
    with writing.replaced(path) as file:
        file.write(b"old")
    with pytest.raises(KeyError), writing.replaced(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old"
    (tmp_path / ".a.x.part").symlink_to(other)
    with pytest.raises(FileExistsError), writing.replaced(path):
        pass
    assert path.read_bytes() == b"old" and other.read_bytes() == b"mine"
