"""Files that would run something, read something else, or write elsewhere: refused by one error.

Every attack would leave the file `made`, or change what a reader gives, were it let through.
"""

import copyreg
import io
import json
import os
import pickle
import stat
import tarfile
import warnings
import zipfile

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.datasets.brca.get_data import read_table
from deq_fusion.datasets.files.archives import unpack
from deq_fusion.datasets.files.hdf5 import Rows, open_file, read_whole
from deq_fusion.datasets.files.json_files import read_json
from deq_fusion.datasets.files.npz import read_npz
from deq_fusion.datasets.files.restricted_pickle import load
from deq_fusion.datasets.files.text import WordPieces
from deq_fusion.training_structures.checkpoint import FORMAT, load_checkpoint, save_checkpoint

MADE = "MADE"  # in an attack, this stands for the file that it would make
TOUCH = f"touch {MADE}"
CODE = f"open('{MADE}', 'w').close()"


def text(value):
    return f"V{value}\n".encode() if isinstance(value, str) else value


def name(place):
    return "c{}\n{}\n".format(*place.split(":")).encode()


def call(place, *args):
    return name(place) + b"(" + b"".join(map(text, args)) + b"tR."


def in_list(value):
    return b"(" + text(value) + b"l"


DICT = b"(Va\nI1\nd"
ARRAY = name("numpy:ndarray") + b"(I0\ntS'b'\n"
PICKLES = {
    "system": call("os:system", TOUCH),
    "posix": call("posix:system", TOUCH),
    "popen": call("os:popen", TOUCH),
    "execv": call("os:execv", "/bin/sh", in_list("sh")),
    "Popen": call("subprocess:Popen", TOUCH, b"I-1\nNNNNNI01\nI01\n"),
    "check_output": call("subprocess:check_output", in_list("touch")),
    "eval": call("builtins:eval", CODE),
    "exec": call("__builtin__:exec", CODE),
    "compile": call("builtins:compile", CODE, "a", "exec"),
    "open": call("io:open", MADE, "w"),
    "FileIO": call("_io:FileIO", MADE, "w"),
    "codecs.open": call("codecs:open", MADE, "w"),
    "touch": call("pathlib:Path.touch", MADE),
    "import": call("builtins:__import__", "antigravity"),
    "import_module": call("importlib:import_module", "antigravity"),
    "run_path": call("runpy:run_path", MADE),
    "CDLL": call("ctypes:CDLL", MADE),
    "browser": call("webbrowser:open", "https://localhost"),
    "getattr": call("builtins:getattr", name("os:path"), "os"),
    "setattr": call("builtins:setattr", name("numpy:ndarray"), "a", b"I1\n"),
    "type": call("builtins:type", "a", b"(t", b"(d"),
    "map": call("builtins:map", name("os:system"), in_list(TOUCH)),
    "modules": name("sys:modules") + b".",
    "attrgetter": call("operator:attrgetter", "system"),
    "methodcaller": call("operator:methodcaller", "system", TOUCH),
    "partial": call("functools:partial", name("os:system"), TOUCH),
    "reduce": call("functools:reduce", name("os:system"), in_list(TOUCH)),
    "function": call("types:FunctionType", b"N", b"(d"),
    "code": call("marshal:loads", b"C\x01N"),
    "a pickle in it": call("pickle:loads", b"C\x02N."),
    "a pickle in it, in C": call("_pickle:loads", b"C\x02N."),
    "reconstructor": call("copyreg:_reconstructor", name("io:FileIO"), b"NN"),
    "newobj": call("copyreg:__newobj__", name("io:FileIO"), MADE, "w"),
    "add_extension": call("copyreg:add_extension", "os", "system", b"I9\n"),
    "another codec": call("_codecs:encode", "a", "rot13"),
    "a codec with a path": call("_codecs:encode", "a", "../../a"),
    "decode": call("_codecs:decode", b"C\x01a", "zlib"),
    "bytes of a codec": call("builtins:bytes", "a", "idna"),
    "bytes of a size": call("builtins:bytes", b"I1000000000\n"),
    "numpy.load": call("numpy:load", MADE, b"N", b"I01\n"),
    "numpy.save": call("numpy:save", MADE, b"I1\n"),
    "numpy.memmap": call("numpy:memmap", MADE, "u1", "w+", b"I0\n(I3\nt"),
    "numpy.fromfile": call("numpy:fromfile", MADE),
    "numpy.tofile": b"\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "numpy.ufunc": call("numpy._core:_ufunc_reconstruct", "os", "system"),
    "numpy.random": call("numpy.random._pickle:__generator_ctor", "MT19937"),
    "numpy.ma": call("numpy.ma.core:_mareconstruct", name("numpy:ndarray"), b"NNN"),
    "numpy.testing": call("numpy.testing._private.utils:runstring", CODE, b"(d"),
    "an array of memmap": call("numpy.core.multiarray:_reconstruct", name("numpy:memmap"), b"N"),
    "an array of a number": call("numpy.core.multiarray:_reconstruct", b"I1\n"),
    "an object's address": call(
        "numpy.core.multiarray:scalar", call("numpy:dtype", "O8")[:-1], b"C\x08AAAAAAAA"
    ),
    "a record with an object": call("numpy:dtype", "f8,O"),
    "a dtype of a class": call("numpy:dtype", name("os:system")),
    "a class changed": name("numpy:dtype") + DICT + b"b.",
    "a function changed": name("numpy.core.multiarray:_reconstruct") + DICT + b"b.",
    "a list changed": b"]" + DICT + b"b.",
    "an OrderedDict's class": name("collections:OrderedDict") + b")R" + DICT + b"b.",
    "a method of a class": b"\x8c\x0bcollections\x8c\x12OrderedDict.update\x93.",
    "an allowed name's rest": b"\x8c\x05numpy\x8c\x0fndarray.__doc__\x93.",
    "a name in pieces": b"\x8c\x02os\x8c\x06system\x93q\x00(h\x00" + text(TOUCH) + b"o.",
    "a name remembered": name("os:system") + b"p0\n0g0\n(" + text(TOUCH) + b"tR.",
    "an instance": b"(" + text(TOUCH) + b"ios\nsystem\n.",
    "an object": b"(" + name("os:system") + text(TOUCH) + b"o.",
    "a new object": name("io:FileIO") + b"(" + text(MADE) + b"t\x81.",
    "a new object with names": name("io:FileIO") + b"(" + text(MADE) + b"t(d\x92.",
    "a new object of an allowed name": name("builtins:set") + b")\x81.",
    "a persistent name": b"Pos.system\n.",
    "a persistent object": name("numpy:dtype") + b"Q.",
    "an extension": b"\x82\xf0.",
    "an extension of four bytes": b"\x84\xf0\x00\x00\x00.",
    "a buffer from outside": b"\x97.",
    "torch": call("torch:load", MADE),
    "torch's tensors": call("torch._utils:_rebuild_tensor_v2", b"N"),
    "this reader": call("deq_fusion.datasets.files.restricted_pickle:load", MADE),
    "a module's other spelling": call("numpy.core:load", MADE),
    "a replaced word": call("numpy.core__builtin__:eval", CODE),
}


