"""Candidates for a DEQ fusion that never hurts, each with its matched controls.

    deq-fusion compare --fusions deq,concat,weighted_sum \
        --own-fusion deq_fusion.examples.studies.candidates:AddedToSum \
        --own-fusion deq_fusion.examples.studies.candidates:AddedToSumUnrolled \
        --own-fusion deq_fusion.examples.studies.candidates:AddedToSumShallow

`CANDIDATES` has them all: a candidate, then the same map unrolled, then the same parameters
without recurrence.

How one may become the default, fixed before they were compared:

1. Every candidate is trained as `deq` is, on ROSMAP, BRCA, CMU-MOSI, the films and TCGA's three
   cohorts, and scored on their validation parts alone (`--part valid --first-run 100`: runs that no
   result on test has). `examples.studies.across` tests them against concatenation, all sets and
   candidates one family.
2. Of those that are nowhere below concatenation beyond chance, the one with the highest mean
   difference over the sets is taken, if that is above the one of `plain`, DEQ fusion as it is.
3. That one is scored on the test parts, once: runs 0 to 19, or 0 to 5 where the split is fixed. It
   becomes the default if it is non-inferior by 2 points on every set, or undecided there, with the
   runs that it would take; nowhere below beyond chance; and above on one set. Else the default
   stays as it is.
"""

from deq_fusion.examples.studies.candidates.added import AddedToSum as AddedToSum
from deq_fusion.examples.studies.candidates.added import AddedToSumShallow as AddedToSumShallow
from deq_fusion.examples.studies.candidates.added import AddedToSumUnrolled as AddedToSumUnrolled
from deq_fusion.examples.studies.candidates.added import beside_features as beside_features
from deq_fusion.examples.studies.candidates.added import (
    beside_features_shallow as beside_features_shallow,
)
from deq_fusion.examples.studies.candidates.added import (
    beside_features_unrolled as beside_features_unrolled,
)
from deq_fusion.examples.studies.candidates.contractive import (
    ContractiveFusion as ContractiveFusion,
)
from deq_fusion.examples.studies.candidates.contractive import (
    ContractiveFusionShallow as ContractiveFusionShallow,
)
from deq_fusion.examples.studies.candidates.contractive import (
    ContractiveFusionUnrolled as ContractiveFusionUnrolled,
)
from deq_fusion.examples.studies.candidates.gated_by_others import GatedByOthers as GatedByOthers
from deq_fusion.examples.studies.candidates.gated_by_others import (
    GatedByOthersShallow as GatedByOthersShallow,
)
from deq_fusion.examples.studies.candidates.gated_by_others import (
    GatedByOthersUnrolled as GatedByOthersUnrolled,
)
from deq_fusion.examples.studies.candidates.modality_dropout import (
    ModalityDropout as ModalityDropout,
)
from deq_fusion.examples.studies.candidates.modality_dropout import (
    ModalityDropoutShallow as ModalityDropoutShallow,
)
from deq_fusion.examples.studies.candidates.modality_dropout import (
    ModalityDropoutUnrolled as ModalityDropoutUnrolled,
)
from deq_fusion.examples.studies.candidates.plain import Plain as Plain
from deq_fusion.examples.studies.candidates.plain import PlainShallow as PlainShallow
from deq_fusion.examples.studies.candidates.plain import PlainUnrolled as PlainUnrolled
from deq_fusion.examples.studies.candidates.reversible import Reversible as Reversible
from deq_fusion.examples.studies.candidates.reversible import (
    ReversibleShallow as ReversibleShallow,
)
from deq_fusion.examples.studies.candidates.reversible import (
    ReversibleUnrolled as ReversibleUnrolled,
)

CANDIDATES = {
    "plain": (Plain, PlainUnrolled, PlainShallow),
    "added_to_sum": (AddedToSum, AddedToSumUnrolled, AddedToSumShallow),
    "beside_features": (beside_features, beside_features_unrolled, beside_features_shallow),
    "gated_by_others": (GatedByOthers, GatedByOthersUnrolled, GatedByOthersShallow),
    "modality_dropout": (ModalityDropout, ModalityDropoutUnrolled, ModalityDropoutShallow),
    "reversible": (Reversible, ReversibleUnrolled, ReversibleShallow),
    "contractive": (ContractiveFusion, ContractiveFusionUnrolled, ContractiveFusionShallow),
}
"""Name -> the candidate, its control unrolled, and its control without recurrence."""
