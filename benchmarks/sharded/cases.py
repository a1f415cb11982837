"""What a sharded program is: a loss on a mesh, the same loss on one device, and where its parameters and its batch lie."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Array = jax.Array

#: A function of parameters and a batch that gives one number.
Loss = Callable[[Any, Any], Array]


@dataclass(frozen=True)
class Sharded:
    """A training step in small: ``loss(mesh)`` is what runs on devices, ``whole`` the same function written without them."""

    name: str
    axes: tuple[tuple[str, int], ...]
    loss: Callable[[Mesh], Loss]
    whole: Loss
    params: Any
    batch: Any
    #: Trees of specs, or one for all.
    param_specs: Any
    batch_specs: Any
    is_explicit: bool = False

    def mesh(self) -> Mesh:
        kind = AxisType.Explicit if self.is_explicit else AxisType.Auto
        names, sizes = zip(*self.axes, strict=True)
        return jax.make_mesh(sizes, names, axis_types=(kind,) * len(names))

    def placed(self, mesh: Mesh) -> tuple[Any, Any]:
        """Parameters and batch on the mesh."""
        return put(self.params, self.param_specs, mesh), put(self.batch, self.batch_specs, mesh)

    def shardings(self, mesh: Mesh) -> Any:
        """Where each parameter lies."""
        return jax.tree.map(lambda spec, _: NamedSharding(mesh, spec), spread(self.params, self.param_specs), self.params)

    def compiled(self, library: Any, mesh: Mesh) -> Any:
        """The compiled ``value_and_grad`` of dualrev or of jax, with gradients that lie as the parameters do."""
        gradient = library.value_and_grad(self.loss(mesh))
        placed = jax.jit(gradient, out_shardings=None if self.is_explicit else (NamedSharding(mesh, P()), self.shardings(mesh)))
        with jax.set_mesh(mesh):
            return placed.lower(*self.placed(mesh)).compile()

    def expected(self) -> Any:
        """Value and gradient by jax on one device."""
        return jax.jit(jax.value_and_grad(self.whole))(*jax.tree.map(jnp.asarray, (self.params, self.batch)))


def spread(tree: Any, specs: Any) -> Any:
    """A spec for each leaf of a tree."""
    return jax.tree.map(lambda _: specs, tree) if isinstance(specs, P) else specs


def put(tree: Any, specs: Any, mesh: Mesh) -> Any:
    found = jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), tree, spread(tree, specs))
    return jax.block_until_ready(found)


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * scale)


def layers(seed: int, *sizes: int) -> dict[str, np.ndarray]:
    """Weights of a network, scaled by the number of inputs."""
    return {f"w{i}": normal(seed + i, m, n, scale=m**-0.5) for i, (m, n) in enumerate(itertools.pairwise(sizes))}


def network(params: dict[str, Array], x: Array) -> Array:
    names = sorted(params)
    for name in names[:-1]:
        x = jnp.tanh(x @ params[name])
    return x @ params[names[-1]]


def attend(q: Array, k: Array, v: Array) -> Array:
    """Attention of ``(batch, positions, heads, features)``, not causal."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


def layer_norm(x: Array) -> Array:
    centred = x - jnp.mean(x, -1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-6)
