"""Feature extraction: the encoders' own numbers in MM-IMDB's layout, and an interrupted run that
ends in the same bytes."""

import json

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.datasets.files.images import read_image
from deq_fusion.datasets.files.text import WordPieces
from deq_fusion.datasets.imdb.films import read_films
from deq_fusion.datasets.imdb.raw import train_tokens
from deq_fusion.examples.imdb import extract_features
from deq_fusion.unimodals.pretrained import BertEncoder, ResNetEncoder

Image = pytest.importorskip("PIL.Image")
transformers = pytest.importorskip("transformers")

SPLIT = {"train": ["t5", "t1", "t3"], "dev": ["d2"], "test": ["e9", "e1", "e4"]}
IDS = sum(SPLIT.values(), [])


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "films"
    (folder / "dataset").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, film in enumerate(IDS):
        record = {"plot": "the film " * number + film, "genres": ["War", "Drama"][: 1 + number % 2]}
        (folder / "dataset" / f"{film}.json").write_text(json.dumps(record))
        pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "dataset" / f"{film}.jpeg")
    (folder / "split.json").write_text(json.dumps(SPLIT))
    return folder


def run(folder, output, *options):
    common = ["--size", "32", "--length", "12", "--batch-size", "2", "--workers", "2"]
    given = ["--data-dir", str(folder), "--output", str(output), "--no-progress"]
    extract_features.main([*given, *common, *options])
    return output


def test_the_file_has_mm_imdbs_layout(folder, tmp_path, capsys):
    path = run(folder, tmp_path / "out.hdf5")
    assert "7 films in" in capsys.readouterr().out
    films = read_films(folder)
    with h5py.File(path) as file:
        assert set(file) == {"features", "vgg_features", "genres", "imdb_ids", "row_crc32"}
        assert file["features"].shape == (7, 128) and file["features"].dtype == np.float32
        assert file["vgg_features"].shape == (7, 256)
        assert [film.decode() for film in file["imdb_ids"]] == IDS
        np.testing.assert_array_equal(file["genres"][:], films.labels.astype(np.int8), strict=True)
        assert json.loads(file.attrs["splits"]) == {"train": 3, "dev": 1, "test": 3}
        assert list(file.attrs["target_names"]) == films.genres == ["War", "Drama"]
        assert {file[name].chunks for name in set(file) - {"row_crc32"}} == {None}


def test_features_are_those_of_the_untrained_encoders(folder, tmp_path):
    path = run(folder, tmp_path / "out.hdf5", "--seed", "3")
    films = read_films(folder)
    tokens = train_tokens(films)
    torch.manual_seed(3)
    text = BertEncoder(vocabulary=len(tokens), length=12).eval()
    image = ResNetEncoder().eval()
    with h5py.File(path) as file, torch.no_grad():
        for row, plot in enumerate(films.plots):  # one by one, unpadded
            expected = text(torch.from_numpy(tokens.encode([plot], length=12)))[0]
            np.testing.assert_allclose(file["features"][row], expected, rtol=1e-4, atol=1e-5)
            expected = image(torch.from_numpy(read_image(films.posters[row], 32))[None])[0]
            np.testing.assert_allclose(file["vgg_features"][row], expected, rtol=1e-4, atol=1e-4)


def test_features_are_those_of_the_given_weights(folder, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    films = read_films(folder)
    tokens = train_tokens(films, vocabulary=40)
    bert = BertEncoder(vocabulary=len(tokens), width=16, length=12).eval()
    resnet = ResNetEncoder(widths=(4, 8), depths=(1, 1)).eval()
    bert.model.save_pretrained(tmp_path / "bert")
    resnet.model.save_pretrained(tmp_path / "resnet")
    transformers.utils.logging.enable_progress_bar()
    names = sorted(tokens._tokenizer.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(name for name, _ in names))
    weights = ["--text-weights", str(tmp_path / "bert"), "--image-weights"]
    path = run(folder, tmp_path / "out.hdf5", *weights, str(tmp_path / "resnet"))
    numbers = torch.from_numpy(WordPieces.load(tmp_path / "bert").encode(films.plots, length=12))
    images = torch.from_numpy(np.stack([read_image(poster, 32) for poster in films.posters]))
    with h5py.File(path) as file, torch.no_grad():
        np.testing.assert_allclose(file["features"][:], bert(numbers), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(file["vgg_features"][:], resnet(images), rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_resumes_to_the_same_bytes(folder, tmp_path, monkeypatch):
    whole = run(folder, tmp_path / "whole.hdf5").read_bytes()
    output, reads = tmp_path / "out.hdf5", []

    def read_and_stop(path, size):
        if path.stem == "e9":
            raise KeyboardInterrupt
        reads.append(path.stem)
        return read_image(path, size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extract_features, "read_image", read_and_stop)
        run(folder, output)
    assert not output.exists() and set(reads) >= set(IDS[:4])
    for film in IDS[:4]:  # these are done and not read again
        (folder / "dataset" / f"{film}.jpeg").write_bytes(b"")
    assert run(folder, output).read_bytes() == whole
    assert run(folder, output).read_bytes() == whole  # and once more: nothing to do
    assert sorted(path.name for path in tmp_path.glob("*.hdf5*")) == ["out.hdf5", "whole.hdf5"]


def test_other_settings_are_refused(folder, tmp_path):
    output = run(folder, tmp_path / "out.hdf5")
    with pytest.raises(SystemExit, match="out.hdf5 was made with the settings"):
        run(folder, output, "--seed", "1")


def test_float16_is_the_rounded_float32(folder, tmp_path):
    single = run(folder, tmp_path / "single.hdf5")
    half = run(folder, tmp_path / "half.hdf5", "--dtype", "float16")
    with h5py.File(single) as first, h5py.File(half) as second:
        for name in ("features", "vgg_features"):
            np.testing.assert_array_equal(
                second[name][:], first[name][:].astype(np.float16), strict=True
            )


def test_features_that_are_not_finite_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ResNetEncoder, "forward", lambda self, x: torch.full((len(x), 256), 7e4))
    with pytest.raises(SystemExit, match="vgg_features of .*t5.* finite as float16, but"):
        run(folder, tmp_path / "out.hdf5", "--dtype", "float16")


def test_bad_input_ends_the_command_with_one_message(folder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="no file .*split.json"):
        run(tmp_path, tmp_path / "out.hdf5")
    with pytest.raises(SystemExit, match="has no config.json and no model.safetensors"):
        run(folder, tmp_path / "out.hdf5", "--image-weights", str(tmp_path))
    with pytest.raises(SystemExit):
        run(folder, tmp_path / "out.hdf5", "--batch-size", "0")
    assert "--batch-size must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(folder, tmp_path / "out.hdf5", "--help")
    assert "WITHOUT WEIGHTS THE" in capsys.readouterr().out
