"""Downloads and archives: complete, resumed, verified, kept aside when wrong, and safe to unpack.

Downloads are from a server on this machine (see conftest.py).
"""

import gzip
import hashlib
import io
import os
import random
import socket
import subprocess
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from deq_fusion.datasets.files import download
from deq_fusion.datasets.files.archives import check_archive, unpack
from deq_fusion.datasets.files.download import Expected, fetch, git_blob_id, verify

CONTENT = random.Random(0).randbytes(600_000)  # more than twice what is read at once
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def get(server, tmp_path):
    """Fetches `file` into the temporary folder, where its SHA-256 must be `CONTENT`'s."""
    server.content["file"] = CONTENT

    def get(**expected):
        wanted = Expected(**({"sha256": SHA256} | expected))
        return fetch(f"{server.url}/file", tmp_path / "file", expected=wanted, progress=False)

    return get


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_fetched_once(get, server, tmp_path):
    assert get() == get() == tmp_path / "file"
    assert contents(tmp_path) == {"file": CONTENT}
    assert server.sent == [len(CONTENT)]


def test_missing_folders_are_made_and_nothing_need_be_known(get, server, tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    assert fetch(f"{server.url}/file", path, progress=False).read_bytes() == CONTENT


def test_a_cut_download_says_so_and_only_the_rest_is_sent_again(get, server, tmp_path):
    server.cut = 250_000
    for kept in (250_000, 500_000):
        with pytest.raises(ConnectionError, match=f"ended after {kept} of 600000 .* to resume"):
            get()
        assert contents(tmp_path) == {"file.part": CONTENT[:kept]}
    get()
    assert [asked[1] for asked in server.asked] == [None, "bytes=250000-", "bytes=500000-"]
    assert server.sent == [250_000, 250_000, 100_000]
    assert contents(tmp_path) == {"file": CONTENT}


def test_a_cut_without_an_announced_length_is_found_by_the_known_size(get, server, tmp_path):
    server.cut, server.lengths = 100_000, False
    with pytest.raises(ConnectionError, match="ended after 100000 of 600000 bytes"):
        get(size=len(CONTENT))
    server.cut = None
    get(size=len(CONTENT))
    assert contents(tmp_path) == {"file": CONTENT}


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("totals", [True, False])
@pytest.mark.parametrize("size", [10, len(CONTENT), len(CONTENT) + 10])
def test_any_partial_file_ends_complete(get, server, tmp_path, ranges, totals, size):
    """A server may ignore ranges, or not say the total; a part may be as long as the file, or
    longer."""
    server.ranges, server.totals = ranges, totals
    (tmp_path / "file.part").write_bytes((CONTENT + b"and more of it")[:size])
    get()
    assert contents(tmp_path) == {"file": CONTENT}


@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT)}])
def test_a_part_that_is_complete_is_not_sent_again(get, server, tmp_path, known):
    (tmp_path / "file.part").write_bytes(CONTENT)
    get(**known)
    assert contents(tmp_path) == {"file": CONTENT}
    assert server.sent == [] and len(server.asked) == (not known)


@pytest.mark.parametrize(
    ("expected", "problem"),
    [
        ({"sha256": "0" * 64}, f"its SHA-256 is {SHA256}, not {'0' * 64}"),
        ({"git_blob_id": "0" * 40}, f"its git blob id is [0-9a-f]{{40}}, not {'0' * 40}"),
        ({"check": lambda path: int(path.read_text("latin-1"))}, "invalid literal for int"),
        ({"check": lambda path: gzip.decompress(path.read_bytes())}, "Not a gzipped file"),
    ],
)
def test_a_file_is_checked_in_every_way_that_is_known(get, tmp_path, expected, problem):
    with pytest.raises(ValueError, match=f"/file did not give the expected file: {problem}"):
        get(**expected)
    assert contents(tmp_path) == {"file.rejected": CONTENT}


def test_a_wrong_file_is_kept_aside_in_place_of_an_older_one(get, server, tmp_path):
    for wrong in (b"wrong", b"also wrong"):
        server.content["file"] = wrong
        with pytest.raises(ValueError, match=r"kept aside as .*file\.rejected\. Run this again"):
            get()
        assert contents(tmp_path) == {"file.rejected": wrong}
    server.content["file"] = CONTENT
    get()
    assert contents(tmp_path) == {"file.rejected": b"also wrong", "file": CONTENT}


