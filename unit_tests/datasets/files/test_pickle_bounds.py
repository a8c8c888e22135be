"""Pickles of a few bytes that would hang or fill the memory are refused, and said why in short."""

import struct
import tracemalloc

import pytest

from deq_fusion.datasets.files import pickle_stack
from deq_fusion.datasets.files.restricted_pickle import load


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "data.pkl"
        path.write_bytes(content)
        return path

    return write


TWICE = b"N" + b"2\x86" * 60  # a tuple that holds its child twice, 60 deep
LIST_TWICE = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(60))
FRAME = b"cnumpy._core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n(S'%s'\ntR"
RECONSTRUCT = (
    b"cnumpy\nndarray\np0\n0cnumpy.core.multiarray\n_reconstruct\np1\n0(g0\n(I0\ntS'b'\ntp2\n0"
    b"cnumpy\ndtype\n(S'O8'\ntRp3\n0(I1\ntp4\n0"
)


def same_hash(count):
    """Pairs of integers that have one hash, by Python's rule for tuples turned round."""
    one, two, five = 11400714785074694791, 14029467366897019727, 2870177450012600261
    bits, found = 1 << 64, []
    for first in range(1, 100 * count):
        lane = (five + first * two) % bits
        lane = ((lane << 31 | lane >> 33) % bits) * one % bits
        last = 12345 * pow(one, -1, bits) % bits
        last = (last >> 31 | last << 33) % bits
        second = (last - lane) * pow(two, -1, bits) % bits
        if second < 1 << 61 and len(found) < count:
            found.append((first, second))
    return found


BOMBS = {
    "a tuple as a key": (b"}" + TWICE + b"Ns.", "uses a tuple of 2 as a key"),
    "a member of a frozenset": (b"(" + TWICE + b"\x91.", "uses a tuple of 2 as a key"),
    "a member of a set": (b"\x8f(" + TWICE + b"\x90.", "uses a tuple of 2 as a key"),
    "a set made of a list": (b"c__builtin__\nset\n](" + TWICE + b"e\x85R.", "tuple of 2 as a key"),
    "a shape": (FRAME % b"f8" + TWICE + b"tR.", "got a tuple of 2 in it"),
    "a dtype": (b"cnumpy\ndtype\n" + TWICE + b"\x85R.", "dtype a tuple of 2"),
    "a byte order": (b"cnumpy\ndtype\n(S'f8'\ntR(I3\n" + TWICE + b"NNNtb.", "order a tuple of 2"),
    "what is called": (TWICE + b")R.", "it calls a tuple of 2"),
    "an encoding": (b"c_codecs\nencode\n(Vx\n" + TWICE + b"tR.", "encodes with a tuple of 2"),
    "tuples shared": (TWICE + b".", "holds the same things so often"),
    "lists shared": (LIST_TWICE + b".", "holds the same things so often"),
    "a list in itself": (b"]q\x00(h\x00h\x00e.", "holds itself in several places"),
    "a deep list": (b"]" * 9000 + b"a" * 8999 + b".", "more than 100 deep"),
    "a deep tuple": (b"N" + b"\x85" * 9000 + b".", "more than 100 deep"),
    "a deep key": (b"}N" + b"\x85" * 9000 + b"Ns.", "uses a tuple of 1 as a key"),
    "text of gigabytes": (b"\x8d" + struct.pack("<Q", 1 << 40), "declares 1,099,511,627,776 bytes"),
    "bytes of exabytes": (b"\x8e" + struct.pack("<Q", 1 << 62), "which are not there"),
    "a bytearray of gigabytes": (b"\x96" + struct.pack("<Q", 1 << 33), "which are not there"),
    "a frame of gigabytes": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 40), "which are not there"),
    "a negative size": (b"\x8b" + struct.pack("<i", -5) + b"N.", "declares -5 bytes"),
    "an integer of megabytes": (
        b"\x8b" + struct.pack("<i", 2_000_000) + b"\x7f" * 2_000_000 + b".",
        "an integer of it has 2,000,000 bytes",
    ),
    "digits": (b"L" + b"9" * 5000 + b"L\n.", "an integer of it has 5,001 digits"),
    "integers of one hash": (b"}\x8a\x09" + b"\xff" * 8 + b"\x00Ns.", "18446744073709551615 as a"),
    "tuples of one hash": (
        b"}("
        + b"".join(
            b"J%s\x8a\x08%s\x86N" % (struct.pack("<i", a), struct.pack("<q", b))
            for a, b in same_hash(20)
        )
        + b"u.",
        "many of its keys have the same hash",
    ),
    "a number that is none": (b"}G\x7f\xf8" + b"\x00" * 6 + b"Ns.", "uses nan as a key"),
    "a long key": (b"}V" + b"a" * 2000 + b"\nNs.", "uses 'aaa.*[.]{3}' as a key"),
    "a key twice": (b"}(I1\nNI1\nNu.", "a key of it occurs twice"),
    "an empty array, wide": (
        FRAME % b"f8" + b"(I0\nL" + b"9" * 18 + b"L\nttR.",
        "empty and yet hu",
    ),
    "a product of sizes": (FRAME % b"f8" + b"(" + b"I1000000000\n" * 9 + b"ttR.", "must agree"),
    "many sizes": (FRAME % b"f8" + b"(" + b"I1\n" * 40 + b"ttR.", "at most 32, got a tuple of 40"),
    "wide text": (FRAME % b"U999999999" + b"(I0\nttR.", "ended with (TypeError|ValueError)"),
    "arrays in arrays": (
        RECONSTRUCT + b"N" + b"p9\n0h\x01h\x02R(h\x04h\x03I00\n(lg9\natb" * 30 + b".",
        "arrays of objects lie in one another",
    ),
    "an array in itself": (
        RECONSTRUCT + b"h\x01h\x02Rp9\n(h\x04h\x03I00\n(lg9\natb.",
        "or in themselves",
    ),
    "one text encoded often": (
        b"c_codecs\nencode\np0\n0V"
        + b"a" * 9999
        + b"\nVlatin1\n\x86p1\n0]("
        + b"h\x00h\x01R" * 9
        + b"e.",
        "makes far more of its bytes than there are",
    ),
    "a second pickle": (b"N.N.", "more follows behind its end"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_take_the_machine(write, name):
    content, match = BOMBS[name]
    with pytest.raises(ValueError, match=match) as error:
        load(write(content))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "steps", [b"]", b"\x8f", b"(", b"N", b"N0", b"}\x94", b"ccollections\nOrderedDict\n)R"]
)
def test_the_steps_of_a_file_have_an_end(write, monkeypatch, steps):
    monkeypatch.setattr(pickle_stack, "STEPS", 40_000)
    with pytest.raises(ValueError, match="takes more than 40,000 steps; lists of numbers should"):
        load(write(steps * 50_000 + b"."))


@pytest.mark.parametrize("content", [b"Nr\xff\xff\xff\x7f.", b"Np99999999999\n.", b"NNq\xff0."])
def test_a_place_far_off_takes_no_memory(write, content):
    tracemalloc.start()
    assert load(write(content)) is None
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
