"""Turns films' posters and plots into features: MM-IMDB's raw layout into its HDF5 layout.

python -m deq_fusion.examples.imdb.extract_features --data-dir DIR --output FILE.hdf5 \
    --text-weights BERT --image-weights RESNET --device cuda

Plots become BERT's pooled output, posters ResNet's average-pooled one. The weights are local
folders, as `hf download google-bert/bert-base-uncased --local-dir BERT` and `hf download
microsoft/resnet-152 --local-dir RESNET` make them; nothing is downloaded here. WITHOUT WEIGHTS THE
ENCODERS ARE SMALL AND RANDOM (drawn from --seed), and so are the features: good for a trial of
the way through, not for results. An interrupted run goes on where it was when it is given the same
options again. Then: datasets.imdb.get_data reads the file.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch

from deq_fusion.datasets.files.hdf5_build import build_file
from deq_fusion.datasets.files.images import read_image
from deq_fusion.datasets.files.text import WordPieces
from deq_fusion.datasets.imdb.films import PARTS, Films, read_films
from deq_fusion.datasets.imdb.raw import train_tokens
from deq_fusion.unimodals.pretrained import BertEncoder, ResNetEncoder


def main(argv: Sequence[str] | None = None) -> None:
    """Extracts what the arguments ask for; a failure ends it with its message and status 1."""
    args = _parse(argv)
    try:
        films = read_films(args.data_dir)
        extract(films, args)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))
    print(f"{len(films.ids)} films in {args.output}")


def extract(films: Films, args: argparse.Namespace) -> None:
    """Writes the file of the films' features."""
    tokens, text, image = _encoders(films, args)
    dtype = np.dtype(args.dtype)

    def create(file: h5py.File) -> None:
        rows = len(films.ids)
        file.create_dataset("features", (rows, text.dim), dtype=dtype)
        file.create_dataset("vgg_features", (rows, image.dim), dtype=dtype)
        file["genres"] = films.labels.astype(np.int8)
        file["imdb_ids"] = np.array([film.encode() for film in films.ids])
        file.attrs["splits"] = json.dumps(dict(zip(PARTS, films.sizes, strict=True)))
        file.attrs["target_names"] = films.genres

    def fill(file: h5py.File, start: int, stop: int) -> None:
        numbers = tokens.encode(films.plots[start:stop], length=args.length)
        pixels = np.stack(list(pool.map(read, films.posters[start:stop])))
        encoders = {"features": (text, numbers), "vgg_features": (image, pixels)}
        for name, (encoder, batch) in encoders.items():
            with torch.inference_mode():
                encoded = encoder(torch.from_numpy(batch).to(args.device)).cpu().numpy()
            file[name][start:stop] = _narrowed(encoded, dtype, f"{name} of {films.ids[start:stop]}")

    read = partial(read_image, size=args.size)
    with ThreadPoolExecutor(args.workers) as pool:
        build_file(
            args.output,
            len(films.ids),
            create,
            fill,
            settings=_settings(films, args),
            batch_size=args.batch_size,
            progress=args.progress,
            desc="films",
        )


def _encoders(
    films: Films, args: argparse.Namespace
) -> tuple[WordPieces, BertEncoder, ResNetEncoder]:
    torch.manual_seed(args.seed)
    if args.text_weights is None:
        tokens = train_tokens(films)
    else:
        tokens = WordPieces.load(args.text_weights)
    text = BertEncoder(args.text_weights, vocabulary=len(tokens), length=args.length)
    image = ResNetEncoder(args.image_weights)
    return tokens, text.to(args.device).eval(), image.to(args.device).eval()


def _narrowed(features: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # what float16 cannot hold is infinite, see below
        features = features.astype(dtype)
    if not np.isfinite(features).all():
        raise ValueError(
            f"{what} must be finite as {dtype}, but are not; use --dtype float32, or look at the "
            "weights"
        )
    return features


def _settings(films: Films, args: argparse.Namespace) -> dict[str, str]:
    """Returns what decides the bytes of the file; the device is left to the user."""
    names = ("size", "length", "batch_size", "seed", "dtype")
    settings = {name: str(getattr(args, name)) for name in names}
    for name in ("data_dir", "text_weights", "image_weights"):
        path = getattr(args, name)
        settings[name] = "none" if path is None else str(path.resolve())
    films_hash = hashlib.sha256("\n".join(films.ids).encode()).hexdigest()
    return settings | {"films": films_hash}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deq_fusion.examples.imdb.extract_features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, required=True, help="folder of split.json and dataset")
    add("--output", type=Path, required=True, metavar="FILE.hdf5", help="file to write")
    random = "default: a small random network"
    add("--text-weights", type=Path, metavar="DIR", help=f"folder of a BERT ({random})")
    add("--image-weights", type=Path, metavar="DIR", help=f"folder of a ResNet ({random})")
    add("--size", type=int, default=224, help="pixels of a poster's side (default: 224)")
    add("--length", type=int, default=512, help="most tokens of a plot (default: 512)")
    add("--batch-size", type=int, default=32, help="films at a time (default: 32)")
    add("--dtype", choices=("float32", "float16"), default="float32", help="of the features")
    add("--device", default="cpu", help="where the networks run, such as cuda (default: cpu)")
    add("--workers", type=int, default=4, help="threads that read posters (default: 4)")
    add("--seed", type=int, default=0, help="of random networks (default: 0)")
    add("--no-progress", dest="progress", action="store_false", help="show no bar")
    args = parser.parse_args(argv)
    for name in ("size", "batch_size", "workers"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.length < 2:
        parser.error("--length must be at least 2")
    return args


if __name__ == "__main__":
    main()