def test_a_part_of_another_file_is_found_out_and_kept_aside(get, tmp_path):
    (tmp_path / "file.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match="did not give the expected file: its SHA-256 is"):
        get()
    assert contents(tmp_path) == {"file.rejected": b"something else" + CONTENT[14:]}
    get()
    assert contents(tmp_path)["file"] == CONTENT


def test_a_range_that_was_not_asked_for_is_not_added(get, server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:10])
    server.shift = 3
    with pytest.raises(ConnectionError, match="asked for what follows byte 10, the server sent"):
        get()
    assert contents(tmp_path) == {"file.part": CONTENT[:10]}


def test_another_file_in_the_place_is_left_alone_and_nothing_is_asked(get, server, tmp_path):
    (tmp_path / "file").write_bytes(b"my own")
    with pytest.raises(ValueError, match="file is there, but .*; it was left alone: move it away"):
        get()
    assert contents(tmp_path) == {"file": b"my own"} and server.asked == []
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "nothing", Expected(size=1))


def test_a_missing_file_names_the_address_what_is_known_and_the_manual_way(get, server, tmp_path):
    server.content.clear()
    known = f"file (600,000 bytes, SHA-256 {SHA256}) by hand and save it as {tmp_path / 'file'}"
    with pytest.raises(ConnectionError, match=f"{server.url}/file: .*404") as error:
        get(size=len(CONTENT))
    assert known in str(error.value)
    assert contents(tmp_path) == {}


def test_a_server_that_refuses_is_not_asked_for_ever(get, server, tmp_path):
    server.refuses = True
    (tmp_path / "file.part").write_bytes(CONTENT[:10])
    with pytest.raises(ConnectionError, match=f"could not download {server.url}/file: .*416"):
        get()
    assert len(server.asked) == 2  # with the range, and without


def test_an_address_without_a_server_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]  # nothing answers there once it is closed
    for url in (f"http://127.0.0.1:{port}/file", "no address"):
        with pytest.raises(ConnectionError, match=f"could not download {url}: .* by hand"):
            fetch(url, tmp_path / "file", progress=False)


OTHER = random.Random(1).randbytes(600_000)  # the next version
TAGS = {"ETag": '"one"'}
DATES = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}


def cut(get, server, headers, **expected):
    """Leaves a part of 250,000 bytes, which came with these headers."""
    server.cut, server.headers = 250_000, headers
    with pytest.raises(ConnectionError, match="ended after 250000"):
        get(**expected)
    server.cut = None


@pytest.mark.parametrize("headers", [TAGS, DATES])
@pytest.mark.parametrize("joins", [False, True])
def test_a_part_of_an_older_version_is_not_completed(get, server, tmp_path, headers, joins):
    """Whether the server honours If-Range, or would join two versions."""
    cut(get, server, headers, sha256=None)
    assert set(contents(tmp_path)) == {"file.part", "file.part.json"}
    server.content["file"], server.joins = OTHER, joins
    server.headers = {
        name: value.replace("one", "two").replace("01", "02") for name, value in headers.items()
    }
    get(sha256=None)
    assert contents(tmp_path) == {"file": OTHER}
    assert server.sent[-1] == len(OTHER)


@pytest.mark.parametrize("headers", [TAGS, DATES])
def test_a_part_of_the_same_version_is_resumed(get, server, tmp_path, headers):
    cut(get, server, headers, sha256=None)
    get(sha256=None)
    assert contents(tmp_path) == {"file": CONTENT} and server.sent == [250_000, 350_000]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
@pytest.mark.parametrize("note", [None, "{", "[]", '{"url": 3, "version": 4}', "[" * 10_000])
def test_a_part_of_an_unknown_version_is_resumed_only_if_a_digest_will_tell(
    get, server, tmp_path, headers, note
):
    cut(get, server, headers, size=len(CONTENT), sha256=None)
    if note is not None:
        (tmp_path / "file.part.json").write_text(note)
    server.content["file"] = OTHER
    get(size=len(OTHER), sha256=None)
    assert contents(tmp_path) == {"file": OTHER} and server.sent[1:] == [len(OTHER)]


