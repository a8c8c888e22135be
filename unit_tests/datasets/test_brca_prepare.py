"""The download of BRCA and ROSMAP: complete, verified file by file, and by command.

The server is conftest.py's; how a download resumes is tested in test_download.py.
"""

import hashlib

import pytest

from deq_fusion.datasets.brca.prepare import FILES, download, main

CONTENT = {
    "1_tr.csv": b"".join(b"%d,%d\n" % (i, i * i) for i in range(20_000)),
    "labels_tr.csv": b"0\n1\n",
}
IDS = {
    name: hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
    for name, content in CONTENT.items()
}


@pytest.fixture
def server(server):
    server.content |= CONTENT
    return server


def get(server, folder, files=IDS):
    return download(folder, base_url=server.url, files=files, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_downloads_all_files_into_a_new_folder(server, tmp_path):
    folder = tmp_path / "new" / "brca"
    assert get(server, folder) == [folder / name for name in CONTENT]
    assert contents(folder) == CONTENT


def test_a_second_call_asks_for_nothing(server, tmp_path):
    get(server, tmp_path)
    server.asked.clear()
    get(server, tmp_path)
    assert server.asked == []


def test_a_cut_download_is_resumed(server, tmp_path):
    server.cut = 100_000
    with pytest.raises(ConnectionError, match=r"ended after 100000 of \d+ bytes.*again to resume"):
        get(server, tmp_path)
    assert contents(tmp_path) == {"1_tr.csv.part": CONTENT["1_tr.csv"][:100_000]}
    server.cut = None
    get(server, tmp_path)
    assert ("/data/1_tr.csv", "bytes=100000-") in server.asked
    assert contents(tmp_path) == CONTENT


def test_a_checksum_mismatch_is_kept_aside_and_leaves_what_was_good(server, tmp_path):
    server.content["labels_tr.csv"] = b"0\n2\n"
    with pytest.raises(ValueError, match=f"not {IDS['labels_tr.csv']}; .*Run this again"):
        get(server, tmp_path)
    good = {"1_tr.csv": CONTENT["1_tr.csv"]}
    assert contents(tmp_path) == good | {"labels_tr.csv.rejected": b"0\n2\n"}


def test_another_file_in_the_place_is_left_alone(server, tmp_path):
    (tmp_path / "labels_tr.csv").write_bytes(b"my own")
    with pytest.raises(ValueError, match="labels_tr.csv is there, .* move it away"):
        get(server, tmp_path)
    assert contents(tmp_path)["labels_tr.csv"] == b"my own"


def test_a_missing_file_names_the_address_and_the_manual_way(server, tmp_path):
    with pytest.raises(
        ConnectionError, match=f"{server.url}/9_tr.csv: .*404.*{'0' * 40}.* by hand"
    ):
        get(server, tmp_path, {"9_tr.csv": "0" * 40})
    assert contents(tmp_path) == {}


def test_without_an_id_a_file_must_parse(server, tmp_path):
    server.content["1_te.csv"] = b"<html>sign in first</html>"
    with pytest.raises(ValueError, match="1_te.csv did not give the expected file: .*line 1"):
        get(server, tmp_path, dict.fromkeys(["labels_tr.csv", "1_te.csv"]))
    assert contents(tmp_path)["labels_tr.csv"] == CONTENT["labels_tr.csv"]
    assert "1_te.csv" not in contents(tmp_path)


def test_names_of_features_without_an_id_must_be_there(server, tmp_path):
    server.content |= {"1_featname.csv": b"TP53\nBRCA1\n", "2_featname.csv": b""}
    with pytest.raises(ValueError, match="2_featname.csv did not .* it is empty"):
        get(server, tmp_path, dict.fromkeys(["1_featname.csv", "2_featname.csv"]))
    assert contents(tmp_path)["1_featname.csv"] == b"TP53\nBRCA1\n"


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
    assert "resumes" in text and "deq-fusion prepare brca" in text
    assert "https://raw.githubusercontent.com/txWang/MOGONET/main/NAME" in text
