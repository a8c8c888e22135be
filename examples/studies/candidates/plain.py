"""DEQ fusion as it is, at the three depths: the controls of the default."""

from collections.abc import Sequence

from torch import Tensor

from deq_fusion.examples.studies.candidates.depth import SHALLOW, UNROLLED, Candidate


class Plain(Candidate):
    """DEQ fusion itself, with the arguments of `Candidate`."""

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: see `DEQFusion.forward`.
            present: (..., N) bool, the modalities that a sample has; others take no part.
        """
        return self.equilibrium(features, present)


class PlainUnrolled(Plain):
    """Its control with the map unrolled."""

    depth = UNROLLED


class PlainShallow(Plain):
    """Its control without recurrence."""

    depth = SHALLOW
