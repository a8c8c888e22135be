"""MM-IMDB's download: features that open and have every film, posters and plots unpacked.

A small set in the real layout, from a server on this machine (conftest.py), and the real one.
"""

import io
import json
import os
import tarfile

import h5py
import numpy as np
import pytest

from deq_fusion.datasets.imdb.prepare import (
    ARCHIVE,
    FEATURES,
    check_features,
    check_raw,
    download,
    main,
)
from unit_tests.real_data import real

SPLIT = {"train": ["0000001", "0000003"], "dev": ["0000002"], "test": ["0000005"]}
FILMS = 4


def features(folder, **changes):
    """Writes features of four films, with changes (None leaves a dataset out); their bytes."""
    arrays = {
        "features": np.zeros((FILMS, 300), np.float32),
        "vgg_features": np.zeros((FILMS, 4096), np.float16),
        "genres": np.zeros((FILMS, 23), np.int32),
        "imdb_ids": np.array([b"%07d" % i for i in range(FILMS)]),
    }
    path = folder / "written.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in (arrays | changes).items():
            if array is not None:
                file[name] = array
    content = path.read_bytes()
    path.unlink()
    return content


def raw(*, top="mmimdb", split=SPLIT, without=()):
    """Returns an archive of posters and plots."""
    files = {"split.json": json.dumps(split).encode(), "README": b"read me"}
    for film in sum(SPLIT.values(), []):
        files |= {f"dataset/{film}.jpeg": b"poster", f"dataset/{film}.json": b"{}"}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        for name in files.keys() - set(without):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(files[name])
            file.addfile(member, io.BytesIO(files[name]))
    return archive.getvalue()


@pytest.fixture
def get(server, tmp_path):
    """Downloads into a new folder, which it returns."""
    server.content = {FEATURES: features(tmp_path), ARCHIVE: raw()}

    def get(**options):
        options = {"films": FILMS} | options
        download(tmp_path / "imdb", base_url=server.url, progress=False, **options)
        return tmp_path / "imdb"

    return get


def test_features_alone_are_fetched_unless_asked(get, server):
    folder = get()
    assert os.listdir(folder) == [FEATURES]
    assert (folder / FEATURES).read_bytes() == server.content[FEATURES]


@pytest.mark.parametrize("top", ["mmimdb", "another-1.0"])
def test_posters_and_plots_are_unpacked_whatever_their_top_folder(get, server, top):
    server.content[ARCHIVE] = raw(top=top)
    folder = get(raw=True)
    assert sorted(os.listdir(folder)) == sorted([FEATURES, ARCHIVE, "dataset", "split.json"])
    assert len(os.listdir(folder / "dataset")) == 2 * FILMS
    assert json.loads((folder / "split.json").read_text()) == SPLIT
    assert check_raw(folder, films=FILMS) == {"train": 2, "dev": 1, "test": 1}


def test_nothing_is_fetched_twice_even_without_the_archive(get, server):
    (get(raw=True) / ARCHIVE).unlink()
    server.asked.clear()
    get(raw=True)
    assert server.asked == []


def test_a_cut_download_is_resumed(get, server):
    whole, server.cut = len(server.content[FEATURES]), 30_000
    server.headers["ETag"] = '"first"'
    with pytest.raises(ConnectionError, match=f"{FEATURES}: .* ended after 30000 .* to resume"):
        get()
    server.cut = None
    get()
    assert server.sent == [30_000, whole - 30_000]


def test_what_is_cut_off_at_the_server_is_kept_aside(get, server):
    server.content[FEATURES] = server.content[FEATURES][:-1000]
    with pytest.raises(ValueError, match="did not give .* must be an HDF5 file, but .*truncated"):
        get()
    server.content = {FEATURES: b"<html>", ARCHIVE: b"<html>"}
    with pytest.raises(ValueError, match="did not give .* must be an HDF5 file, but"):
        get()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vgg_features": None}, r"must have the datasets .*, got .*: no \['vgg_features'\]"),
        ({"features": np.zeros((FILMS, 200))}, r"features must .* \(4, 300\), got \(4, 200\)"),
        ({"genres": np.zeros((FILMS - 1, 23))}, r"genres must .* \(4, 23\), got \(3, 23\)"),
        ({"images": np.zeros((FILMS + 1, 3, 2, 2))}, r"images must .* got \(5, 3, 2, 2\)"),
        ({"features": h5py.SoftLink("/none")}, r"got .*: no \['features'\]"),
        ({"features": np.float32(3)}, r"features must .* got \(\)"),
        ({"features": h5py.Empty("f4")}, r"features must .* got \(\)"),
    ],
)
def test_features_must_have_their_datasets_for_every_film(get, server, tmp_path, changes, message):
    server.content[FEATURES] = features(tmp_path, **changes)
    for films in (FILMS, None):
        with pytest.raises(ValueError, match=message):
            get(films=films)


