"""Real problems, small enough to be differentiated in full by both engines in a second or two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dualrev.problems import brusselator, linear, lstm, mixture, network


@dataclass(frozen=True)
class Problem:
    """A function of one pytree of float arrays, and a point to differentiate it at."""

    name: str
    description: str
    citation: str
    function: Callable[[Any], object]  # each takes a pytree of its own
    make_inputs: Callable[[], object]


PROBLEMS: tuple[Problem, ...] = (
    Problem(
        "linear model",
        "half the squared error of y = w.x + b at one point, by w and b: n pushes that store nothing, or one pull from a tape",
        "A. M. Legendre, Nouvelles méthodes pour la détermination des orbites des comètes (1805), appendix on least squares",
        linear.loss,
        linear.model,
    ),
    Problem(
        "Gaussian mixture",
        "log-likelihood of three Gaussians with full covariances on Fisher's iris measurements, 150 flowers",
        "R. A. Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics 7 (1936) 179-188",
        mixture.log_likelihood,
        mixture.parameters,
    ),
    Problem(
        "Brusselator rate",
        "right-hand side of a reaction-diffusion equation of two substances on a periodic grid of 16 x 16 points",
        "E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, 2nd ed. (1996), section IV.10, BRUSS-2D",
        brusselator.right_hand_side,
        brusselator.state,
    ),
    Problem(
        "Brusselator solution",
        "the same equation solved to t = 0.2 in 40 steps of the midpoint rule, by its three coefficients",
        "E. Hairer, G. Wanner, the same section",
        brusselator.solution,
        brusselator.coefficients,
    ),
    Problem(
        "two-layer network",
        "cross-entropy of a network with 16 hidden tanh units that tells the three species of iris apart",
        "D. Rumelhart, G. Hinton, R. Williams, Learning representations by back-propagating errors, Nature 323 (1986) 533-536",
        network.loss,
        network.layers,
    ),
    Problem(
        "LSTM scan",
        "cross-entropy of an LSTM with 8 units that foretells each character of the first stanza of Jabberwocky",
        "S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9 (1997) 1735-1780",
        lstm.loss,
        lstm.parameters,
    ),
)