def test_what_another_server_calls_a_version_does_not_count(get, server, tmp_path):
    cut(get, server, TAGS, sha256=None)
    server.content["mirror"] = OTHER
    fetch(f"{server.url}/mirror", tmp_path / "file", progress=False)
    assert contents(tmp_path) == {"file": OTHER}


@pytest.mark.parametrize("lengths", [True, False])
def test_no_more_is_written_than_is_expected(get, server, tmp_path, lengths):
    server.lengths = lengths
    for options in ({"expected": Expected(size=300_000)}, {"limit": 300_000}):
        with pytest.raises(ValueError, match=r"it has more than 300,000 bytes; .*kept"):
            fetch(f"{server.url}/file", tmp_path / "file", progress=False, **options)
        there = contents(tmp_path)
        assert set(there) <= {"file.rejected"} and all(len(x) <= 300_000 for x in there.values())


def test_a_full_disk_is_one_clear_error_and_keeps_what_came(get, server, tmp_path, monkeypatch):
    def write(file, chunk):
        if file.tell():
            raise download._Unwritable("No space left on device")
        file.write(chunk)

    with monkeypatch.context() as patch:
        patch.setattr(download, "_write", write)
        with pytest.raises(
            OSError, match=r"file\.part could not be written: No space .* make room"
        ):
            get()
    assert contents(tmp_path) == {"file.part": CONTENT[: download.CHUNK]}
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
        with pytest.raises(OSError, match="it needs 337,856 bytes, the disk has 10"):
            get()
    get()
    assert contents(tmp_path) == {"file": CONTENT}


def test_writing_fails_as_the_system_says(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no full disk to try")
    with open("/dev/full", "wb", buffering=0) as file:
        with pytest.raises(download._Unwritable, match="No space left on device"):
            download._write(file, b"x")


@pytest.mark.parametrize("name", ["file.part", "file.part.json"])
def test_a_link_in_place_of_the_part_is_not_written_through(get, tmp_path, name):
    (tmp_path / "other").write_bytes(b"precious")
    for target in ("other", "nowhere"):
        (tmp_path / name).symlink_to(tmp_path / target)
        with pytest.raises(
            ValueError, match=f"{name} must be a file of an earlier .* link, a folder"
        ):
            get()
        (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} must be a file of an earlier download"):
        get()
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_a_link_in_place_of_what_is_kept_aside_is_replaced(get, tmp_path):
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "file.rejected").symlink_to(tmp_path / "other")
    with pytest.raises(ValueError, match="kept aside"):
        get(sha256="0" * 64)
    assert (tmp_path / "other").read_bytes() == b"precious"
    assert (tmp_path / "file.rejected").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/file",
        "http://127.0.0.1.example.org/file",
        "ftp://localhost/file",
        "file:///etc/passwd",
        "data:text/plain,file",
        "//localhost/file",
    ],
)
def test_only_https_is_fetched(get, server, tmp_path, url):
    with pytest.raises(ConnectionError, match="the address must begin with https://"):
        fetch(url, tmp_path / "file", progress=False)
    server.sends = url
    with pytest.raises(ConnectionError, match=f"could not download {server.url}/file: "):
        get()
    assert contents(tmp_path) == {} and len(server.asked) <= 10


def test_an_answer_that_is_no_file_is_refused(get, server, tmp_path):
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(ConnectionError, match="sent it packed"):
        get()
    server.headers, server.sends = {}, "https://\x1b[2J/"
    with pytest.raises(ConnectionError) as error:
        get()
    assert str(error.value).isprintable()


def test_a_folder_or_a_pipe_in_the_place_is_left_alone(get, tmp_path):
    os.mkfifo(tmp_path / "file")
    with pytest.raises(ValueError, match="file must be a file, but is a pipe"):
        get()


