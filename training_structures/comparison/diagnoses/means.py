"""Features at their training mean: what a fusion meets in place of a modality that tells nothing.

Both functions work where the features reach the fusion, as its first argument, a list with a tensor
(batch, ..., width) a modality.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ...evaluation import evaluate
from .calibration import Undiagnosed


def training_means(
    model: nn.Module, fusion: nn.Module, train: Iterable, modalities: int, precision: str
) -> list[Tensor]:
    """Returns each modality's mean feature over the training part, (width,) float64; of sequences
    over their steps, too.

    Args:
        model: the trained model, which is run once over the part.
        fusion: its part whose features they are.
        train: batches of the training part.
        modalities: their number.
        precision: of the run, see `evaluate`.

    Raises:
        Undiagnosed: unless the fusion gets a floating-point tensor a modality.
    """
    sums: list[Tensor | None] = [None] * modalities
    counts = [0] * modalities

    def add(_: nn.Module, args: tuple) -> None:
        for i, x in enumerate(_features(args, modalities)):
            rows = x.detach().double().reshape(-1, x.shape[-1])
            total = sums[i]
            sums[i] = rows.sum(0) if total is None else total + rows.sum(0)
            counts[i] += len(rows)

    handle = fusion.register_forward_pre_hook(add)
    try:
        evaluate(model, train, precision=precision)
    finally:
        handle.remove()
    found = [s / n for s, n in zip(sums, counts, strict=True) if s is not None]
    if len(found) < modalities:
        raise Undiagnosed("has a fusion that its model does not use")
    return found


@contextmanager
def at_means(fusion: nn.Module, means: Sequence[Tensor], hidden: Iterable[int]) -> Iterator[None]:
    """Lets the fusion meet the means in place of these modalities' features."""
    hidden = list(hidden)

    def hide(_: nn.Module, args: tuple) -> tuple:
        features = list(args[0])
        for i in hidden:
            features[i] = means[i].to(features[i]).expand_as(features[i])
        return (features, *args[1:])

    handle = fusion.register_forward_pre_hook(hide)
    try:
        yield
    finally:
        handle.remove()


def _features(args: tuple, modalities: int) -> Sequence[Tensor]:
    features = args[0] if args else None
    if not isinstance(features, (list, tuple)) or len(features) != modalities:
        raise Undiagnosed(
            f"has a fusion that does not get a list of {modalities} features, one a modality"
        )
    if not all(isinstance(x, Tensor) and x.is_floating_point() and x.dim() for x in features):
        raise Undiagnosed("has a fusion whose features are no tensors of real numbers")
    return features
