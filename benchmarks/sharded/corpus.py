"""Small programs on devices, each with one thing in it that a derivative may send too much for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks.sharded.cases import Array, Loss, Sharded, layers, network, normal

PARAMS = layers(40, 8, 16, 8)
BATCH = normal(42, 32, 8)


SAME, ROWS = P(), P("data")


def on_data(local: Callable[[Any, Array], Array], params: Any = SAME, batch: P = ROWS, **options: Any) -> Callable[[Mesh], Loss]:
    """What each device computes, as a loss on a mesh."""
    return lambda mesh: jax.shard_map(local, mesh=mesh, in_specs=(params, batch), out_specs=P(), **options)


def squares(params: Any, x: Array) -> Array:
    return jnp.sum(network(params, x) ** 2)


def pieces(x: Array, n: int = 4) -> Array:
    return x.reshape(n, -1, x.shape[-1])


def added(loss: Callable[[Any, Array], Array], params: Any, x: Array, n: int = 4) -> Array:
    """The sum of losses of pieces, in a loop."""
    start = lax.pcast(jnp.zeros((), x.dtype), ("data",), to="varying")
    return lax.scan(lambda total, piece: (total + loss(params, piece), None), start, pieces(x, n))[0]


def with_checkpoints(params: Any, x: Array) -> Array:
    return lax.psum(added(jax.checkpoint(squares), params, x), "data")


def in_two_loops(params: Any, x: Array) -> Array:
    return lax.psum(added(lambda p, y: added(squares, p, y, 2), params, x, 2), "data")


def by_counter(params: Any, x: Array) -> Array:
    parts = pieces(x)
    start = lax.pcast(jnp.zeros((), x.dtype), ("data",), to="varying")
    return lax.psum(lax.fori_loop(0, 4, lambda i, total: total + squares(params, parts[i]), start), "data")


def in_branches(params: Any, x: Array) -> Array:
    def loss(params: Any, y: Array) -> Array:
        copies = jax.tree.map(lambda w: lax.pcast(w, ("data",), to="varying"), params)  # as devices take different branches
        return lax.cond(jnp.sum(y) > 0, squares, lambda p, y: 2 * squares(p, y), copies, y)

    return lax.psum(added(loss, params, x), "data")


def in_branches_whole(params: Any, x: Array) -> Array:
    parts = [piece for part in jnp.split(x, 8) for piece in pieces(part)]
    return sum((jnp.where(jnp.sum(y) > 0, 1, 2) * squares(params, y) for y in parts), start=jnp.zeros(()))


def mean(params: Any, x: Array) -> Array:
    return lax.pmean(squares(params, x), "data")


def normalized(params: Any, x: Array, average: Callable[[Array], Array] = lambda y: y) -> Array:
    """Batch normalization: means and variances over all devices."""
    h = x @ params["w0"]
    centred = h - average(jnp.mean(h, 0))
    return jnp.sum((jnp.tanh(centred * lax.rsqrt(average(jnp.mean(centred**2, 0)) + 1e-5)) @ params["w1"]) ** 2)


def batch_norm(params: Any, x: Array) -> Array:
    return lax.psum(normalized(params, x, lambda y: lax.pmean(y, "data")), "data")


def sequence_parallel(params: Any, x: Array) -> Array:
    """Rows are divided outside the products, hidden units inside."""
    h = jnp.tanh(lax.all_gather(x, "data", tiled=True) @ params["w0"]) @ params["w1"]
    return lax.psum(jnp.sum((x + lax.psum_scatter(h, "data", tiled=True)) ** 2), "data")


def sequence_whole(params: Any, x: Array) -> Array:
    return jnp.sum((x + jnp.tanh(x @ params["w0"]) @ params["w1"]) ** 2)


def vocabulary(params: Any, x: Array) -> Array:
    """Logits are divided: the maximum and the sum of a softmax are over devices."""
    logits = x @ params["w"]
    top = lax.pmax(lax.stop_gradient(jnp.max(logits, -1)), "data")
    return jnp.sum(jnp.log(lax.psum(jnp.sum(jnp.exp(logits - top[:, None]), -1), "data")) + top)


def vocabulary_whole(params: Any, x: Array) -> Array:
    return jnp.sum(jax.nn.logsumexp(x @ params["w"], -1))


def diffusion(params: Any, u: Array) -> Array:
    """Steps on a line that is divided, with the neighbours' entries at both ends."""
    def step(u: Array, _: None) -> tuple[Array, None]:
        left = lax.ppermute(u[-1:], "data", [(i, (i + 1) % 8) for i in range(8)])
        right = lax.ppermute(u[:1], "data", [(i, (i - 1) % 8) for i in range(8)])
        near = jnp.concatenate([left, u, right])
        return u + params["k"] * (near[2:] - 2 * u + near[:-2]) + jnp.sin(u) * params["c"], None

    return lax.psum(jnp.sum(lax.scan(step, u, None, length=5)[0] ** 2), "data")


