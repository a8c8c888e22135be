"""Archives: damage anywhere is noticed, and nothing is unpacked that a system could misread.

How what is good is unpacked is tested in test_download.py, of which the archives come.
"""

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import struct
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from deq_fusion.datasets.files import archives
from deq_fusion.datasets.files.archives import check_archive, unpack

RANDOM = random.Random(0)
MEMBERS = {
    "top/a/one": RANDOM.randbytes(700),
    "top/a/two": b"text " * 300,
    "top/list.json": b"{}",
    "top/t\u00e4t": b"",
}
KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")


def zipped(members, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name) if not content else name, content)
    return stream.getvalue()


def tarred(members, pack="", **options):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{pack}", **options) as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
            else:
                member.type = tarfile.DIRTYPE
            file.addfile(member, io.BytesIO(content or b""))
    return stream.getvalue()


def write(path, kind, members):
    made = zipped(members) if kind == "zip" else tarred(members, kind[4:])
    path.write_bytes(made)
    return made


def tree(folder):
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


def refuse(path, folder, message, **options):
    """Checks that an archive is refused with its name, and that nothing of it is kept."""
    with pytest.raises(ValueError, match=f"(?s){path.name} could not be unpacked: .*{message}"):
        unpack(path, folder, wanted=["a", "list.json"], progress=False, **options)
    assert not list(folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_one_flipped_bit_is_noticed_or_changes_nothing(tmp_path, folder, kind):
    path, wanted = tmp_path / f"x.{kind}", ["a", "list.json", "t\u00e4t"]
    content = write(path, kind, MEMBERS)
    unpack(path, folder, wanted=wanted, progress=False)
    whole, noticed = tree(folder), 0
    assert whole == {"a": None} | {name[4:]: made for name, made in MEMBERS.items()}
    flips = random.Random(kind).sample(
        range(8 * len(content)), 400 if kind in ("zip", "tar.gz") else 60
    )
    for flip in flips:
        damaged = bytearray(content)
        damaged[flip // 8] ^= 1 << flip % 8
        path.write_bytes(damaged)
        shutil.rmtree(folder)
        try:
            unpack(path, folder, wanted=wanted, progress=False)
        except ValueError as error:
            assert path.name in str(error)
            noticed += 1
        else:
            assert tree(folder) == whole
    assert noticed > 0.7 * len(flips)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_anywhere_is_noticed(tmp_path, folder, kind):
    path = tmp_path / f"x.{kind}"
    content = write(path, kind, MEMBERS)
    end = content.rindex(MEMBERS["top/list.json"]) + 512 if kind == "tar" else len(content) - 1
    for length in (1, 3, 100, 513, 1024, len(content) // 2, end):
        if length < len(content):
            path.write_bytes(content[:length])
            refuse(path, folder, "")


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_the_end_is_refused_unless_it_is_padding(tmp_path, folder, kind):
    path = tmp_path / f"x.{kind}"
    content = write(path, kind, MEMBERS)
    path.write_bytes(content + b"more")
    refuse(path, folder, "")
    if kind != "zip":
        path.write_bytes(content + bytes(600_000))
        assert len(unpack(path, folder, wanted=["a"], progress=False)) == 1


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress])
def test_several_compressed_streams_are_one(tmp_path, folder, packer):
    content = tarred(MEMBERS)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(packer(content[:1000]) + packer(content[1000:]))
    unpack(path, folder, wanted=["a"], progress=False)
    assert tree(folder / "a") == {"one": MEMBERS["top/a/one"], "two": MEMBERS["top/a/two"]}
    path.write_bytes(packer(content + b"x" * 512))
    folder = folder.with_name("other")
    folder.mkdir()
    refuse(path, folder, "something follows its end")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a"], "occurs twice"),
        (["a", "A"], "in other spelling"),
        (["a/b", "A/c"], "in other spelling"),
        (["a.", "a"], "in other spelling"),
        (["\u00e9", "e\u0301"], "in other spelling"),
        (["a", "a/b"], "as a file and as a folder"),
        (["a/b", "a"], "as a file and as a folder"),
        (["/".join("d" * 40)], "too deep"),
        (["n" * 256], "too long"),
        (["a\x1b[2J"], r"'a\\x1b\[2J' is too long, too deep, or not printable"),
        (["C:/a"], "must not reach outside"),
        (["a/c:x"], "must not reach outside"),
        (["a\\b"], "must not reach outside"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_names_that_a_system_may_misread_are_refused(tmp_path, folder, kind, names, message):
    path = tmp_path / f"x.{kind}"
    members = [(name, b"1") for name in names]
    write(path, kind, SimpleNamespace(items=lambda: members))
    refuse(path, folder, message)


@pytest.mark.parametrize("kind", KINDS)
def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path, folder, kind):
    path = tmp_path / f"x.{kind}"
    write(path, kind, {"a": bytes(1 << 20), "list.json": b"1"})
    refuse(path, folder, "1,048,57[67] bytes", limit=1 << 20)
    unpack(path, folder, wanted=["a"], progress=False, limit=(1 << 20) + 1)
    if kind not in ("tar", "zip"):  # a bomb after the end of the archive
        packer = {"gz": gzip, "bz2": bz2, "xz": lzma}[kind[4:]].compress
        path.write_bytes(packer(tarred({"a": b"1"}) + bytes(1 << 22)))
        (folder / "a").unlink()
        refuse(path, folder, "unpacks to more than", limit=1 << 20)


def test_there_must_be_room_on_the_disk(tmp_path, folder, monkeypatch):
    path = tmp_path / "x.tar"
    write(path, "tar", MEMBERS)
    free = SimpleNamespace(free=699)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: free)
    with pytest.raises(OSError, match="one could not be written: it needs 700 bytes, .* 699; noth"):
        unpack(path, folder, wanted=["a"], progress=False)
    assert not list(folder.iterdir())


