"""Arrays come out as NumPy's own reader reads them; what lies about itself is refused."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from deq_fusion.datasets.files.npz import read_npz

ARRAYS = {
    "float": np.random.default_rng(0).normal(size=(3, 4)),
    "fortran": np.asfortranarray(np.arange(10.0).reshape(5, 2)),
    "text": np.array(["ab", "c\ud83d"]),
    "bytes": np.array([b"x", b"yz"]),
    "big": np.arange(5, dtype=">i4"),
    "single": np.float64(3),
    "bool": np.array([True, False]),
    "half": np.float16([1, -np.inf]),
    "empty": np.zeros((0, 5)),
    "complex": np.ones(3, np.complex64),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, **ARRAYS)
    found = read_npz(path, list(ARRAYS))
    with np.load(path, allow_pickle=False) as expected:
        for name in ARRAYS:
            np.testing.assert_array_equal(found[name], expected[name], strict=True)
            assert found[name].flags.writeable
    assert list(read_npz(path, ["text"])) == ["text"] and read_npz(path, []) == {}


def header(text, version=1):
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode()


def described(descr="'<f8'", shape="(2,)", order="False", version=1):
    fields = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    return header(fields, version)


TWO = np.arange(2.0).tobytes()


@pytest.fixture
def write(tmp_path):
    def write(*members, **options):
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return path

    return write


@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_every_version_are_read(write, version):
    path = write(("x.npy", described(version=version) + TWO))
    assert read_npz(path, ["x"])["x"].tolist() == [0, 1]


def test_names_may_lack_the_ending_and_fields_any_order(write):
    content = header("{'shape':(2,),'fortran_order':False,'descr':'<f8'}") + TWO
    assert read_npz(write(("x", content)), ["x"])["x"].tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_not_there_once_are_refused(write):
    good = described() + TWO
    with pytest.raises(ValueError, match=r"the array 'y' once, but holds it 0 times; it has \['x'"):
        read_npz(write(("x.npy", good)), ["y"])
    for other in ("x.npy", "x"):
        with pytest.raises(ValueError, match="the array 'x' once, but holds it 2 times"):
            read_npz(write(("x.npy", good), (other, good)), ["x"])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (described("'|O'") + pickle.dumps([1, 2]), "x holds Python objects"),
        (described("[('a', '<f8')]") + TWO, "must hold numbers or text, and no records"),
        (described("'<M8[D]'") + TWO, "must hold numbers or text, and no records"),
        (described("'|V8'") + TWO, "must hold numbers or text, and no records"),
        (described("__import__('os')") + TWO, "must hold numbers or text, and no records"),
        (described("'<f3'") + TWO, "unknown dtype '<f3'"),
        (described("'<U0'", "(9,)"), "holds text of no length"),
        (described(shape="(-1,)") + TWO, "must hold numbers or text, and no records"),
        (described(shape="(3,)") + TWO, "says 24 bytes of numbers, but there are 16"),
        (described(shape="(1,)") + TWO, "says 8 bytes of numbers, but there are 16"),
        (described(shape="(100000000, 10)") + TWO, "more than the 536,870,912 that are read"),
        (described("'<U999999999'", "(1,)") + TWO, "(unknown dtype|more than)"),
        (described(shape="(0, 1000000000000000000)"), "is empty and yet huge"),
        (described(shape="(" + "1, " * 40 + ")") + TWO, "at most 32, got a tuple of 40"),
        (header("{" * 9000), "must hold numbers or text, and no records"),
        (header(" " * 20_000), "a header of 20,000 bytes"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4, "a header of 4,294,967,295 bytes"),
        (b"\x93NUMPY\x09\x00" + TWO, "is no array of NumPy's"),
        (pickle.dumps([1, 2]), "is no array of NumPy's"),
        (b"", "is no array of NumPy's"),
    ],
)
def test_what_lies_about_itself_is_refused(write, content, match):
    with pytest.raises(ValueError, match=match) as error:
        read_npz(write(("x.npy", content)), ["x"], advice="fetch it")
    assert "a.npz" in str(error.value) and "; fetch it" in str(error.value)
    assert len(str(error.value)) < 500


def test_the_limit_is_that_of_all_arrays(write):
    path = write(("x.npy", described() + TWO), ("y.npy", described() + TWO))
    assert len(read_npz(path, ["x", "y"], limit=32)) == 2
    with pytest.raises(ValueError, match="y has 16 bytes, more than the 15 that are read"):
        read_npz(path, ["x", "y"], limit=31)


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(50.0))
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            found = read_npz(path, ["x"])["x"]
        except ValueError as error:
            assert "a.npz" in str(error)
        else:
            np.testing.assert_array_equal(found, np.arange(50.0))


def test_cut_and_foreign_files_are_refused(tmp_path, write):
    whole = write(("x.npy", described() + TWO)).read_bytes()
    path = tmp_path / "a.npz"
    for content in (b"", whole[:-30], whole[:50], b"no npz", io.BytesIO().getvalue()):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="a.npz must be a whole npz file, but .*; get it again"
        ):
            read_npz(path, ["x"])
    path.write_bytes(b"junk" * 9 + whole)  # as zip files may begin
    assert read_npz(path, ["x"])["x"].tolist() == [0, 1]


def test_unknown_compression_and_passwords_are_refused(write):
    path = write(("x.npy", described() + TWO), compression=zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match="compressed in an unknown way, 12"):
        read_npz(path, ["x"])
    content = bytearray(write(("x.npy", described() + TWO)).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must be a whole npz file, but .*encrypted"):
        read_npz(path, ["x"])


def test_a_list_of_a_million_members_is_not_read(tmp_path):
    count = 50_000
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0, 0, count * len(entry), 0, 0)
    path = tmp_path / "a.npz"
    path.write_bytes(entry * count + end)
    with pytest.raises(ValueError, match="its list of members has 2,350,000 bytes"):
        read_npz(path, ["x"])


def test_what_zipfile_repeats_of_a_damaged_name_is_cut(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(2000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[26:28] = struct.pack("<H", 15_000)  # how long the first member says that its name is
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="whole npz file, but File name in directory") as caught:
        read_npz(tmp_path / "a.npz", ["x"])
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()