def diffusion_whole(params: Any, u: Array) -> Array:
    for _ in range(5):
        u = u + params["k"] * (jnp.roll(u, -1) - 2 * u + jnp.roll(u, 1)) + jnp.sin(u) * params["c"]
    return jnp.sum(u**2)


def recurrent(params: Any, x: Array) -> Array:
    """Weights that are divided and gathered in each step of a loop."""
    def step(h: Array, piece: Array) -> tuple[Array, None]:
        return jnp.tanh(h @ lax.all_gather(params["w"], "data", tiled=True) + piece), None

    steps = pieces(x)
    start = lax.pcast(jnp.zeros(steps.shape[1:], x.dtype), ("data",), to="varying")
    return lax.psum(jnp.sum(lax.scan(step, start, steps)[0] ** 2), "data")


def recurrent_whole(params: Any, x: Array) -> Array:
    total = jnp.zeros(())
    for part in jnp.split(x, 8):
        steps = pieces(part)
        h = jnp.zeros(steps.shape[1:])
        for piece in steps:
            h = jnp.tanh(h @ params["w"] + piece)
        total = total + jnp.sum(h**2)
    return total


ONE_AXIS = (("data", 8),)
LAYERS = {"w0": P(None, "data"), "w1": P("data")}


def case(name: str, loss: Callable[[Mesh], Loss], whole: Loss, params: Any = PARAMS, batch: Any = BATCH, spec: Any = SAME,
         batch_spec: P = ROWS) -> Sharded:
    return Sharded(name, ONE_AXIS, loss, whole, params, batch, spec, batch_spec)


CASES = [
    case("checkpointed micro-batches", on_data(with_checkpoints), squares),
    case("micro-batches of micro-batches", on_data(in_two_loops), squares),
    case("micro-batches by a counter", on_data(by_counter), squares),
    case("branches in micro-batches", on_data(in_branches), in_branches_whole),
    case("mean loss", on_data(mean), lambda p, x: squares(p, x) / 8),
    case("without types", on_data(lambda p, x: lax.psum(squares(p, x), "data"), check_vma=False), squares),
    case("batch norm", on_data(batch_norm), normalized),
    case("sequence parallel", on_data(sequence_parallel, LAYERS), sequence_whole, spec=LAYERS),
    case("divided vocabulary", on_data(vocabulary, P(None, "data"), SAME), vocabulary_whole, {"w": normal(44, 8, 64)},
         spec=P(None, "data"), batch_spec=SAME),
    case("diffusion", on_data(diffusion), diffusion_whole, {"k": normal(45) * 0.1, "c": normal(46) * 0.1}, normal(47, 64)),
    case("recurrent, gathered", on_data(recurrent, P("data")), recurrent_whole, {"w": normal(48, 8, 8, scale=0.3)}, spec=P("data")),
]
