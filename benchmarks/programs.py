"""The lists of programs that are measured.

``PROGRAMS`` is measured with every library.  Most of it is ``portable``, that is, a function of an array namespace; GradBench's
problems and the Brusselator are in jax, and other libraries leave them out.  The lists below are those of dualrev's own figures.
"""

from __future__ import annotations

import numpy as np

from benchmarks.functions import Program, alone, drawn, in_jax, networks, science
from benchmarks.functions.gradbench import hand_distances, problems
from benchmarks.functions.in_jax import chain, repeated
from benchmarks.functions.networks import sequence
from dualrev.problems import brusselator, lstm, mixture, network

__all__ = ["COMPILED", "EAGER", "HESSIANS", "JACOBIANS", "LOOPS", "LSTM_SIZES", "OPERATIONS", "PROGRAMS", "RESIDUALS", "SECOND_ORDER",
           "SIZES", "TRACED", "chain", "growing", "repeated", "sequence"]

# ------------------------------------------------------------------------------------------------------- every library

GRADBENCH = problems("gmm d10 k25", "ba p31843", "ht small hand", "lstm l2 c1024", "kmeans k100 n10k d8", "lse 10k", "llsq n1024",
                     "ode n1000 s100", "det 8")

PROGRAMS = (
    networks.mlp(128, 784, 512, 10),
    networks.lenet(32),
    networks.residual_block(4, 16, 32),
    networks.transformer(1),
    networks.recurrent("LSTM", 100, 8, 64, 128),
    networks.recurrent("GRU", 100, 8, 64, 128),
    science.ode(),
    science.lennard_jones(4),
    science.gaussian_process(100, 4),
    science.kalman(100, 6),
    science.log_sum_exp(10_000),
    science.softmax_regression(1000, 50, 10),
    science.rosenbrock(1000),
    Program("Brusselator rate, 64 x 64", in_jax.brusselator_loss, alone(lambda: brusselator.state(64))),
    *GRADBENCH,
)

#: Functions of one array, small enough for all their second derivatives.
HESSIANS = (
    science.rosenbrock(64),
    science.log_sum_exp(64),
    science.lennard_jones(2),
    science.gaussian_process(30, 4),
    science.softmax_regression(100, 10, 5),
)

#: Functions of one array to another.
JACOBIANS = (
    science.rosenbrock_errors(64),
    Program("Brusselator rate, 8 x 8", in_jax.brusselator_rate, lambda: (np.random.default_rng(0).uniform(size=(2, 8, 8)),)),
    science.ode_flow(20),
    networks.mlp_outputs(64, 256, 256, 10),
    hand_distances(),
)

SIZES = tuple(2**k for k in range(4, 17, 3))


def growing(n: int) -> Program:
    """A program of n inputs: its gradient should cost as many times the function, whatever n is."""
    return science.rosenbrock(n)


#: Chains of so many operations on a number.
OPERATIONS = tuple(2**k for k in range(3, 10, 3))

# ------------------------------------------------------------------------------------------------------------ compiled

WIDE = networks.mlp(128, 784, 512, 10)
TRANSFORMER = networks.transformer(3)

COMPILED = (
    Program("Gaussian mixture, iris", mixture.log_likelihood, alone(mixture.parameters)),
    Program("Brusselator rate, 16 x 16", in_jax.brusselator_loss, alone(lambda: brusselator.state(16))),
    Program("Brusselator rate, 512 x 512", in_jax.brusselator_loss, alone(lambda: brusselator.state(512))),
    Program("two-layer network, iris", network.loss, alone(network.layers)),
    WIDE,
    Program("LSTM scan, 8 units", lstm.loss, alone(lstm.parameters)),
    Program("LSTM scan, 128 units", lstm.loss, alone(lambda: lstm.parameters(128))),
    TRANSFORMER,
)

# --------------------------------------------------------------------------------------------------------------- loops

#: Steps, batch, features, units.
LSTM_SIZES = (100, 1, 32, 64), (100, 8, 64, 128), (200, 16, 128, 256), (100, 32, 128, 256)

LOOPS = (
    *[networks.recurrent("LSTM", *size) for size in LSTM_SIZES],
    Program("three recurrent layers", in_jax.recurrent_loss, alone(in_jax.recurrent_layers)),
    Program("scan in a scan", in_jax.nested_loss, alone(lambda: drawn(np.random.default_rng(0), 64, 64))),
    science.ode(),
)

# --------------------------------------------------------------------------------------------- second order, residuals

DENSE = Program("dense network", in_jax.dense_loss, alone(in_jax.dense_weights))

SECOND_ORDER = (DENSE, networks.lenet(32), networks.recurrent("LSTM", 50, 8, 32, 64))

RESIDUALS = (
    Program("ten sines of a million numbers", in_jax.ten_sines, alone(lambda: drawn(np.random.default_rng(0), 10**6))),
    DENSE,
    TRANSFORMER,
)

# ------------------------------------------------------------------------------------------------- tracing, un-jitted

TRACED = (Program("200-layer unrolled network", in_jax.deep_loss, alone(in_jax.deep_layers)),)

EAGER = (
    Program("two-layer network, 64 wide, batch 32", in_jax.small_network_loss, alone(in_jax.small_network)),
    Program("scalar function of 10 operations", science.ten_operations, lambda: (np.float32(0.7),), portable=True),
)
