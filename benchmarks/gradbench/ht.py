"""Hand tracking: how far measured points are from a hand that its bones move [SrajerEtAl2018, section 4.3]."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gradbench.problem import Fields, InputError, Problem, objective

BONES, ANGLES = 22, 26


def _pose() -> np.ndarray:
    """[bone]: which of (0, theta) are the three angles of the bone."""
    place = np.zeros((BONES + 3, 3), int)
    i, column = 6, 5
    for _finger in range(5):
        for joint in (2, 3, 4):
            turns = 2 if joint == 2 else 1
            place[column, :turns] = 1 + np.arange(i, i + turns)
            i, column = i + turns, column + 1
        column += 1
    return place[3:]


POSE = _pose()


class Hand(NamedTuple):
    """A model: its bones at rest, its vertices, and how much of each bone moves each vertex.  ``mirror`` is -1 or 1."""

    relatives: Any
    inverse_absolutes: Any
    vertices: Any
    weights: Any
    triangles: Any
    mirror: Any


Parents = tuple[int, ...]


def rotations(angles: jax.Array) -> jax.Array:
    """Rz(a₁) Ry(a₂) Rx(a₀) for the angles a of each bone."""
    (cx, cz, cy), (sx, sz, sy) = jnp.cos(angles).T, jnp.sin(angles).T
    rows = [[cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx]]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def axis_rotation(r: jax.Array) -> jax.Array:
    """The rotation by |r| about r, which is none where |r| is below 1e-4."""
    squared = jnp.sum(r * r)
    is_small = squared < 1e-8
    angle = jnp.sqrt(jnp.where(is_small, 1.0, squared))
    w = r / angle
    cross = jnp.stack([jnp.stack([0 * w[0], -w[2], w[1]]), jnp.stack([w[2], 0 * w[0], -w[0]]), jnp.stack([-w[1], w[0], 0 * w[0]])])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.where(is_small, jnp.eye(3), cos * jnp.eye(3) + sin * cross + (1 - cos) * w[:, None] * w)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix products of many small matrices, written out: quicker than a call for each."""
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def transforms(theta: jax.Array, hand: Hand, parents: Parents) -> jax.Array:
    """[coordinate, bone, 4]: how each bone moves points of the hand at rest, global motion included.

    Bones that are equally far from the root are moved together.
    """
    turns = rotations(jnp.concatenate([jnp.zeros(1), theta])[POSE])
    relatives = jnp.concatenate([product(hand.relatives[:, :3, :3], turns), hand.relatives[:, :3, 3:]], axis=2)
    depths = depths_of(parents)
    levels: list[jax.Array] = []
    place: dict[int, int] = {}
    for depth in range(max(depths) + 1):
        bones = [i for i in range(BONES) if depths[i] == depth]
        moved = relatives[np.array(bones)]
        if depth:
            above = levels[-1][np.array([place[parents[i]] for i in bones])]
            moved = product(above[..., :3], moved) + jnp.pad(above[..., 3:], ((0, 0), (0, 0), (3, 0)))
        place = {bone: i for i, bone in enumerate(bones)}
        levels.append(moved)
    order = np.argsort(np.argsort(np.array(depths), kind="stable"), kind="stable")
    absolutes = jnp.concatenate(levels)[order]
    motions = product(absolutes[..., :3], hand.inverse_absolutes[:, :3]) + absolutes[..., 3:] * hand.inverse_absolutes[:, 3:]
    mirrored = motions * jnp.stack([hand.mirror, jnp.ones(()), jnp.ones(())])[:, None]
    return jnp.einsum("ij,bjk->ibk", axis_rotation(theta[:3]), mirrored)


def depths_of(parents: Parents) -> list[int]:
    depths = []
    for bone in range(len(parents)):
        depth = 0
        while (bone := parents[bone]) != -1:
            depth += 1
            if depth > len(parents):
                raise InputError("input has bones in data.model.parents that descend from themselves")
        depths.append(depth)
    return depths


def distances(theta: jax.Array, us: jax.Array, points: jax.Array, chosen: jax.Array, hand: Hand, parents: Parents) -> jax.Array:
    """Σ_b weight_b T_b v is linear in all bones' T: of the weighted vertices that are needed, one product of matrices."""

    def weighted(vertices: jax.Array) -> jax.Array:
        return (hand.weights[vertices][:, :, None] * hand.vertices[vertices][:, None, :]).reshape(len(vertices), -1)

    if us.size:
        corners = hand.triangles[chosen]
        u, v = us[:, :1], us[:, 1:]
        mixed = u * weighted(corners[:, 0]) + v * weighted(corners[:, 1]) + (1 - u - v) * weighted(corners[:, 2])
    else:
        mixed = weighted(chosen)
    # Weights of a vertex need not sum to 1, so the global shift is added to vertices and not to bones.
    positions = mixed @ transforms(theta, hand, parents).reshape(3, -1).T + theta[3:6]
    return points - positions


def jacobian(ad: Any) -> Any:
    """26 pushes, and two for us: a point has numbers of its own, so that a shift of all at once moves each error by its own."""

    def by_columns(theta: jax.Array, us: jax.Array, points: jax.Array, chosen: jax.Array, hand: Hand, parents: Parents) -> jax.Array:
        columns = ad.jacfwd(lambda theta: distances(theta, us, points, chosen, hand, parents))(theta)
        if us.size:
            own = ad.jacfwd(lambda shift: distances(theta, us + shift, points, chosen, hand, parents))(jnp.zeros(2))
            columns = jnp.concatenate([own, columns], axis=2)
        return columns.reshape(points.size, -1)

    return by_columns


def flat_distances(*arguments: Any) -> jax.Array:
    return distances(*arguments).ravel()


def read(fields: Fields) -> tuple[Any, ...]:
    data = fields.inside("data")
    model = data.inside("model")
    bones = model.integer("bone_count", BONES, BONES)
    points = data.array("points", None, 3)
    vertices = model.array("base_positions", None, 4)
    triangles = model.indices("triangles", len(vertices), None, 3)
    us = np.zeros((0, 2)) if fields["us"] == [] else fields.array("us", len(points), 2)
    chosen = data.indices("correspondences", len(triangles) if us.size else len(vertices), len(points))
    parents = tuple([int(parent) for parent in model.indices("parents", bones, bones, least=-1)])
    depths_of(parents)
    hand = Hand(model.array("base_relatives", bones, 4, 4), model.array("inverse_base_absolutes", bones, 4, 4), vertices,
                model.array("weights", len(vertices), bones), triangles, np.asarray(-1.0 if model["is_mirrored"] else 1.0))
    return fields.array("theta", ANGLES), us, points, chosen, hand, parents


PROBLEM = Problem(read, {"objective": objective(flat_distances), "jacobian": jacobian}, static=(5,))
