"""Programs whose batch is divided: data parallel, with micro-batches, and with parameters that are divided too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks.sharded.cases import Array, Loss, Sharded, layers, network, normal

SIZES = (8, 16, 16, 8)
BATCH = {"x": normal(90, 32, 8), "y": normal(91, 32, 8)}
#: So many micro-batches on each device.
MICRO = 4


def squares(params: Any, batch: Any) -> Array:
    return jnp.sum((network(params, batch["x"]) - batch["y"]) ** 2)


def by_jit(mesh: Mesh) -> Loss:
    """The program says nothing of devices: its arguments do."""
    return squares


def by_hand(mesh: Mesh) -> Loss:
    def local(params: Any, batch: Any) -> Array:
        return lax.psum(squares(params, batch), "data")

    return jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())


def micro_batches(mesh: Mesh) -> Loss:
    """Each device takes its part of the batch in pieces, one after the other."""
    def local(params: Any, batch: Any) -> Array:
        pieces = jax.tree.map(lambda x: x.reshape(MICRO, -1, *x.shape[1:]), batch)

        def step(total: Array, piece: Any) -> tuple[Array, None]:
            return total + squares(params, piece), None

        start = lax.pcast(jnp.zeros((), batch["x"].dtype), ("data",), to="varying")
        return lax.psum(lax.scan(step, start, pieces)[0], "data")

    return jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())


def micro_batches_by_jit(mesh: Mesh) -> Loss:
    def loss(params: Any, batch: Any) -> Array:
        # a piece has rows of each device
        pieces = jax.tree.map(lambda x: x.reshape(-1, MICRO, *x.shape[1:]).swapaxes(0, 1), batch)

        def step(total: Array, piece: Any) -> tuple[Array, None]:
            return total + squares(params, piece), None

        return lax.scan(step, jnp.zeros((), batch["x"].dtype), pieces)[0]

    return loss


def gathered(mesh: Mesh) -> Loss:
    """Fully sharded by hand: each layer's weights are gathered where they are used."""
    def local(params: Any, batch: Any) -> Array:
        whole = {name: lax.all_gather(w, "data", tiled=True) for name, w in params.items()}
        return lax.psum(squares(whole, batch), "data")

    return jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())


def gathered_layers(mesh: Mesh) -> Loss:
    """As :func:`gathered`, of layers that are alike, in a loop, each of which is gathered again for the pull."""
    def local(params: Any, batch: Any) -> Array:
        @jax.checkpoint
        def layer(x: Array, w: Array) -> tuple[Array, None]:
            return jnp.tanh(x @ lax.all_gather(w, "data", tiled=True)), None

        return lax.psum(jnp.sum((lax.scan(layer, batch["x"], params["w"])[0] - batch["y"]) ** 2), "data")

    return jax.shard_map(local, mesh=mesh, in_specs=(P(None, "data"), P("data")), out_specs=P())


def layers_in_a_loop(params: Any, batch: Any) -> Array:
    def layer(x: Array, w: Array) -> tuple[Array, None]:
        return jnp.tanh(x @ w), None

    return jnp.sum((lax.scan(layer, batch["x"], params["w"])[0] - batch["y"]) ** 2)


STACKED = {"w": normal(95, 6, 8, 8, scale=8**-0.5)}
ONE_AXIS = (("data", 8),)

CASES = [
    Sharded("data parallel", ONE_AXIS, by_jit, squares, layers(0, *SIZES), BATCH, P(), P("data")),
    Sharded("data parallel, explicit", ONE_AXIS, by_jit, squares, layers(0, *SIZES), BATCH, P(), P("data"), is_explicit=True),
    Sharded("data parallel, by hand", ONE_AXIS, by_hand, squares, layers(0, *SIZES), BATCH, P(), P("data")),
    Sharded("micro-batches", ONE_AXIS, micro_batches_by_jit, squares, layers(0, *SIZES), BATCH, P(), P("data")),
    Sharded("micro-batches, by hand", ONE_AXIS, micro_batches, squares, layers(0, *SIZES), BATCH, P(), P("data")),
    Sharded("fully sharded", ONE_AXIS, by_jit, squares, layers(0, *SIZES), BATCH, P("data"), P("data")),
    Sharded("fully sharded, by hand", ONE_AXIS, gathered, squares, layers(0, *SIZES), BATCH, P("data"), P("data")),
    Sharded("layers in a loop", ONE_AXIS, lambda mesh: layers_in_a_loop, layers_in_a_loop, STACKED, BATCH, P(None, "data"), P("data")),
    Sharded("layers in a loop, by hand", ONE_AXIS, gathered_layers, layers_in_a_loop, STACKED, BATCH, P(None, "data"), P("data")),
]
