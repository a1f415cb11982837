"""Least squares in which many measurements share parameters: bundle adjustment, and series of decays.

The shared parameters enter every residual (a dense column each); what fixes the scale of the others reads all of them (a dense row).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.problems.scenario import Scenario

Values = dict[str, jax.Array]


def _turned(axis: jax.Array, points: jax.Array) -> jax.Array:
    """Points turned about axes by the lengths of these in radians (Rodrigues' formula)."""
    angle = jnp.sqrt(jnp.sum(axis * axis, 1, keepdims=True) + 1e-12)
    unit = axis / angle
    return (points * jnp.cos(angle) + jnp.cross(unit, points) * jnp.sin(angle)
            + unit * jnp.sum(unit * points, 1, keepdims=True) * (1 - jnp.cos(angle)))


def reprojection(unknowns: Values, camera: jax.Array, point: jax.Array, seen: jax.Array) -> jax.Array:
    """Where points appear in pictures, less where they were seen ``(observations, 2)``.

    ``cameras (c, 6)`` are rotations and translations, ``points (p, 3)``; one ``lens (3,)`` took all pictures: its focal length and two
    coefficients of radial distortion.  [TriggsEtAl2000].
    """
    at, lens = unknowns["cameras"][camera], unknowns["lens"]
    moved = _turned(at[:, :3], unknowns["points"][point]) + at[:, 3:]
    flat = -moved[:, :2] / moved[:, 2:]
    r2 = jnp.sum(flat * flat, 1, keepdims=True)
    return lens[0] * (1 + r2 * (lens[1] + r2 * lens[2])) * flat - seen


def free_network(unknowns: Values, camera: jax.Array, point: jax.Array, seen: jax.Array) -> Values:
    """The same, with conditions on all points in place of known ones: their mean is 0, and their mean square 1.

    [TriggsEtAl2000] on freedom of gauge.
    """
    points = unknowns["points"]
    return {"pictures": reprojection(unknowns, camera, point, seen), "centre": jnp.mean(points, 0),
            "scale": jnp.mean(jnp.sum(points**2, 1)) - 1}


def pictures(cameras: int = 4, points: int = 12, observations: int = 24) -> tuple[Values, jax.Array, jax.Array, jax.Array]:
    """Points near the origin, seen by cameras that look at them from a distance; each camera sees some of them."""
    draw = np.random.default_rng(2000)
    camera = np.arange(observations) % cameras
    point = draw.permutation(np.arange(observations) % points)
    at = np.concatenate([draw.normal(scale=0.3, size=(cameras, 3)), draw.normal(scale=0.1, size=(cameras, 2)),
                         np.full((cameras, 1), -5.0)], 1)
    unknowns = {"cameras": jnp.asarray(at), "points": jnp.asarray(draw.normal(size=(points, 3))),
                "lens": jnp.asarray([1.0, -0.1, 0.01])}
    return unknowns, jnp.asarray(camera), jnp.asarray(point), jnp.asarray(draw.normal(scale=0.2, size=(observations, 2)))


def global_decays(unknowns: Values, time: jax.Array, measured: jax.Array) -> Values:
    """Decays at many wavelengths with the same rates: sums of exponentials, less what was measured ``(wavelengths, times)``.

    ``amplitudes (wavelengths, k)`` are those of each wavelength, ``rates (k,)`` are shared; the spectrum of each rate has mean
    square 1.  [GolubLeVeque1979].
    """
    amplitudes, rates = unknowns["amplitudes"], unknowns["rates"]
    return {"curves": amplitudes @ jnp.exp(-jnp.outer(rates, time)) - measured, "spectra": jnp.mean(amplitudes**2, 0) - 1}


def decays(wavelengths: int = 12, times: int = 4, rates: int = 2) -> tuple[Values, jax.Array, jax.Array]:
    draw = np.random.default_rng(1979)
    unknowns = {"amplitudes": jnp.asarray(draw.uniform(0.5, 1.5, (wavelengths, rates))), "rates": jnp.asarray(2.0 ** np.arange(rates))}
    return unknowns, jnp.linspace(0.0, 3.0, times), jnp.asarray(draw.uniform(0, 2, (wavelengths, times)))


SCENARIOS = [
    Scenario("bundle adjustment, one lens", reprojection, pictures, inputs=63, outputs=48, tags=("correctness", "sparse"),
             description="reprojection errors of points in pictures that one lens took",
             citation="B. Triggs, P. McLauchlan, R. Hartley, A. Fitzgibbon, Bundle adjustment: a modern synthesis (2000)"),
    Scenario("bundle adjustment, free network", free_network, pictures, inputs=63, outputs=52, tags=("correctness", "sparse"),
             description="the same, with conditions on the mean and the mean square of all points",
             citation="B. Triggs, P. McLauchlan, R. Hartley, A. Fitzgibbon, the same"),
    Scenario("decays with shared rates", global_decays, decays, inputs=26, outputs=50, tags=("correctness", "sparse"),
             description="decays at many wavelengths with shared rates, each spectrum normalised",
             citation="G. Golub, R. LeVeque, Extensions and uses of the variable projection algorithm (1979)"),
]