def patched(content, at, form, *values):
    content = bytearray(content)
    struct.pack_into(form, content, at, *values)
    return bytes(content)


def test_a_zip_archive_must_describe_its_members_alike(tmp_path, folder):
    path, content = tmp_path / "x.zip", zipped({"a": b"1" * 100, "b": b"2" * 100})
    first, second = content.index(b"PK\1\2"), content.rindex(b"PK\1\2")
    end = content.rindex(b"PK\5\6")
    for made, message in (
        (patched(content, first + 42, "<I", 10**6), ""),
        (patched(content, second + 42, "<I", 0), "overlaps|differ"),
        (patched(content, first + 24, "<I", 4 * 10**9), "unpacks to 4,000,000,100 bytes"),
        (patched(content, 22, "<I", 4), "described in two ways"),
        (patched(content, 8, "<H", 12), "described in two ways"),
        (patched(patched(content, first + 10, "<H", 99), 8, "<H", 99), "in an unknown way"),
        (patched(patched(content, first + 8, "<H", 1), 6, "<H", 1), "is encrypted"),
        (patched(content, end + 8, "<HH", 1, 1), "said to have 1 members, and has 2"),
        (patched(content, end + 20, "<H", 4) + b"note", "lacks|could not"),
        (b"MZ" + content, "neither a zip nor a tar"),
    ):
        path.write_bytes(made)
        if message == "lacks|could not":  # a comment is allowed
            unpack(path, folder, wanted=["a"], progress=False)
            (folder / "a").unlink()
        else:
            refuse(path, folder, message)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_in_a_zip_archive_is_refused(tmp_path, folder, kind):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        member = zipfile.ZipInfo("a")
        member.create_system, member.external_attr = 3, (kind | 0o777) << 16
        file.writestr(member, "/etc/passwd")
    refuse(tmp_path / "x.zip", folder, "files and folders only, but 'a' is a link")


