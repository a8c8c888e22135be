"""Learning rates that change with every step of an optimiser."""

from math import cos, pi

from torch.optim import Optimizer


class LRCosineAnnealingScheduler:
    """Cosine annealing with warm restarts (Loshchilov and Hutter, 2017, Equation 5).

    After t epochs of a cycle of T epochs the rate is
    eta_min + (eta_max - eta_min) (1 + cos(pi t / T)) / 2; a step is a fraction of an epoch. Where
    t has reached T, the next cycle begins, `Tmultiplier` times as long. (MultiBench begins it
    only if a step meets the lowest rate to 1e-10: if no whole number of steps makes a cycle, its
    rate rises again as slowly as it fell.)

    Args:
        eta_max: rate at the start of a cycle.
        eta_min: rate at its end.
        Ti: epochs of the first cycle.
        Tmultiplier: by how much each cycle is longer than the one before.
        num_batches_per_epoch: steps an epoch; need not be whole.
    """

    def __init__(
        self,
        eta_max: float,
        eta_min: float,
        Ti: float,
        Tmultiplier: float,
        num_batches_per_epoch: float,
    ) -> None:
        if not (Ti > 0 and Tmultiplier > 0 and num_batches_per_epoch > 0):
            raise ValueError(
                "Ti, Tmultiplier and num_batches_per_epoch must be positive, "
                f"got {Ti}, {Tmultiplier} and {num_batches_per_epoch}"
            )
        self.eta_max, self.eta_min, self.eta = eta_max, eta_min, eta_max
        self.Ti, self.Tm, self.nbpe = Ti, Tmultiplier, num_batches_per_epoch
        self.Tcur = self.iteration_counter = 0.0

    def step(self) -> float:
        """Returns the rate of the next step, which is then `eta`."""
        self.Tcur = min(self.iteration_counter / self.nbpe, self.Ti)
        self.iteration_counter += 1
        share = (1 + cos(pi * self.Tcur / self.Ti)) / 2
        self.eta = self.eta_min + (self.eta_max - self.eta_min) * share
        if self.Tcur >= self.Ti:
            self.Tcur = self.iteration_counter = 0.0
            self.Ti *= self.Tm
        return self.eta

    def update_optimizer(self, optimizer: Optimizer) -> None:
        """Gives the optimiser's groups the rate that `step` returned last."""
        _set_rate(optimizer, self.eta)


class FixedScheduler:
    """A rate that stays.

    Args:
        lr: the rate.
    """

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def step(self) -> float:
        """Returns the rate."""
        return self.lr

    def update_optimizer(self, optimizer: Optimizer) -> None:
        """Gives the optimiser's groups the rate."""
        _set_rate(optimizer, self.lr)


def _set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