def test_features_that_were_never_written_are_kept_aside(get, server, tmp_path):
    path = tmp_path / "declared.hdf5"
    path.write_bytes(features(tmp_path, vgg_features=None))
    with h5py.File(path, "r+") as file:
        file.create_dataset("vgg_features", (FILMS, 4096), "f2")
    server.content[FEATURES] = path.read_bytes()
    with pytest.raises(ValueError, match="did not give .*vgg_features in .* must be written to"):
        get()


@pytest.mark.parametrize("options", [[], ["--raw"]])
def test_a_file_in_the_folders_place_is_one_line(get, server, tmp_path, capsys, options):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(SystemExit, match="1"):
        run(server, tmp_path / "file", *options)
    assert capsys.readouterr().err == (
        f"{tmp_path / 'file'} must be a folder, but there is a file; choose another\n"
    )
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_damaged_archive_is_one_line_and_kept_aside(get, server, tmp_path, capsys):
    content = bytearray(server.content[ARCHIVE])
    content[-6] ^= 1  # in the checksum at its end
    server.content[ARCHIVE] = bytes(content)
    with pytest.raises(SystemExit, match="1"):
        run(server, tmp_path / "imdb", "--raw")
    *_, error = capsys.readouterr().err.splitlines()  # bars come before it
    assert f"{ARCHIVE} did not give the expected file: it is neither" in error
    assert sorted(os.listdir(tmp_path / "imdb")) == [f"{ARCHIVE}.rejected", FEATURES]


def test_the_number_of_films_is_mm_imdbs_unless_said(get, server):
    with pytest.raises(ValueError, match=r"must have the shape \(25959, 300\), got \(4, 300\)"):
        get(films=25_959)
    get(films=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"without": ["split.json"]}, f"{ARCHIVE} must hold split.json, at its top or one folder"),
        ({"without": ["dataset/0000002.json"]}, "1 files are missing, the first is 0000002.json"),
        ({"split": {"train": ["0000001"]}}, "must name 4 films, each once; it has 1 ids"),
        ({"split": SPLIT | {"dev": ["0000001"]}}, "it has 4 ids, 3 of them different"),
        ({"split": ["0000001"]}, "split.json must map names of parts to lists of ids"),
        ({"split": {"train": [["1"]]}}, "split.json must map names of parts to lists of ids"),
        ({"split": {"train": "0000001"}}, "split.json must map names of parts to lists of ids"),
        ({"split": {"train": ["\x1b[2J"] * 4}}, "it has 4 ids, 1 of them different"),
    ],
)
def test_posters_and_plots_must_be_whole(get, server, options, message):
    server.content[ARCHIVE] = raw(**options)
    with pytest.raises(ValueError, match=message):
        get(raw=True)


def test_what_is_no_archive_is_kept_aside(get, server, tmp_path):
    server.content[ARCHIVE] = b"<html>sign in first</html>"
    with pytest.raises(ValueError, match=f"{ARCHIVE} did not give .* neither a zip nor a tar"):
        get(raw=True)
    assert sorted(os.listdir(tmp_path / "imdb")) == [f"{ARCHIVE}.rejected", FEATURES]


def run(server, folder, *options):
    main(["--data-dir", str(folder), "--base-url", server.url, "--films", str(FILMS), *options])


def test_the_command_says_what_is_there(get, server, tmp_path, capsys):
    run(server, tmp_path / "imdb", "--raw")
    printed = capsys.readouterr().out
    assert f"{FEATURES}: features (4, 300) float32, vgg_features (4, 4096) float16" in printed
    assert "a poster and a plot for each film (2 train, 1 dev, 1 test)" in printed
    assert "no checksums are known for this set" in printed
    server.asked.clear()
    run(server, tmp_path / "imdb", "--check")
    assert capsys.readouterr().out == printed and server.asked == []


def test_a_check_fetches_nothing_and_fails_where_nothing_is(get, server, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        run(server, tmp_path, "--check")
    assert f"neither {FEATURES} nor posters and plots are in" in capsys.readouterr().err
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(SystemExit, match="1"):
        run(server, tmp_path, "--check")
    assert "must have both a folder `dataset` and a file" in capsys.readouterr().err
    assert server.asked == []


def test_the_help_says_what_the_command_does(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "resumes" in text and "No checksums are known" in text
    assert "https://archive.org/download/mmimdb" in text and "25,959 films" in text


@pytest.mark.slow
def test_the_real_set_is_whole(capsys):
    folder = real(f"imdb/{FEATURES}").parent
    assert check_features(folder / FEATURES, films=5440)["genres"] == "(5440, 23) int8"
    assert check_raw(folder, films=5440) == {"train": 3284, "dev": 517, "test": 1639}
    with pytest.raises(SystemExit, match="1"):
        main(["--data-dir", str(folder), "--check"])
    assert "(25959, 300), got (5440, 300)" in capsys.readouterr().err
