"""Arrays and plain containers come back as they were; whatever would run code is refused, and
the file that it would have made is not there."""

import builtins
import codecs
import collections
import copyreg
import importlib
import os
import pickle
import struct

import numpy as np
import pytest
from numpy.testing._private.utils import runstring

from deq_fusion.datasets.files.restricted_pickle import load

ARRAYS = {
    "float32": np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32),
    "big endian": np.arange(6, dtype=">i4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "strided": np.arange(20)[::3],
    "bool": np.array([True, False]),
    "half": np.float16([1, -np.inf]),
    "complex": np.array([1 + 2j]),
    "text": np.array(["ab", "c", "ü"]),
    "bytes": np.array([b"ab\xff", b"c"]),
    "empty": np.zeros((0, 5)),
    "no dimension": np.array(3.5),
    "no width": np.array(["", ""]),
}
PLAIN = {
    "key": [1, -2.5, None, True, 10**30, "text", b"\x00\xff", b"", (1, (2,)), 1j],
    2: {"sets": {1, 2}, "frozen": frozenset("ab"), "array": bytearray(b"x")},
    (1, "a"): collections.OrderedDict([("z", 1), ("a", [2])]),
}


@pytest.fixture
def write(tmp_path):
    def write(content, protocol=None):
        path = tmp_path / "data.pkl"
        raw = isinstance(content, bytes)
        path.write_bytes(content if raw else pickle.dumps(content, protocol))
        return path

    return write


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_with_any_protocol(write, name, protocol):
    array = load(write({"x": [ARRAYS[name]]}, protocol))["x"][0]
    assert type(array) is np.ndarray and array.flags.writeable
    assert array.dtype.newbyteorder("=") == ARRAYS[name].dtype.newbyteorder("=")
    np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("protocol", range(6))
def test_containers_and_numbers_come_back_with_any_protocol(write, protocol):
    content = PLAIN | {"half": np.float32(0.5), "name": np.str_("video")}
    loaded = load(write(content, protocol))
    assert loaded == content and list(loaded) == list(content)
    assert type(loaded[1, "a"]) is collections.OrderedDict
    assert type(loaded["half"]) is np.float32 and type(loaded["name"]) is np.str_


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects_hold_plain_things_again(write, protocol):
    content = np.empty((2, 2), dtype=object)
    content[0, 0], content[0, 1], content[1, 0] = "name", [np.arange(3)], ("a", 1)
    loaded = load(write(content, protocol))
    assert loaded[0, 0] == "name" and loaded[1, 0] == ("a", 1) and loaded[1, 1] is None
    np.testing.assert_array_equal(loaded[0, 1][0], np.arange(3))


def test_what_was_shared_stays_shared_and_may_hold_itself(write):
    array, circle = np.arange(3), []
    circle.append(circle)
    first, second, again = load(write([array, array, circle]))
    assert first is second and again[0] is again


NUMPY_2 = (  # {'a': float32 [1.0, -2.0]}, {protocol 0, 1, 2} as Python 2 with NumPy 1.8 wrote it
    b"(dS'a'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
    b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    b"S'\\x00\\x00\\x80?\\x00\\x00\\x00\\xc0'\ntbs.",
    b"}U\x01acnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x02t"
    b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"I00\nU\x08\x00\x00\x80?\x00\x00\x00\xc0tbs.",
    b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
    b"K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0tbs.",
)


@pytest.mark.parametrize("content", NUMPY_2)
def test_python_2_pickles_are_read_with_latin1(write, content):
    path = write(content)
    np.testing.assert_array_equal(load(path, encoding="latin1")["a"], np.float32([1, -2]))
    np.testing.assert_array_equal(load(path, encoding="bytes")[b"a"], np.float32([1, -2]))
    with pytest.raises(ValueError, match=r"data.pkl must be ASCII, .* need encoding=\"latin1\""):
        load(path)


class Call:
    """Pickles to the call of a function, and what more a pickle's __reduce__ may give."""

    def __init__(self, function, *args, more=()):
        self.reduced = (function, args, *more)

    def __reduce__(self):
        return self.reduced


