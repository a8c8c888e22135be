"""The download: complete, resumed, verified, and repeated, against a server on this machine."""

import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datasets.brca.prepare import FILES, download, git_blob_id, main

CONTENT = {
    "1_tr.csv": b"".join(b"%d,%d\n" % (i, i * i) for i in range(20_000)),
    "labels_tr.csv": b"0\n1\n",
}


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content` with ranges; `server.cut` bytes at most, if that is set."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Range"]))
        content = self.server.content.get(self.path.rpartition("/")[2])
        if content is None:
            return self.send_error(404)
        start = 0
        if self.headers["Range"] and self.server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = None if self.server.cut is None else start + self.server.cut
        self.wfile.write(content[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.ranges, server.cut, server.asked = dict(CONTENT), True, None, []
        server.url = f"http://127.0.0.1:{server.server_port}/data"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def files(tmp_path):
    """The expected git blob ids, found by git's own formula on the served content."""
    ids = {}
    for name, content in CONTENT.items():
        (tmp_path / "copy").write_bytes(content)
        ids[name] = git_blob_id(tmp_path / "copy")
    (tmp_path / "copy").unlink()
    return ids


def get(server, folder, files):
    return download(folder, base_url=server.url, files=files, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_blob_id_is_gits(tmp_path):
    path = tmp_path / "greeting"
    path.write_bytes(b"hello\n")
    try:
        printed = subprocess.run(["git", "hash-object", path], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert git_blob_id(path) == printed.stdout.decode().strip()


def test_downloads_all_files_into_a_new_folder(server, files, tmp_path):
    folder = tmp_path / "new" / "brca"
    assert get(server, folder, files) == [folder / name for name in CONTENT]
    assert contents(folder) == CONTENT


def test_a_second_call_asks_for_nothing(server, files, tmp_path):
    get(server, tmp_path, files)
    server.asked.clear()
    get(server, tmp_path, files)
    assert server.asked == []


def test_a_cut_download_says_so_and_is_resumed(server, files, tmp_path):
    server.cut = 100_000
    with pytest.raises(ConnectionError, match=r"ended after 100000 of \d+ bytes.*again to resume"):
        get(server, tmp_path, files)
    assert contents(tmp_path) == {"1_tr.csv.part": CONTENT["1_tr.csv"][:100_000]}
    server.cut = None
    get(server, tmp_path, files)
    assert ("/data/1_tr.csv", "bytes=100000-") in server.asked
    assert contents(tmp_path) == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("size", [10, len(CONTENT["1_tr.csv"]), len(CONTENT["1_tr.csv"]) + 10])
def test_any_partial_file_ends_complete(server, files, tmp_path, ranges, size):
    """A server may ignore ranges, and a part may be as long as the file, or longer."""
    server.ranges = ranges
    whole = CONTENT["1_tr.csv"] + b"and more of it"
    (tmp_path / "1_tr.csv.part").write_bytes(whole[:size])
    get(server, tmp_path, files)
    assert contents(tmp_path) == CONTENT


def test_a_part_of_another_file_is_found_out_and_not_kept(server, files, tmp_path):
    (tmp_path / "1_tr.csv.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match="did not give the expected file: its git blob id is"):
        get(server, tmp_path, files)
    assert contents(tmp_path) == {}
    get(server, tmp_path, files)
    assert contents(tmp_path) == CONTENT


def test_a_checksum_mismatch_keeps_what_was_good(server, files, tmp_path):
    server.content["labels_tr.csv"] = b"0\n2\n"
    with pytest.raises(ValueError, match=f"not {files['labels_tr.csv']}.*Run this again"):
        get(server, tmp_path, files)
    assert contents(tmp_path) == {"1_tr.csv": CONTENT["1_tr.csv"]}


def test_another_file_in_the_place_is_left_alone(server, files, tmp_path):
    (tmp_path / "labels_tr.csv").write_bytes(b"my own")
    with pytest.raises(ValueError, match="labels_tr.csv is there, .* move it away"):
        get(server, tmp_path, files)
    assert contents(tmp_path)["labels_tr.csv"] == b"my own"


def test_a_missing_file_names_the_address_and_the_manual_way(server, tmp_path):
    files = {"9_tr.csv": "0" * 40}
    with pytest.raises(
        ConnectionError, match=f"{server.url}/9_tr.csv: .*404.*{'0' * 40}.* by hand"
    ):
        get(server, tmp_path, files)
    assert contents(tmp_path) == {}


def test_a_dead_server_names_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"  # bound, but nothing answers once closed
    with pytest.raises(ConnectionError, match=f"could not download {url}/1_tr.csv"):
        download(tmp_path, base_url=url, files={"1_tr.csv": None}, progress=False)


def test_without_an_id_a_file_must_parse(server, tmp_path):
    server.content["1_te.csv"] = b"<html>sign in first</html>"
    with pytest.raises(ValueError, match="1_te.csv did not give the expected file: .*line 1"):
        get(server, tmp_path, dict.fromkeys(["labels_tr.csv", "1_te.csv"]))
    assert contents(tmp_path) == {"labels_tr.csv": CONTENT["labels_tr.csv"]}


def test_an_unknown_set_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"unknown set 'LUAD'; choose from \['BRCA', 'ROSMAP'\]"):
        download(tmp_path, name="LUAD")


def test_the_command_downloads_and_says_what_it_could_check(server, tmp_path, capsys):
    server.content = dict.fromkeys(FILES["ROSMAP"], b"0\n1\n")
    main(["--data-dir", str(tmp_path), "--name", "ROSMAP", "--base-url", server.url])
    assert contents(tmp_path) == server.content
    assert "no checksums are known for this set" in capsys.readouterr().out


def test_the_command_ends_with_the_message_of_a_failure(server, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["--data-dir", str(tmp_path), "--base-url", server.url + "/"])
    error = capsys.readouterr().err
    assert f"{server.url}/1_tr.csv did not give the expected file" in error
    assert "Traceback" not in error


def test_the_help_says_what_the_command_does(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "resumes" in text and "python -m datasets.brca.prepare" in text
    assert "https://raw.githubusercontent.com/txWang/MOGONET/main/NAME" in text
