"""Bundle adjustment: reprojection errors of points seen by cameras, and their sparse Jacobian [SrajerEtAl2018, section 4.2].

An array holds one number of all cameras, points or observations, so that each operation runs along memory, and they are kept apart:
the cotangent of a row of an array would be an array of its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.gradbench.problem import Fields, Problem, objective

CAMERA, POINT = 11, 3
WIDTH = CAMERA + POINT + 1
#: Observations that are differentiated at a time: what is computed on the way stays in a core's cache.
BLOCK = 1024


Numbers = Sequence[jax.Array]


def rotation(r: jax.Array) -> jax.Array:
    """The matrix of the rotation by |r| about r: cos I + sin [w] + (1 - cos) w wᵀ with w = r / |r|, and I + [r] where r = 0."""
    squared = jnp.sum(r * r, axis=0)
    is_zero = squared == 0
    angle = jnp.sqrt(jnp.where(is_zero, 1.0, squared))
    w = jnp.where(is_zero, r, r / angle)
    cos, sin = jnp.where(is_zero, 1.0, jnp.cos(angle)), jnp.where(is_zero, 1.0, jnp.sin(angle))
    rows = [[(cos if i == j else 0.0) + (1 - cos) * w[i] * w[j] for j in range(3)] for i in range(3)]
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        rows[k][j] += sin * w[i]
        rows[j][k] -= sin * w[i]
    return jnp.stack([jnp.stack(row) for row in rows])


def errors(matrix: Sequence[Numbers], camera: Numbers, point: Numbers, weight: jax.Array, feature: jax.Array) -> tuple[jax.Array, ...]:
    """The two weighted reprojection errors of each observation.  ``camera``: its centre, f, u₀, v₀, k₁, k₂."""
    z = [point[i] - camera[i] for i in range(3)]
    y = [matrix[i][0] * z[0] + matrix[i][1] * z[1] + matrix[i][2] * z[2] for i in range(3)]
    q = y[0] / y[2], y[1] / y[2]
    squared = q[0] * q[0] + q[1] * q[1]
    scale = camera[3] * (1 + squared * (camera[6] + squared * camera[7]))
    return tuple([weight * (scale * q[i] + camera[4 + i] - feature[i]) for i in range(2)])


def weight_error(weight: jax.Array) -> jax.Array:
    return 1 - weight * weight


def seen_by(numbers: jax.Array, index: jax.Array) -> Any:
    """Those of each observation, a list (of lists) of what stands along the leading axes."""
    return numbers[index] if numbers.ndim == 1 else [seen_by(row, index) for row in numbers]


def residuals(cameras: jax.Array, points: jax.Array, weights: jax.Array, features: jax.Array, seen: jax.Array) -> Any:
    """All errors; ``seen`` has the camera and the point of each observation."""
    reprojection = errors(seen_by(rotation(cameras[:3]), seen[0]), seen_by(cameras[3:], seen[0]), seen_by(points, seen[1]), weights,
                          features)
    return jnp.stack(reprojection, axis=1), weight_error(weights)


def jacobian(ad: Any) -> Any:
    """The Jacobian of all errors in compressed rows.

    The rotation of each camera is differentiated once, by pushes; each observation is pulled through twice, from the matrix of its
    camera on.
    """

    def compressed(cameras: jax.Array, points: jax.Array, weights: jax.Array, features: jax.Array, seen: jax.Array) -> Any:
        matrices, turns = rotation(cameras[:3]), jax.vmap(ad.jacfwd(rotation), in_axes=1, out_axes=3)(cameras[:3])

        def rows(some: tuple[jax.Array, ...]) -> jax.Array:
            weight, feature, (camera, point) = some
            arguments = seen_by(matrices, camera), seen_by(cameras[3:], camera), seen_by(points, point), weight
            turn = seen_by(turns, camera)
            _, pull = ad.vjp(partial(errors, feature=feature), *arguments)
            one, none = jnp.ones_like(weight), jnp.zeros_like(weight)
            entries = []
            for ct in ((one, none), (none, one)):
                by_matrix, by_camera, by_point, by_weight = pull(ct)
                by_turn = [sum(by_matrix[i][j] * turn[i][j][r] for i in range(3) for j in range(3)) for r in range(3)]
                entries += [*by_turn, *by_camera, *by_point, by_weight]
            return jnp.stack(entries).T

        found = lax.map(rows, (blocks(weights), blocks(features), blocks(seen)))
        entries = found.reshape(-1, 2 * WIDTH)[: len(weights)].ravel()
        slopes = ad.grad(lambda w: jnp.sum(weight_error(w)))(weights)
        return *structure(cameras.shape[1], points.shape[1], seen), jnp.concatenate([entries, slopes])

    return compressed


def blocks(numbers: jax.Array) -> jax.Array:
    """Numbers of observations, block by block; the last is filled up with zeros."""
    filled = jnp.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, -numbers.shape[-1] % BLOCK)])
    return jnp.moveaxis(filled.reshape(*numbers.shape[:-1], -1, BLOCK), -2, 0)


def structure(n: int, m: int, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where each row starts, and the column of each entry."""
    p = seen.shape[1]
    starts = jnp.concatenate([WIDTH * jnp.arange(2 * p + 1), 2 * WIDTH * p + 1 + jnp.arange(p)])
    own = CAMERA * n + POINT * m + jnp.arange(p)
    pairs = [CAMERA * seen[0] + i for i in range(CAMERA)] + [CAMERA * n + POINT * seen[1] + i for i in range(POINT)] + [own]
    return starts, jnp.concatenate([jnp.stack(pairs * 2, axis=1).ravel(), own])


def read(fields: Fields) -> tuple[Any, ...]:
    n, m, p = (fields.integer(name, 1, 10**8) for name in "nmp")
    copies = [np.repeat(fields.array(name, length)[:, None], count, axis=1)
              for name, length, count in (("cam", CAMERA, n), ("x", POINT, m), ("feat", 2, p))]
    cameras, points, features = copies
    seen = np.stack([np.arange(p) % n, np.arange(p) % m]).astype(np.int32)
    return cameras, points, np.full(p, fields.number("w")), features, seen


def write_residuals(result: Any, *_: Any) -> Any:
    reprojection, weight = map(np.asarray, result)
    p = len(weight)
    return {"reproj_error": {"elements": reprojection[0].tolist(), "repeated": p},
            "w_err": {"element": weight[0].item(), "repeated": p}}


def write_jacobian(result: Any, *_: Any) -> Any:
    return {name: [*part[:30].tolist(), part[-1].item()] for name, part in zip(("rows", "cols", "vals"), result, strict=True)}


PROBLEM = Problem(read, {"objective": objective(residuals), "jacobian": jacobian},
                  write={"objective": write_residuals, "jacobian": write_jacobian})