def calls(target):
    """What would make the file `target`, each in a way of its own."""
    code = f"open({target!r}, 'w').close()"
    yield "system", Call(os.system, f"touch {target}")
    yield "eval", Call(eval, code)
    yield "exec", Call(exec, code)
    yield "open", Call(open, target, "w")
    yield "__import__", Call(builtins.__import__, "antigravity")
    yield "import_module", Call(importlib.import_module, "antigravity")
    yield "getattr", Call(getattr, "text", "upper")
    yield "load", Call(np.load, target)
    yield "save", Call(np.save, target, np.arange(3))
    yield "memmap", Call(np.memmap, target, "u1", "w+", 0, (3,))
    yield "runstring", Call(runstring, code, {})
    yield "tofile", Call(np.ndarray.tofile, np.arange(3), target)
    yield "open_code", Call(codecs.open, target, "w")
    yield "codec", Call(codecs.encode, "text", "rot13")
    yield "in an array", np.array([Call(os.system, f"touch {target}")], dtype=object)
    yield "as a key", {Call(os.system, f"touch {target}"): 1}
    yield "of an array's class", Call(np.arange(1).__reduce__()[0], np.memmap, (0,), b"b")
    yield "an array's class", Call(np.ndarray, (3,), np.dtype("f8"))
    yield "a class", np.ndarray
    yield "a function", np.arange(1).__reduce__()[0]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_that_could_make_a_file_is_run(write, tmp_path, protocol):
    target = tmp_path / "made"
    for name, content in calls(str(target)):
        with pytest.raises(ValueError, match=r"data.pkl may hold NumPy arrays and plain .* it "):
            load(write(content, protocol))
        assert not target.exists(), name


def test_the_attacks_would_have_worked_on_pickle_itself(write, tmp_path):
    target = tmp_path / "made"
    with write(dict(calls(str(target)))["system"]).open("rb") as stream:
        pickle.load(stream)
    assert target.exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "names os.system"),
        (b"(S'true'\nios\nsystem\n.", "names os.system"),
        (b"(cos\nsystem\nS'true'\no.", "names os.system"),
        (b"c__builtin__\ngetattr\n(cos\nS'system'\ntR(S'true'\ntR.", "__builtin__.getattr"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", r"names numpy.ndarray.tofile"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0bdict.update\x93.", r"names builtins.dict.update"),
        (b"cnumpy\nload\n.", "names numpy.load"),
        (b"cno.such.module\nname\n.", "names no.such.module.name"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(c__builtin__\nset\n(I0\ntS'b'\ntR.",
            "of its own",
        ),
        (b"c__builtin__\nset\n}S'a'\nI1\nsb.", "changes __builtin__.set"),
        (b"cnumpy\nndarray\nN}S'a'\nI1\ns\x86b.", "changes numpy.ndarray"),
        (b"ccollections\nOrderedDict\n.", "holds collections.OrderedDict"),
        (b"cnumpy\ndtype\n(S'f4'\ntR.", "holds a dtype"),
        (b"cnumpy\nndarray\n(I3\ntR.", "calls numpy.ndarray"),
        (b"cnumpy\ndtype\n(S'V8'\ntR.", "dtype 'V8'"),
        (b"cnumpy\ndtype\n(S'f4,O'\ntR.", "dtype 'f4,O'"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "encodes with 'rot13'"),
        (b"c_codecs\nencode\n(Vx\ntR.", "encodes with None"),
        (b"c__builtin__\nbytes\n(Vx\nVidna\ntR.", "encodes with 'idna'"),
        (b"c__builtin__\nbytearray\n(Vx\nVidna\ntR.", "encodes with 'idna'"),
        (b"c__builtin__\nbytes\n(I9\ntR.", "encodes with None"),  # nine zeros
        (b"c__builtin__\nbytearray\n(I9\ntR.", "encodes with None"),
        (b"cnumpy\ndtype\n(S'S0'\ntR.", "dtype 'S0'"),  # any shape of it takes no bytes
    ],
)
def test_hand_written_attacks_are_refused(write, content, match):
    with pytest.raises(ValueError, match=match):
        load(write(content))


def array_state(dtype, content, shape=b"I2\n"):
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n("
        + shape
        + b"tcnumpy\ndtype\n(S'"
        + dtype
        + b"I00\n"
        + content
        + b"tb."
    )