def attack_pickle(path, folder, content):
    path.write_bytes(content.replace(MADE.encode(), str(folder / "made").encode()))
    return lambda: load(path, encoding="latin1")


def stored(*members):
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # a name that is there twice
        for member, content in members:
            archive.writestr(member, content)
    return stream.getvalue()


def array_file(descr, content=b"", shape="(1,)"):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content


NPZ = {
    "objects": [("x.npy", array_file("'|O'", pickle.dumps([1])))],
    "a pickle by its name": [("x.npy", pickle.dumps([1]))],
    "a pickle without ending": [("x", call("os:system", TOUCH))],
    "code in the header": [
        ("x.npy", array_file(f"__import__('os').system('{TOUCH}')", b"12345678"))
    ],
    "code in the shape": [("x.npy", array_file("'<f8'", b"12345678", "(len('a'),)"))],
    "a record of objects": [("x.npy", array_file("[('a', '|O')]", b"12345678"))],
    "a name outside": [("../x.npy", array_file("'<f8'", b"12345678"))],
    "a name twice": [("x.npy", array_file("'<f8'", b"12345678"))] * 2,
    "a size that is none": [("x.npy", array_file("'<f8'", b"", "(-1,)"))],
    "a size of exabytes": [("x.npy", array_file("'<f8'", b"", "(999999999999999999,)"))],
}


def attack_npz(path, folder, members):
    path.write_bytes(stored(*members).replace(MADE.encode(), b"made"))
    return lambda: read_npz(path, ["x"])


def references(file, path):
    file.create_dataset("y", data=[1.0])
    file.create_dataset("x", data=[file["y"].ref], dtype=h5py.ref_dtype)


