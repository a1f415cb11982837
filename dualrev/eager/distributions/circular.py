"""The von Mises distribution, of angles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dualrev.eager.core.evaluation import kept
from dualrev.eager.core.modes import no_grad
from dualrev.eager.distributions import constraints
from dualrev.eager.distributions.distribution import EMPTY, Distribution
from dualrev.eager.distributions.parameters import Value, broadcast_all
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.conversion import known
from dualrev.eager.ops.sampling import draw
from dualrev.eager.ops.special_functions import OF_ONE


def _scaled(order: int, x: Tensor) -> Tensor:
    """The modified Bessel function of the first kind, times ``exp(-x)``."""
    return apply(OF_ONE[f"i{order}e"], (x,))  # type: ignore[no-any-return]


class VonMises(Distribution):
    """The density proportional to ``exp(concentration * cos(x - loc))``; values are angles from -pi to pi.

    >>> from dualrev import eager as torch
    >>> torch.distributions.VonMises(0.0, 1.0).log_prob(torch.tensor(0.0))
    tensor(-1.0738)
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real
    _parameters = {"loc": 0, "concentration": 0}

    def __init__(self, loc: Value, concentration: Value, validate_args: bool | None = None):
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.size(), validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        k = self.concentration
        return k * ((self._checked(value) - self.loc).cos() - 1) - math.log(2 * math.pi) - _scaled(0, k).log()

    def sample(self, sample_shape: Sequence[int] = EMPTY) -> Tensor:
        """Angles by rejection from a wrapped Cauchy distribution [BestFisher1979]."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            k = np.broadcast_to(known(self.concentration, "VonMises.sample()").astype(np.float64), shape)
            tau = 1 + np.sqrt(1 + 4 * k ** 2)
            rho = (tau - np.sqrt(2 * tau)) / (2 * np.maximum(k, 1e-150))
            # Below, the quotient cancels: its series.
            r = np.where(k < 1e-5, 1 / np.maximum(k, 1e-150) + k, (1 + rho ** 2) / (2 * np.where(k < 1e-5, 1.0, rho)))
            angles, is_done = np.zeros(shape), np.zeros(shape, bool)
            while not is_done.all():
                u = [np.asarray(draw("rand", shape, np.dtype(np.float64))) for _ in range(3)]
                z = np.cos(np.pi * u[0])
                f = (1 + r * z) / (r + z)
                c = k * (r - f)
                with np.errstate(divide="ignore"):
                    accepted = (c * (2 - c) - u[1] > 0) | (np.log(c / u[1]) + 1 - c >= 0)
                new = accepted & ~is_done
                angles[new] = (np.sign(u[2] - 0.5) * np.arccos(np.clip(f, -1, 1)))[new]
                is_done |= accepted
            loc = np.asarray(array_of(self.loc), np.float64)
            found = (angles + np.pi + loc) % (2 * np.pi) - np.pi
            return wrap(kept(np.asarray(found, array_of(self.loc).dtype)))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The circular variance."""
        return 1 - _scaled(1, self.concentration) / _scaled(0, self.concentration)