PLAIN_O8 = b"O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb"
PLAIN_F8 = b"f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
RECORD = b"f8'\nI0\nI1\ntR(I3\nS'<'\nN(S'a'\nt}S'a'\n(NI0\ntsI8\nI1\nI0\ntb"
NEWER = b"f8'\nI0\nI1\ntR(I253\nS'<'\nNNNI-1\nI-1\nI0\ntb"
OBJECTS = b"f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI63\ntb"
METADATA = b"f8'\nI0\nI1\ntR(I4\nS'<'\nNNNI-1\nI-1\nI0\n}tb"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (array_state(PLAIN_O8, b"S'aaaaaaaabbbbbbbb'\n"), "must agree"),  # bytes as pointers
        (array_state(PLAIN_O8, b"(lNa"), "must agree"),
        (array_state(PLAIN_F8, b"S'short'\n"), "must agree"),
        (array_state(PLAIN_F8, b"(lNaNa"), "numbers are no bytes"),
        (array_state(PLAIN_F8, b"S'aaaaaaaabbbbbbbb'\n", b"I-2\n"), "must be whole numbers"),
        (array_state(RECORD, b"S'aaaaaaaabbbbbbbb'\n"), "records, dates or annotated"),
        (array_state(METADATA, b"S'aaaaaaaabbbbbbbb'\n"), "records, dates or annotated"),
        (array_state(OBJECTS, b"S'aaaaaaaabbbbbbbb'\n"), "a dtype of no objects has the flags 63"),
        (array_state(NEWER, b"S'aaaaaaaabbbbbbbb'\n"), r"is of version 253, not one of"),
        (
            array_state(PLAIN_F8, b"S'aaaaaaaabbbbbbbb'\n").replace(b"tR(I1\n(", b"tR(I146\n("),
            r"is of version 146, not one of",
        ),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRS'aaaaaaaa'\ntR.", "no bytes"),
        (b"cnumpy.core.multiarray\nscalar\n(S'f8'\nS'aaaaaaaa'\ntR.", "without a dtype"),
    ],
)
def test_forged_arrays_are_refused(write, content, match):
    with pytest.raises(ValueError, match=match):
        load(write(content))


def test_an_arrays_bytes_cannot_be_moved_from_under_it(write):
    memory = b"\x96" + struct.pack("<Q", 16) + b"a" * 16 + b"p0\n"  # a bytearray, remembered
    dtype = b"cnumpy\ndtype\n(S'f8'\ntR"
    array = b"cnumpy._core.numeric\n_frombuffer\n(" + memory + dtype + b"(I2\ntS'C'\ntR"
    assert load(write(b"\x80\x05" + array + b".")).shape == (2,)
    grown = b"g0\n(" + b"I1\n" * 5000 + b"e"
    with pytest.raises(ValueError, match="ended with BufferError: Existing exports"):
        load(write(b"\x80\x05" + array + grown + b"\x86."))


def test_the_forger_can_write_a_good_array(write):
    loaded = load(write(array_state(PLAIN_F8, b"S'aaaaaaaabbbbbbbb'\n")))
    assert loaded.tolist() == list(struct.unpack("<2d", b"aaaaaaaabbbbbbbb"))
    assert load(write(array_state(PLAIN_O8, b"(lNaI5\na"))).tolist() == [None, 5]


def test_records_dates_and_subclasses_are_refused(write):
    records = np.zeros(2, dtype=[("a", "f4"), ("b", object)])
    dates = np.array(["2020-01-01"], dtype="M8[D]")
    for content in (records, dates, np.ma.masked_array([1, 2], [True, False])):
        with pytest.raises(ValueError, match="plain containers only"):
            load(write(content))


def test_persistent_ids_and_outer_buffers_are_refused(write):
    for content in (b"Pid\n.", b"S'id'\nQ.", b"\x80\x05\x97."):
        with pytest.raises(ValueError, match="must be a whole pickle, but .*UnpicklingError"):
            load(write(content))


def test_registered_extensions_are_refused_though_cached(write, tmp_path):
    target = tmp_path / "made"
    copyreg.add_extension(os.system.__module__, "system", 200)
    try:
        content = pickle.dumps(Call(os.system, f"touch {target}"), 2)
        assert b"system" not in content and pickle.loads(content) == 0  # and is cached now
        target.unlink()
        with pytest.raises(ValueError, match="names .*[.]system"):
            load(write(content))
        assert not target.exists()
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 200)


