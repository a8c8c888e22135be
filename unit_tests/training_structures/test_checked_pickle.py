"""A crafted checkpoint with a right checksum is refused before torch reads it, soon, in little."""

import io
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from hashlib import sha256

import pytest
import torch
from torch import nn

from deq_fusion.training_structures.checked_pickle import HEAVY, STEPS, check_pickle
from deq_fusion.training_structures.checkpoint import (
    FORMAT,
    load_checkpoint,
    rng_state,
    save_checkpoint,
)
from deq_fusion.training_structures.files import Damaged

LIMITED = """
import resource, sys
from deq_fusion.training_structures.checkpoint import load_checkpoint

def used():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime, found.ru_maxrss

before = used()
try:
    load_checkpoint(sys.argv[1])
except ValueError as error:
    after = used()
    print(after[0] - before[0], (after[1] - before[1]) / 2**20, len(str(error)), error)
"""


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def long(value):
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def called(name, args):
    return b"c" + name.encode() + b"\n" + args + b"R"


TWICE = b")" + 60 * b"q\x01h\x01\x86"  # a tuple that holds twice one that holds twice ...
LISTS = b"]" + 60 * b"q\x01]h\x01ah\x01a"
DEEP = b")" + 1000 * b"\x85"
COLLIDING = b"}(" + b"".join(long(n * (2**61 - 1)) + b"N" for n in range(1, 100_000)) + b"u"
STORED = b"(" + text("storage") + b"ctorch\nFloatStorage\n%s" + text("cpu") + b"K\x01tQ"
ENTRIES = {  # what stands for an entry of a checkpoint, and why it is refused
    "a key of tuples": (b"}" + TWICE + b"Ns", "steps"),
    "a key": (b"})Ns", "keys that are no text"),
    "keys of one hash": (COLLIDING, "keys that are no text"),
    "a set of tuples": (called("__builtin__\nset", b"](" + TWICE + b"e\x85"), "steps"),
    "a set of a tuple": (called("__builtin__\nset", b"])a\x85"), "something else than one"),
    "pairs": (called("collections\nOrderedDict", b"])N\x86a\x85"), "something else than one"),
    "letters": (called("collections\nCounter", text("aa") + b"\x85"), "something else than one"),
    "a call of tuples": (TWICE + b")R", "steps"),
    "a storage of tuples": (STORED % TWICE, "steps"),
    "a storage by name": (STORED % text("A"), "numbers are elsewhere"),
    "a tuple": (TWICE, "steps"),
    "lists": (LISTS, "steps"),
    "a list of itself": (b"]q\x01h\x01a", "adds to a list"),
    "a deep key": (b"}" + DEEP + b"Ns", "100 deep"),
    "deep lists": (1000 * b"]" + 999 * b"a", "100 deep"),
    "bytes": (called("__builtin__\nbytearray", b"J\xff\xff\xff\x7f\x85"), "bytearray"),
    "punycode": (called("_codecs\nencode", text("a") + text("punycode") + b"\x86"), "encode"),
    "a tensor": (called("torch\nTensor", b"J\xff\xff\xff\x0f\x85"), "'torch Tensor'"),
    "a new object": (b"ctorch\nSize\n)\x81", "operation"),
    "another module": (b"cos\nsystem\n", "'os system'"),
    "a long name": (b"c" + 1000 * b"a" + b"\na\n", "a name"),
    "a control character": (b"c\x1b[31m\na\n", r"\\x1b"),
    "attributes": (b"ccollections\nOrderedDict\n)R}" + text("items") + b"Nsb", "attributes"),
    "an empty stack": (b"(\x87", "damaged inside"),
    "nothing of the kind": (b"h\x63", "damaged inside"),
    "many numbers": (b"](" + STEPS * b"N" + b"e", "steps"),
    "many dicts": (b"](" + STEPS // HEAVY * b"}" + b"e", "steps"),
    "many marks": (STEPS // HEAVY * b"(", "steps"),
    "protocols": (1000 * b"\x80\x02" + b"N", "operation"),
}


def pickled(entry):
    return b"\x80\x02}(" + text("format") + text(FORMAT) + text("x") + entry + b"u."


def zipped(*members, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def sealed(content):
    content = content[:-2] + struct.pack("<H", 71)
    return content + b"sha256=" + sha256(content).hexdigest().encode()


def checkpoint(entry):
    members = ("data.pkl", pickled(entry)), ("data/0", bytes(4)), ("version", b"3\n")
    return zipped(*((f"archive/{name}", content) for name, content in members))


def test_the_crafted_are_like_real_ones(tmp_path):
    (tmp_path / "it").write_bytes(sealed(checkpoint(b"K\x07")))
    assert load_checkpoint(tmp_path / "it") == {"format": FORMAT, "x": 7}


@pytest.mark.parametrize("kind", ENTRIES)
def test_what_would_keep_torch_busy_is_refused(tmp_path, kind):
    entry, message = ENTRIES[kind]
    path = tmp_path / "run.ckpt"
    path.write_bytes(sealed(checkpoint(entry)))
    with pytest.raises(Damaged, match=f"run.ckpt must hold tensors, .*, but .*{message}") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 300 + len(str(path)) and str(caught.value).isprintable()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
def test_refusing_takes_little_time_and_memory(tmp_path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(sealed(checkpoint(b"](" + 45_000_000 * b"}" + b"e")))
    done = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True)
    seconds, gigabytes, length, *_ = done.stdout.split()
    assert float(seconds) < 5 and float(gigabytes) < 1 and int(length) < 400, done.stderr


def test_no_two_programs_read_different_lists(tmp_path):
    path, good = tmp_path / "run.ckpt", checkpoint(b"N")
    pickles = [("a/data.pkl", pickled(b"N")), ("a/DATA.pkl", pickled(b"N"))]
    entries = [("a/data.pkl", pickled(b"N")), ("b/version", b"3\n")]
    for content in (b"before" + good, zipped(*pickles), zipped(*entries)):
        path.write_bytes(sealed(content))
        with pytest.raises(Damaged, match="read alike by all"):
            load_checkpoint(path)
    path.write_bytes(sealed(zipped(pickles[0], compression=zipfile.ZIP_DEFLATED)))
    with pytest.raises(Damaged, match="must hold its entries as they are"):
        load_checkpoint(path)
    path.write_bytes(sealed(zipped(("a/version", b"3\n"))))
    with pytest.raises(Damaged, match=r"must hold one data.pkl of at most"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04N.", b"\x80\x02N", b"\x80\x02NN.", b"\x80\x02N.N"]
)
def test_damaged_pickles_are_no_error_of_pythons(content):
    with pytest.raises(ValueError, match="protocol|damaged|end"):
        check_pickle(content)


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    else:
        assert found == expected


def test_what_can_be_saved_is_loaded(tmp_path):
    betas = [0.9, 0.99]
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LSTM(3, 2))
    contents = {
        "model": model.state_dict(),
        "parameters": OrderedDict(model.named_parameters()),
        "numbers": [1, -1, 2.5, True, None, 10**30, 1j, list(range(3000)), {1: 2, None: 3, 0.5: 4}],
        "others": [torch.Size([2, 3]), torch.device("cpu"), torch.float16, {3, 4}, (), ((1,), "ü")],
        "shared": [betas, betas, (betas, betas)],
        "kinds": [torch.ones(2, 3).to(kind) for kind in (torch.bfloat16, torch.uint16, torch.bool)],
        "views": [
            torch.randn(3, 4).T,
            torch.arange(3).expand(2, 3),
            torch.tensor(1),
            torch.ones(0),
        ],
        "random": rng_state(),
    }
    save_checkpoint(tmp_path / "it", contents)
    assert_same(load_checkpoint(tmp_path / "it"), {"format": FORMAT, **contents})


@pytest.mark.parametrize("name", ["Adam", "SGD", "LBFGS", "Adafactor", "NAdam", "Rprop", "ASGD"])
def test_states_of_optimisers_and_schedulers_are_loaded(tmp_path, name):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    groups = [{"params": layer.parameters()} for layer in model]
    lone = name == "LBFGS"  # which takes one group
    optimizer = getattr(torch.optim, name)(model.parameters() if lone else groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2, 2])  # keeps a Counter

    def loss():
        optimizer.zero_grad()
        value = model(torch.ones(4, 2)).square().mean()
        value.backward()
        return value

    for _ in range(2):
        optimizer.step(loss)
        scheduler.step()
    contents = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    save_checkpoint(tmp_path / "it", contents)
    assert_same(load_checkpoint(tmp_path / "it"), {"format": FORMAT, **contents})


def test_large_models_are_within_the_bounds(tmp_path):
    weights = {f"layer.{number}": torch.ones(1) for number in range(2000)}
    save_checkpoint(tmp_path / "it", weights)
    assert len(load_checkpoint(tmp_path / "it")) == 2001
    assert 2000 * 100 < STEPS / 10
