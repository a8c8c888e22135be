"""Where an architecture search is, and the file from which it goes on as if never interrupted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .checkpoint import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from .run import check_settings, check_weights
from .saved_run import check_optimizer, check_random, check_steps, demand
from .siblings import surrogate as surrogates


@dataclass
class Progress:
    """All that a search needs to go on, besides its data and its encoders.

    Attributes:
        surrogate: the network that predicts how well a configuration does.
        optimizer: its optimiser, which goes on from step to step.
        generators: the loaders' own random generators.
        settings: numbers and text that a resumed search must share.
        step: number of steps that are done.
        sampled: the configurations that the next step extends.
        chosen: the configurations that this step tries; None before they are chosen.
        scores: of as many of them as have been tried.
        known: the best score of every configuration so far.
        shared: weights of fusion layers by name, see `candidates.load_shared`.
    """

    surrogate: nn.Module
    optimizer: Optimizer
    generators: list[torch.Generator]
    settings: dict[str, Any]
    step: int = 0
    sampled: list[np.ndarray] = field(default_factory=list)
    chosen: list[np.ndarray] | None = None
    scores: list[float] = field(default_factory=list)
    known: Any = field(default_factory=surrogates.SurrogateDataloader)
    shared: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def save(self, path: str | Path | None) -> None:
        """Writes the file, if there is to be one."""
        if path is None:
            return
        contents = {
            "settings": self.settings,
            "step": self.step,
            "sampled": _tensors(self.sampled),
            "chosen": None if self.chosen is None else _tensors(self.chosen),
            "scores": self.scores,
            "known": [(torch.as_tensor(conf), score) for conf, score in self.known.known()],
            "shared": self.shared,
            "surrogate": self.surrogate.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": rng_state(),
            "generators": [g.get_state() for g in self.generators],
        }
        save_checkpoint(path, contents)

    def resume(self, path: str | Path | None) -> None:
        """Goes back to where `save` wrote the file; starts afresh if there is none.

        Raises:
            Damaged: a ValueError, for a file that holds no search.
            ValueError: for the file of another search; nothing is changed then.
        """
        if path is None:
            raise ValueError("resume=True needs the path of a checkpoint")
        if not Path(path).exists():
            return
        source, saved = str(path), load_checkpoint(path)
        demand("known" in saved and "settings" in saved, source, "an architecture search")
        check_settings(saved["settings"], self.settings, source)
        self._check(saved, source)
        self.surrogate.load_state_dict(saved["surrogate"])
        self.optimizer.load_state_dict(saved["optimizer"])
        check_steps(self.optimizer, source)
        self.step, self.scores = saved["step"], saved["scores"]
        self.shared.update(saved["shared"])
        self.sampled, chosen = _arrays(saved["sampled"]), saved["chosen"]
        self.chosen = None if chosen is None else _arrays(chosen)
        self.known = surrogates.SurrogateDataloader()
        for conf, score in saved["known"]:
            self.known.add_datum(conf.numpy(), score)
        set_rng_state(saved["rng"])
        for generator, state in zip(self.generators, saved["generators"], strict=True):
            generator.set_state(state)

    def _check(self, saved: Mapping[str, Any], source: str) -> None:
        """Raises Damaged unless everything in the file is of its kind; ValueError as above."""
        kinds = {"step": int, "sampled": list, "scores": list, "known": list, "shared": dict}
        kinds |= {"surrogate": dict, "optimizer": dict, "generators": list, "rng": dict}
        for name, kind in kinds.items():
            demand(isinstance(saved.get(name), kind), source, f"a search with its {name}")
        pairs = [pair for pair in saved["known"] if isinstance(pair, tuple) and len(pair) == 2]
        demand(len(pairs) == len(saved["known"]), source, "configurations with their scores")
        chosen = saved.get("chosen")
        demand(chosen is None or isinstance(chosen, list), source, "configurations")
        confs = [*saved["sampled"], *(chosen or []), *(conf for conf, _ in pairs)]
        whole = all(isinstance(x, Tensor) and x.dim() == 2 for x in confs)
        demand(whole, source, "configurations, (layers, features) each")
        scores = [*saved["scores"], *(score for _, score in pairs)]
        demand(all(type(x) is float for x in scores), source, "scores that are numbers")
        weights = saved["shared"].values()
        demand(all(isinstance(x, dict) for x in weights), source, "weights of fusion layers")
        check_weights(saved["surrogate"], self.surrogate, source)
        check_optimizer(saved["optimizer"], self.optimizer, source)
        check_random(saved["rng"], saved["generators"], len(self.generators), source)


def digest(modules: list[nn.Module]) -> str:
    """Returns a digest of the modules' weights, by which a resumed search knows its encoders."""
    total = sha256()
    for number, module in enumerate(modules):
        for name, tensor in module.state_dict().items():
            total.update(f"{number} {name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            total.update(content.numpy().tobytes())
    return total.hexdigest()


def _tensors(configurations: list[np.ndarray]) -> list[Tensor]:
    return [torch.as_tensor(configuration) for configuration in configurations]


def _arrays(configurations: list[Tensor]) -> list[np.ndarray]:
    return [configuration.numpy() for configuration in configurations]