def regions(file, path):
    data = file.create_dataset("y", data=[1.0])
    file.create_dataset("x", data=[data.regionref[:]], dtype=h5py.regionref_dtype)


def other_file(path):
    with h5py.File(path.with_name("other.hdf5"), "w") as other:
        other["x"] = [1.0]
    return path.with_name("other.hdf5")


def external(file, path):
    file["x"] = h5py.ExternalLink(str(other_file(path)), "x")


def external_through_a_link(file, path):
    external(file, path)
    file.move("x", "z")
    file["x"] = h5py.SoftLink("/z")


def outside(file, path):
    place = [("/etc/passwd", 0, 80)]
    file.create_dataset("x", (10,), "f8", external=place)


def virtual(file, path):
    layout = h5py.VirtualLayout((1,), "f8")
    layout[:] = h5py.VirtualSource(str(other_file(path)), "x", (1,))
    file.create_virtual_dataset("x", layout)


def circle(file, path):
    file["x"], file["z"] = h5py.SoftLink("/z"), h5py.SoftLink("/x")


def opaque(file, path):
    file.create_dataset("x", data=np.array([b"cos\nsystem\n"], "V11"))


def record(file, path):
    file.create_dataset("x", data=np.zeros(2, [("a", "f4"), ("b", "i8")]))


def nothing(file, path):
    file.create_dataset("x", data=h5py.Empty("f4"))


def a_group(file, path):
    file.create_group("x")


def a_type(file, path):
    file["x"] = np.dtype("f8")


def unwritten(file, path):
    file.create_dataset("x", (10**9,), "f8")


HDF5 = {
    made.__name__: made
    for made in (
        *(references, regions, external, external_through_a_link, outside, virtual, circle),
        *(opaque, record, nothing, a_group, a_type, unwritten),
    )
}


def attack_hdf5(path, folder, make):
    with h5py.File(path, "w") as file:
        make(file, path)

    def act():
        with pytest.raises(ValueError, match="data"):
            Rows(path, "x")
        with open_file(path) as file:
            read_whole(file, "x")

    return act


def link_in_zip(target):
    member = zipfile.ZipInfo("a")
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return stored(("b", b"x"), (member, target))


def tarred(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member, kind, target in members:
            info = tarfile.TarInfo(member)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return stream.getvalue()


FILE = tarfile.REGTYPE
ARCHIVES = {
    **{
        f"zip: {member!r}": stored(("a", b"x"), (member, b"x"))
        for member in (
            *("../made", "a/../../made", "/made", "//made", "C:/made", "C:made", "..\\made"),
            *("\\made", "a", "A", "a/made"),
        )
    },
    "zip: a link": link_in_zip("../made"),
    "zip: a link inside": link_in_zip("b"),
    "zip: a zero byte": stored(("aXmade", b"x"), ("a", b"")).replace(b"aXmade", b"a\x00made"),
    **{
        f"tar: {member!r}": tarred(("a", FILE, ""), (member, FILE, ""))
        for member in ("../made", "a/../../made", "/made", "C:/made", "..\\made", "a", "A")
    },
    "tar: a link": tarred(("a", tarfile.SYMTYPE, "../made")),
    "tar: a hard link": tarred(("a", tarfile.LNKTYPE, "../../secret")),
    "tar: through a link": tarred(("a", tarfile.SYMTYPE, ".."), ("a/made", FILE, "")),
    "tar: a pipe": tarred(("a", tarfile.FIFOTYPE, "")),
    "tar: a device": tarred(("a", tarfile.CHRTYPE, "")),
    "tar: a disk": tarred(("a", tarfile.BLKTYPE, "")),
}


def attack_archive(path, folder, content):
    path.write_bytes(content)
    return lambda: unpack(path, folder / "data", wanted=["a"], progress=False)


def legacy(content):
    """A checkpoint as torch wrote them before zip files: some pickles, one after the other."""
    return pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + content


CHECKPOINTS = {
    "system": call("os:system", TOUCH),
    "eval": call("builtins:eval", CODE),
    "getattr": call("builtins:getattr", name("torch:hub"), "load"),
    "numpy.load": call("numpy:load", MADE),
    "torch.load": call("torch:load", MADE),
    "torch.hub": call("torch.hub:load", "a", "b"),
    "a module": call("torch.nn:Linear", b"I1\nI1\n"),
    "a class changed": name("torch._utils:_rebuild_parameter") + DICT + b"b.",
    "an instance": b"(" + text(TOUCH) + b"ios\nsystem\n.",
    "a new object": name("io:FileIO") + b"(" + text(MADE) + b"t\x81.",
    "a pickle alone": pickle.dumps({"format": FORMAT}),
}


def attack_checkpoint(path, folder, content):
    content = content.replace(MADE.encode(), str(folder / "made").encode())
    save_checkpoint(path, {"a": 1})
    with zipfile.ZipFile(path) as archive:
        members = [(member, archive.read(member)) for member in archive.namelist()]
    path.write_bytes(
        stored(*((m, content if m.endswith("data.pkl") else old) for m, old in members))
    )
    with pytest.raises(ValueError, match="data"):
        load_checkpoint(path)
    path.write_bytes(legacy(content))
    return lambda: load_checkpoint(path)


TOKENIZERS = {
    "a pickle": {"model": {"type": "pickle", "vocab": MADE}},
    "another model": {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}},
    "a type that is none": {"model": {"type": {"a": 1}}},
    "a class": {"model": {"type": "WordPiece", "__class__": "os.system"}},
    "a normalizer of a map": {
        "model": {"type": "WordPiece", "vocab": {}},
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    },
    "a pattern for ever": {
        "model": {"type": "WordPiece", "vocab": {}},
        "normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""},
    },
}


