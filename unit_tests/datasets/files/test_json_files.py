"""JSON is read as Python's own reader reads it, or refused: damaged, ambiguous, or too much."""

import gzip
import json
import sys

import pytest

from deq_fusion.datasets.files import json_files
from deq_fusion.datasets.files.json_files import read_json, write_json


@pytest.fixture
def write(tmp_path):
    def write(content, name="a.json"):
        path = tmp_path / name
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        return path

    return write


GOOD = '{"a": [1, -2.5e3, true, null, "é\\ud83d", {}], "b": {"a": [[]]}, "": 12345678901234567890}'


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_is_read_as_pythons_own_reader_reads_it(write, name):
    expected = json.loads(GOOD)
    assert read_json(write(GOOD, name)) == expected
    assert read_json(write(b"\xef\xbb\xbf" + GOOD.encode(), name)) == expected
    found = read_json(write(GOOD, name), hook=lambda entry: sorted(entry))
    assert found == ["", "a", "b"]


def test_values_that_are_written_come_back(tmp_path):
    path = tmp_path / "a.json"
    for value in (json.loads(GOOD), "é", ["\ud83d", "é"], [1.5, None]):
        write_json(path, value)
        assert read_json(path) == value
    with pytest.raises(ValueError, match="written to .*a.json must be JSON, but"):
        write_json(path, [float("nan")])
    assert read_json(path) == [1.5, None]
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_link_in_the_way_is_not_written_through(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    (tmp_path / "a.json.part").symlink_to(other)
    write_json(tmp_path / "a.json", 1)
    assert other.read_bytes() == b"mine" and read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "JSON, but Expecting value"),
        ('{"a": 1', "JSON, but Expecting"),
        ('{"a": 1} x', "but Extra data"),
        ("[NaN]", "but NaN in it is no number"),
        ("[-Infinity]", "but -Infinity in it is no number"),
        ("[[1e999]]", "but a number in it is too large"),
        ('{"a": {"b": -1e999}}', "but a number in it is too large"),
        ("1" + "0" * 4300, "but .*4301"),
        ('{"a": 1, "b": 2, "a": 1}', "but an object in it gives 'a' more than once"),
        ("[" * 100_000 + "]" * 100_000, "that are more than 100 deep; get"),
        ("[" * 101 + "]" * 101, "that are more than 100 deep"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "that are more than 100 deep"),
        ("[]".encode("utf-16"), r"but it is not UTF-8 \(invalid start byte at byte 0\)"),
        ("é".encode("latin1"), "but it is not UTF-8"),
        ("[" + "[]," * 1_000_000, "far more lists, objects and values"),
        ('{"a":' + '{"a":1},' * 1_000_000, "far more lists, objects and values"),
        ("[" + '"ab",' * 3_000_000, "far more lists, objects and values"),
        ("[" + "1," * 3_000_000, "far more lists, objects and values"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_what_is_wrong_is_said_with_the_files_name(write, name, content, match):
    with pytest.raises(ValueError, match=match) as error:
        read_json(write(content, name))
    assert name in str(error.value) and len(str(error.value)) < 500
    assert ("gzipped JSON" in str(error.value)) is (name == "a.json.gz")


def test_digits_are_bounded_where_python_does_not(write, monkeypatch):
    monkeypatch.setattr(sys, "get_int_max_str_digits", lambda: 0)
    with pytest.raises(ValueError, match="a number in it has 4,301 digits"):
        read_json(write("1" + "0" * 4300))
    assert read_json(write("[12]")) == [12]


def test_depth_and_names_up_to_the_bound_are_read(write, monkeypatch):
    assert read_json(write("[" * 100 + "]" * 100))
    monkeypatch.setattr(json_files, "NAMES", 2)
    assert read_json(write('[{"a": 1, "b": 2}]')) == [{"a": 1, "b": 2}]
    with pytest.raises(ValueError, match="an object in it has more than 2 names"):
        read_json(write('{"a": 1, "b": 2, "c": 3}'))


def test_a_zipped_file_is_whole_or_refused(write):
    whole = gzip.compress(GOOD.encode() * 1)
    assert read_json(write(GOOD, "a.gz")) == json.loads(GOOD)
    path = write(GOOD, "a.gz")
    for damaged in (
        whole[:-1],
        whole[:20],
        whole + b"x",
        whole + whole,
        whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        GOOD.encode(),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="a.gz must be gzipped JSON, but .*; get it again"):
            read_json(path)


def test_text_is_bounded_while_it_is_unzipped(write):
    spaces = b" " * 60_000_000
    path = write(spaces, "a.gz")
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="zipped to a tiny part of its size"):
        read_json(path)
    with pytest.raises(ValueError, match="it has more than 1,000 bytes of text"):
        read_json(path, limit=1000)
    with pytest.raises(ValueError, match="it has more than 1,000 bytes of text"):
        read_json(write(b" " * 1001), limit=1000)


def test_files_as_dense_as_vqas_are_read(write):
    answer = '{"answer":"net","answer_confidence":"maybe","answer_id":1}'
    text = "[" + ",".join([answer] * 60_000) + "]"
    assert len(read_json(write(text))) == 60_000
    cost = sum(text.count(byte.decode()) * each for byte, each in json_files.COSTS)
    assert cost < 0.9 * json_files.DENSITY * len(text)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*a.json; check the path"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="must be a file, but is a folder"):
        read_json(tmp_path)
