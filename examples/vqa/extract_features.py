"""Grid features of plain images: ``python -m deq_fusion.examples.vqa.extract_features --help``.

Writes one HDF5 file: `features` (images, grid * grid, dim) float16 and `image_ids` (images,)
int64, ascending, which `datasets.vqa.get_data` reads. Of an image's middle square, a cell of the
grid is described by

- `--patches`: itself, as a thumbnail of 8 x 8 pixels (3 x 8 x 8 numbers), the mean and the
  deviation of its colours (3 + 3), and its place (row and column): 200 numbers in (0, 1]. Black
  is 1 / 256, because a region of zeros would pass for padding. Needs no network;
- `--weights DIR`: the last feature map of a ResNet that transformers saved in a folder;
- `--random`: that of a small network with random weights, which says little, but needs no file.

A run that was stopped is resumed by the same command.
"""

import argparse
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from deq_fusion.datasets.files.hdf5_build import build_file
from deq_fusion.datasets.files.images import read_image
from deq_fusion.datasets.vqa.image_files import find_images
from deq_fusion.unimodals.pretrained import ResNetEncoder

ENDINGS = (".jpg", ".jpeg", ".png")
THUMBNAIL = 8  # pixels a side


def patches(images: Tensor, grid: int) -> Tensor:
    """Describes the cells of a grid by what they look like and where they are.

    Args:
        images: (batch, 3, side, side) uint8, of side grid * 8.
        grid: cells a side.

    Returns:
        (batch, grid * grid, 200) float32 in [0, 1], row by row; pixels are above 0.
    """
    colours = (images.float() + 1) / 256
    cells = colours.unfold(2, THUMBNAIL, THUMBNAIL).unfold(3, THUMBNAIL, THUMBNAIL)
    cells = cells.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(3)  # (batch, cells, 3, pixels)
    steps = torch.arange(1, grid + 1) / grid
    places = torch.cartesian_prod(steps, steps).expand(len(images), -1, -1)
    deviation = cells.std(dim=3, correction=0)
    return torch.cat([cells.flatten(2), cells.mean(dim=3), deviation, places], dim=2)


def network_grid(encoder: ResNetEncoder, images: Tensor, grid: int) -> Tensor:
    """Returns an encoder's feature map averaged to a grid, (batch, grid * grid, dim)."""
    features = encoder.grid(images)  # (batch, positions, dim)
    side = math.isqrt(features.shape[1])
    square = features.transpose(1, 2).unflatten(2, (side, side))
    return torch.nn.functional.adaptive_avg_pool2d(square, grid).flatten(2).transpose(1, 2)


def extract(
    folder: str | Path,
    output: str | Path,
    describe: Callable[[Tensor], Tensor],
    *,
    size: int,
    settings: dict[str, str],
    batch_size: int = 32,
    progress: bool = True,
) -> None:
    """Writes the features of all images of a folder, see above.

    Args:
        folder: the images, or a folder of them for every split; an image's id is the integer
            after the last underscore, of `7.jpg` and of `COCO_train2014_000000000007.jpg` 7.
        output: the HDF5 file, which has its name only once it is complete.
        describe: maps (batch, 3, size, size) uint8 to (batch, regions, dim).
        size: side of the images in pixels.
        settings: what features depend on; a run resumes only one with the same.
        batch_size: images at once.
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: if there are no images.
        ValueError: names an image that cannot be read, or whose features are not finite.
    """
    files = find_images(folder, ENDINGS)
    ids, paths = np.array(list(files), dtype=np.int64), list(files.values())
    source = {
        "source": str(Path(folder).resolve()),
        "images": hashlib.sha256(ids.tobytes()).hexdigest(),
        "size": str(size),
    }

    def features(start: int, stop: int) -> np.ndarray:
        return _describe(paths[start:stop], describe, size)

    def create(file: h5py.File) -> None:
        shape = (len(ids), *features(0, 1).shape[1:])
        file.create_dataset("features", shape, np.float16)
        file["image_ids"] = ids

    def fill(file: h5py.File, start: int, stop: int) -> None:
        file["features"][start:stop] = features(start, stop)

    build_file(
        output,
        len(ids),
        create,
        fill,
        settings=settings | source,
        batch_size=batch_size,
        progress=progress,
        desc="images",
    )


@torch.no_grad()
def _describe(paths: list[Path], describe: Callable[[Tensor], Tensor], size: int) -> np.ndarray:
    images = np.stack([read_image(path, size) for path in paths])
    found = describe(torch.from_numpy(images)).half()
    if not found.isfinite().all():
        raise ValueError(
            f"the features of {paths[0]} to {paths[-1].name} must be finite in float16, but are "
            "not; use another network"
        )
    return found.cpu().numpy()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deq_fusion.examples.vqa.extract_features",
        description="Describes every cell of a grid on every image of a folder, in one HDF5 "
        "file. Resumes where an earlier run was stopped.",
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of images")
    parser.add_argument("--output", required=True, metavar="FILE", help="the HDF5 file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--patches", action="store_true", help="thumbnails; no network")
    source.add_argument("--weights", metavar="DIR", help="a ResNet as transformers saves it")
    source.add_argument("--random", action="store_true", help="a small random network")
    parser.add_argument("--size", type=int, default=224, help="pixels a side (%(default)s)")
    parser.add_argument("--grid", type=int, default=7, help="cells a side (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where a network runs (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of --random (%(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a failure ends it with its message and exit status 1."""
    args = parse(argv)
    settings = {"grid": str(args.grid)}
    try:
        if args.patches:
            settings["features"] = "patches"
            size, describe = args.grid * THUMBNAIL, lambda images: patches(images, args.grid)
        else:
            named = f"random {args.seed}" if args.random else str(Path(args.weights).resolve())
            settings["features"] = named
            torch.manual_seed(args.seed)
            encoder = ResNetEncoder(args.weights).eval().to(args.device)

            def describe(images: Tensor) -> Tensor:
                return network_grid(encoder, images.to(args.device), args.grid)

            size = args.size
        extract(
            args.images,
            args.output,
            describe,
            size=size,
            settings=settings,
            batch_size=args.batch_size,
        )
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
