"""The constants of a fusion's map, which its state_dict tells beside the numbers.

Two fusions whose parameters have the same names and shapes may be different maps: of another
`start`, of other equations, of other groups. So a state_dict has these among its metadata, where
torch keeps the versions of modules, and to load it into another map is an error, as to load it into
other shapes is, strict or not. Files from before there were any load as they did, and so does what
has lost its metadata, such as a plain dict.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..checks import shown
from .building import CONTRACTIVE
from .equations import Equations
from .gated import GatedCell
from .residual import ResidualCells

KEY = "map"  # in the metadata of the fusion


class ToldConstants(nn.Module):
    """A module whose state_dict tells the constants of its map, and is loaded into no other."""

    def constants(self) -> dict[str, Any]:
        """Returns option -> value of what is constant, as plain values."""
        raise NotImplementedError

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", {}).get(prefix[:-1])
        if metadata is not None:  # a plain dict to write to has none
            metadata[KEY] = self.constants()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        told = missing_keys, unexpected_keys, error_msgs
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *told)
        other = difference(local_metadata.get(KEY), self.constants())
        if other is not None:
            error_msgs.append(other)


def constants_of(
    equations: Equations,
    start: str | float,
    unimodal: ResidualCells | None,
    fuse: GatedCell | None,
) -> dict[str, Any]:
    """Returns option -> value of what is constant in the map, as plain values.

    How the map is solved, or that its steps are unrolled, changes nothing of it.

    Args:
        equations: what the cells compute.
        start: as `DEQFusion` takes it.
        unimodal: the cells of f_i, if there are any.
        fuse: the cell of f_fuse, if there is one.
    """
    number = CONTRACTIVE if start == "contractive" else start
    found: dict[str, Any] = {"start": number if isinstance(number, str) else float(number)}
    found["injection"] = equations.injection
    if unimodal is not None:
        found |= {"groups": unimodal.groups, "cell": unimodal.kind, "residual": unimodal.residual}
    if fuse is not None:
        found |= {"fuse_groups": fuse.groups, "norm_order": fuse.norm_order, "gate": fuse.gate}
    return found


def difference(saved: Any, own: Mapping[str, Any]) -> str | None:
    """Returns how the map of a state_dict differs from one's own, as an error; None: it does not.

    Args:
        saved: what the metadata hold; of what both tell only.
        own: what `constants_of` returned.
    """
    if not isinstance(saved, Mapping):
        return None
    other = [name for name, value in own.items() if name in saved and saved[name] != value]
    if not other:
        return None
    theirs = ", ".join(f"{name}={shown(saved[name])}" for name in other)
    ours = ", ".join(f"{name}={shown(own[name])}" for name in other)
    return (
        f"the state_dict must be of the same map, but is of a DEQFusion of {theirs}, and this one "
        f"has {ours}; build it with the same options, or load dict(state_dict), which tells none"
    )