WRONG = [  # programs that no pickler writes
    (b"\xff.", "unknown operation"),
    (b"N", "no end"),
    (b"N.N", "more follows behind its end"),
    (b"h\x05.", "remembers nothing as number 5"),
    (b"q\x01.", "stack"),
    (b"\x86.", "stack"),
    (b"t.", "a mark is missing"),
    (b"(o.", "stack"),
    (b"K\x01K\x02a.", "appends to"),
    (b"K\x01K\x02K\x03s.", "sets items of"),
    (b"}(K\x01NK\x01Nu.", "occurs twice in a dict"),
    (b"](K\x01\x90.", "adds to"),
    (b"K\x01K\x02\x93.", "a name of it must be text"),
    (b"\x82\xfe.", "extension 254, which is not registered"),
    (b"NNR.", "calls with"),
    (b"S'abc\n.", "not in quotes"),
    (b"Vabc", "a line of it has no end"),
    (b"U\x05ab.", "ends too early"),
    (b"C\x05ab.", "ends too early"),
    (b"J\x01.", "ends too early"),
    (b"X\xff\xff\xff\x7fab.", "declares|ends too early"),
    (b"\x96\x05" + bytes(7) + b"ab.", "declares"),
    (b"}]Ns.", "as a key"),
]


@pytest.mark.parametrize(("content", "match"), WRONG)
def test_programs_that_no_pickler_writes_are_refused(write, content, match):
    with pytest.raises(ValueError, match=rf"data.pkl .*({match})"):
        load(write(content))


def test_a_damaged_file_is_named(write, tmp_path):
    whole = pickle.dumps({"x": np.arange(100.0), "y": ["text"] * 3})
    for stop in (0, 1, 20, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ValueError, match="data.pkl must be a whole pickle, but"):
            load(write(whole[:stop]))
    for content in (b"no pickle at all", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x09."):
        with pytest.raises(ValueError, match="data.pkl must be a whole pickle, but"):
            load(write(content))
    with pytest.raises(FileNotFoundError, match="no file .*other.pkl"):
        load(tmp_path / "other.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_objects_in_fortran_order_keep_their_places(write, protocol):
    content = np.asfortranarray(np.arange(6, dtype=object).reshape(2, 3))
    assert load(write(content, protocol)).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_is_shared_in_bounds_is_read(write):
    key, text = ("video", 1), "text" * 1000
    content = [{key: text, frozenset([1, 2]): (key, key)}] * 500
    loaded = load(write(content))
    assert loaded == content and loaded[0] is loaded[499]


def test_halves_of_surrogate_pairs_pass_through(write):
    for protocol in range(6):
        assert load(write({"id": "a\ud83d"}, protocol)) == {"id": "a\ud83d"}


def test_large_arrays_come_back_and_can_be_written_to(write):
    content = np.arange(400_000.0).reshape(2, -1)
    for protocol in (2, 4, 5):
        loaded = load(write([content, content.T], protocol))
        for array, expected in zip(loaded, (content, content.T), strict=True):
            np.testing.assert_array_equal(array, expected)
            array[0] = -1
    with pytest.raises(ValueError, match="holds a bytearray of 1,100,000 bytes, more than"):
        load(write(bytearray(1_100_000), 5))
    assert load(write(bytearray(1_000_000), 5)) == bytearray(1_000_000)


def test_a_folder_is_not_read(tmp_path):
    with pytest.raises(ValueError, match="must be a file, but is a folder; check the path"):
        load(tmp_path)


def with_state(path, array, change):
    """Writes an array whose dtype's state has gone through `change`, and returns the path."""
    make, start, (version, shape, dtype, fortran, content) = array.__reduce__()
    kind, args, state = dtype.__reduce__()

    class Dtype:
        def __reduce__(self):
            return kind, args, change(state)

    class Array:
        def __reduce__(self):
            return make, start, (version, shape, Dtype(), fortran, content)

    path.write_bytes(pickle.dumps(Array(), protocol=4))
    return path


TEXTS = np.array(["abcde", "fg"])  # of 20 bytes each, aligned to 4


def test_a_dtype_whose_state_is_its_own_is_read(tmp_path):
    assert load(with_state(tmp_path / "own.pkl", TEXTS, tuple)).tolist() == ["abcde", "fg"]


@pytest.mark.parametrize("sizes", [(190, 4), (20, 8), (0, 4), ("20", 4)])
def test_a_dtype_whose_state_gives_another_size_is_refused(tmp_path, sizes):
    path = with_state(tmp_path / "x.pkl", TEXTS, lambda state: (*state[:5], *sizes, *state[7:]))
    with pytest.raises(ValueError, match="a dtype of size .* has the size"):
        load(path)


@pytest.mark.parametrize("version", [0, 1, 2, 5])
def test_a_dtype_whose_state_is_of_another_version_is_refused(tmp_path, version):
    """NumPy has other entries in states of these, which it fails to read."""
    path = with_state(tmp_path / "x.pkl", TEXTS, lambda state: (version, *state[1:]))
    with pytest.raises(ValueError, match="version"):
        load(path)