def attack_tokenizer(path, folder, content):
    path.write_text(json.dumps(content))
    return lambda: WordPieces.load(path)


TABLES = ["=1+1", "=cmd|'/C touch made'!A0", "+1", "@SUM(1,1)", "-2+3", "0x10", "1_0", "__import__"]


def attack_table(path, folder, content):
    path.write_text(f"1.0,2.0\n3.0,{content}\n")
    return lambda: read_table(path)


ATTACKS = [
    pytest.param(act, ending, content, id=f"{act.__name__[7:]}: {name}")
    for act, ending, contents in (
        (attack_pickle, "pkl", PICKLES),
        (attack_npz, "npz", NPZ),
        (attack_hdf5, "hdf5", HDF5),
        (attack_archive, "zip", ARCHIVES),
        (attack_checkpoint, "ckpt", CHECKPOINTS),
        (attack_tokenizer, "json", TOKENIZERS),
        (attack_table, "csv", {cell: cell for cell in TABLES if cell != "+1"}),
    )
    for name, content in contents.items()
]


@pytest.mark.parametrize(("prepare", "ending", "content"), ATTACKS)
def test_an_attack_is_refused_and_leaves_nothing(tmp_path, monkeypatch, prepare, ending, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"data.{ending}"
    monkeypatch.setitem(copyreg._inverted_registry, 0xF0, ("os", "system"))
    monkeypatch.setitem(copyreg._extension_cache, 0xF0, os.system)
    act = prepare(path, tmp_path, content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"data\.") as error:
        act()
    message = str(error.value)
    assert len(message) < 800 + 2 * len(str(tmp_path)) and message.isprintable()
    left = [found for found in sorted(tmp_path.rglob("*")) if found not in before]
    assert [found for found in left if found != tmp_path / "data"] == []


def test_there_are_sixty_attacks_and_more():
    assert len(ATTACKS) >= 120


def test_names_of_classes_in_json_are_names(tmp_path):
    path = tmp_path / "a.json"
    content = {"__class__": "os.system", "__reduce__": ["os.system", ["true"]], "$ref": "/etc"}
    path.write_text(json.dumps(content))
    assert read_json(path) == content and type(read_json(path)) is dict


def test_what_is_unpacked_has_no_rights_of_its_own(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.mode, info.uid = 0o6777, 0
        archive.addfile(info)
    member = zipfile.ZipInfo("b")
    member.create_system, member.external_attr = 3, (stat.S_IFREG | 0o6777) << 16
    for wanted, content in (("a", stream.getvalue()), ("b", stored((member, b"x")))):
        (tmp_path / "archive").write_bytes(content)
        (path,) = unpack(tmp_path / "archive", tmp_path / "data", wanted=[wanted], progress=False)
        assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)


def test_the_attacks_would_work_on_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = PICKLES["system"].replace(MADE.encode(), str(tmp_path / "made").encode())
    pickle.loads(content)
    assert (tmp_path / "made").exists()
    (tmp_path / "made").unlink()
    with pytest.raises(EOFError):  # once it has run, the rest of a checkpoint is missing
        torch.load(io.BytesIO(legacy(content)), weights_only=False)
    assert (tmp_path / "made").exists()