def header(kind, size, name="x"):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def pax(**pairs):
    records = b""
    for key, value in pairs.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(body) + 2
        records += b"%d%s" % (length + (length > 99), body)
    return header(tarfile.XHDTYPE, len(records)) + records.ljust(512, b"\0")


@pytest.mark.parametrize("packer", [bytes, gzip.compress])
def test_extended_headers_of_a_tar_archive_are_bounded(tmp_path, folder, packer):
    path, end = tmp_path / "x.tar", bytes(1024)
    one = header(tarfile.REGTYPE, 1, "a") + b"1".ljust(512, b"\0")
    path.write_bytes(packer(pax(path="list.json", comment="new") + one + end))
    unpack(path, folder, wanted=["list.json"], progress=False)
    (folder / "list.json").unlink()
    for content, message in (
        (header(tarfile.XHDTYPE, 1 << 33) + one, "extended header has 8,589,934,592 bytes"),
        (header(tarfile.GNUTYPE_LONGNAME, 1 << 40) + one, "extended header has"),
        (pax(comment="again") * 9 + one, "more than 8 extended headers"),
        (
            header(tarfile.XGLTYPE, 10) + b"10 path=a\n".ljust(512, b"\0") + one,
            "all of its members",
        ),
        (pax(size="1e9") + one, "'1e9' for a number"),
        (pax(size="9" * 19) + one, "unpacks to more than"),
        (pax(GNU__sparse__major="1") + one, "is a link or device, or has gaps"),
        (header(tarfile.GNUTYPE_SPARSE, 1, "a"), "is a link or device, or has gaps"),
        (header(tarfile.CHRTYPE, 0, "a"), "is a link or device, or has gaps"),
        (header(tarfile.XHDTYPE, 12) + b"99 path=../a".ljust(512, b"\0") + one, "is damaged"),
        (pax(path="../a") + one, "must not reach outside"),
        (header(tarfile.DIRTYPE, 512, "a") + one, "has 512 bytes"),
        (header(tarfile.REGTYPE, 0, "b") + b"\1" + one, ""),  # a damaged header amid them
    ):
        path.write_bytes(packer(content + end))
        refuse(path, folder, message)


def test_permissions_are_not_kept(tmp_path, folder):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        member = tarfile.TarInfo("a")
        member.mode = 0o6777
        file.addfile(member)
    unpack(tmp_path / "x.tar", folder, wanted=["a"], progress=False)
    (folder / "plain").touch()
    assert (folder / "a").stat().st_mode == (folder / "plain").stat().st_mode


def test_a_link_in_place_of_the_scratch_folder_is_left_alone(tmp_path, folder):
    write(tmp_path / "x.tar", "tar", MEMBERS)
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").touch()
    scratch = folder / "x.tar.unpacking"
    for target in (other, tmp_path / "nowhere"):
        scratch.symlink_to(target)
        with pytest.raises(ValueError, match="x.tar.unpacking must be a folder that an "):
            unpack(tmp_path / "x.tar", folder, wanted=["a"], progress=False)
        scratch.unlink()
    assert list(other.iterdir()) == [other / "precious"] and not (tmp_path / "nowhere").exists()


def test_an_archive_that_is_not_there_is_named_and_nothing_is_made(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"no file .*x\.zip; fetch it first"):
        unpack(tmp_path / "x.zip", folder / "new", wanted=["a"], progress=False)
    assert not (folder / "new").exists()


def test_a_pipe_is_no_archive(tmp_path, folder):
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(ValueError, match=r"pipe\.zip must be a file, but is a pipe or a device"):
        check_archive(tmp_path / "pipe.zip")
    with pytest.raises(ValueError, match=r"pipe\.zip must be a file, but is a pipe or a device"):
        unpack(tmp_path / "pipe.zip", folder, wanted=["a"], progress=False)
    for content in (b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"\x1f\x8b" * 300, bytes(100)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match="neither a zip nor a tar archive"):
            check_archive(tmp_path / "x")