def test_the_blob_id_is_gits(tmp_path):
    path = tmp_path / "greeting"
    path.write_bytes(b"hello\n")
    try:
        printed = subprocess.run(["git", "hash-object", path], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert git_blob_id(path) == printed.stdout.decode().strip()


@pytest.fixture(params=["zip", "tar", "tar.gz", "tar.xz"])
def pack(request, tmp_path):
    """Writes an archive of some kind with the given members, and returns its path."""

    def pack(members):
        path = tmp_path / f"archive.{request.param}"
        if request.param == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
                for name, content in members.items():
                    file.writestr(name, content)
            return path
        with tarfile.open(path, "w:" + request.param[4:]) as file:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        return path

    return pack


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("top", ["", "top/", "./", "other name/"])
def test_members_are_unpacked_whatever_the_top_folder_is_called(pack, tmp_path, top):
    members = {
        "images/1.jpeg": b"one",
        "images/2.jpeg": CONTENT[:100_000],
        "list.json": b"[]",
        "x": b"",
    }
    archive = pack({top + name: content for name, content in members.items()})
    check_archive(archive)
    folder = tmp_path / "new"
    paths = unpack(archive, folder, wanted=["images", "list.json"], progress=False)
    assert paths == [folder / "images", folder / "list.json"]
    del members["x"]  # not wanted
    assert tree(folder) == members


def test_what_is_there_is_left_alone_and_what_is_missing_comes(pack, tmp_path):
    archive = pack({"top/a": b"new a", "top/b": b"new b"})
    folder = tmp_path / "folder"
    (folder / f"{archive.name}.unpacking" / "top").mkdir(parents=True)
    (folder / f"{archive.name}.unpacking" / "top" / "b").write_bytes(b"half")  # interrupted
    (folder / "a").write_bytes(b"my own")
    unpack(archive, folder, wanted=["a", "b"], progress=False)
    assert {name: (folder / name).read_bytes() for name in "ab"} == {"a": b"my own", "b": b"new b"}
    archive.unlink()
    unpack(archive, folder, wanted=["a", "b"], progress=False)  # all there: not even opened


@pytest.mark.parametrize("name", ["../outside", "top/../../outside", "/outside", "..\\outside"])
def test_an_archive_that_reaches_outside_is_refused(pack, tmp_path, name):
    archive = pack({"a": b"good", name: b"evil"})
    with pytest.raises(ValueError, match="must not reach outside .* has the member .*outside'"):
        unpack(archive, tmp_path / "folder", wanted=["a"], progress=False)
    assert tree(tmp_path) == {archive.name: archive.read_bytes()}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["../../secret", "b"])
def test_a_link_is_refused_wherever_it_leads(tmp_path, kind, target):
    """Long chains of links have led outside past Python's own filter (CVE-2025-4517)."""
    (tmp_path / "secret").write_bytes(b"not to be overwritten")
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as file:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = kind, target
        file.addfile(link)
        through = tarfile.TarInfo("a")
        through.size = 4
        file.addfile(through, io.BytesIO(b"evil"))
    with pytest.raises(
        ValueError, match="archive.tar could not .* files and folders only, but 'a'"
    ):
        unpack(archive, tmp_path / "folder", wanted=["a"], progress=False)
    assert (tmp_path / "secret").read_bytes() == b"not to be overwritten"
    assert not any((tmp_path / "folder").iterdir())


def test_a_damaged_archive_is_named_and_leaves_nothing(pack, tmp_path):
    archive = pack({"a": CONTENT[:100_000], "b": CONTENT[:100_000]})
    content = bytearray(archive.read_bytes())
    if archive.suffix == ".zip":
        content[1000] ^= 1  # its directory is at the end
    else:
        del content[len(content) // 2 :]
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=f"{archive.name} could not be unpacked: .*Move it away"):
        unpack(archive, tmp_path / "folder", wanted=["a", "b"], progress=False)
    assert os.listdir(tmp_path / "folder") == []


def test_a_missing_member_is_named_with_those_there(pack, tmp_path):
    archive = pack({"top/deep/a": b"", "b": b""})
    with pytest.raises(ValueError, match=r"must hold a, .* but has \['b', 'top'\] there"):
        unpack(archive, tmp_path / "folder", wanted=["a"], progress=False)
    assert os.listdir(tmp_path / "folder") == []


@pytest.mark.parametrize("content", [b"", b"<html>sign in first</html>", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "archive.zip"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="neither a zip nor a tar archive"):
        check_archive(path)
    with pytest.raises(ValueError, match="archive.zip could not be unpacked"):
        unpack(path, tmp_path / "folder", wanted=["a"], progress=False)
