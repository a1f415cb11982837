"""Programs whose model is divided: tensors of a transformer block, experts, positions in a ring, stages of a pipeline."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks.sharded.cases import Array, Loss, Sharded, attend, layer_norm, normal

BATCH, POSITIONS, HEADS, FEATURES = 4, 8, 4, 4
WIDTH, HIDDEN = HEADS * FEATURES, 32

# ------------------------------------------------------------------------------------------------------- a transformer block

BLOCK = {"qkv": normal(0, 3, WIDTH, HEADS, FEATURES, scale=WIDTH**-0.5), "out": normal(1, HEADS, FEATURES, WIDTH, scale=WIDTH**-0.5),
         "up": normal(2, WIDTH, HIDDEN, scale=WIDTH**-0.5), "down": normal(3, HIDDEN, WIDTH, scale=HIDDEN**-0.5)}
#: Heads, and hidden units, are divided: each product of two layers is summed once.
BLOCK_SPECS = {"qkv": P(None, None, "model", None), "out": P("model", None, None), "up": P(None, "model"), "down": P("model", None)}
TOKENS = normal(4, BATCH, POSITIONS, WIDTH)


def block(params: Any, x: Array, total: Any = lambda x: x, share: Any = lambda x: x) -> Array:
    """A transformer block; ``total`` sums what devices have of a product, ``share`` hands a value to all of them."""
    h = share(layer_norm(x))
    q, k, v = (jnp.einsum("bpw,whf->bphf", h, w) for w in params["qkv"])
    x = x + total(jnp.einsum("bphf,hfw->bpw", attend(q, k, v), params["out"]))
    h = share(layer_norm(x))
    return x + total(jax.nn.gelu(h @ params["up"]) @ params["down"])


def block_loss(params: Any, x: Array) -> Array:
    return jnp.sum(block(params, x) ** 2)


def block_by_hand(mesh: Mesh) -> Loss:
    def local(params: Any, x: Array) -> Array:
        found = block(params, x, lambda y: lax.psum(y, "model"))
        return lax.psum(jnp.sum(found**2), "data")

    return jax.shard_map(local, mesh=mesh, in_specs=(BLOCK_SPECS, P("data")), out_specs=P())


def block_explicit(mesh: Mesh) -> Loss:
    """Types hold shardings: where a sum over devices is meant, the program says how the result lies."""
    def loss(params: Any, x: Array) -> Array:
        to = P("data", None, None)
        h = layer_norm(x)
        q, k, v = (jnp.einsum("bpw,whf->bphf", h, params["qkv"][i]) for i in range(3))
        x = x + jnp.einsum("bphf,hfw->bpw", attend(q, k, v), params["out"], out_sharding=to)
        hidden = jax.nn.gelu(jnp.einsum("bpw,wh->bph", layer_norm(x), params["up"]))
        return jnp.sum((x + jnp.einsum("bph,hw->bpw", hidden, params["down"], out_sharding=to)) ** 2)

    return loss


# -------------------------------------------------------------------------------------------------------------------- experts

EXPERTS, CAPACITY = 8, 8
MIXTURE = {"router": normal(10, WIDTH, EXPERTS), "up": normal(11, EXPERTS, WIDTH, HIDDEN, scale=WIDTH**-0.5),
           "down": normal(12, EXPERTS, HIDDEN, WIDTH, scale=HIDDEN**-0.5)}
ROUTED = normal(13, 64, WIDTH)


def routed(router: Array, x: Array) -> tuple[Array, Array]:
    """Of tokens ``(t, w)``: where each goes, ``(t, experts, places)``, and the weight of its expert."""
    gates = jax.nn.softmax(x @ router)
    chosen = jnp.argmax(gates, -1)
    hot = jax.nn.one_hot(chosen, EXPERTS, dtype=x.dtype)
    place = jnp.cumsum(hot, 0) * hot - 1
    places = jax.nn.one_hot(place.astype(int), CAPACITY, dtype=x.dtype) * hot[..., None]
    return places, jnp.max(gates, -1)


def mixture(params: Any, x: Array, to_experts: Any, back: Any) -> Array:
    places, gate = routed(params["router"], x)
    sent = to_experts(jnp.einsum("tec,tw->ecw", places, x))
    found = jnp.einsum("ech,ehw->ecw", jnp.tanh(jnp.einsum("ecw,ewh->ech", sent, params["up"])), params["down"])
    return jnp.einsum("tec,ecw->tw", places, back(found)) * gate[:, None]


def mixture_whole(params: Any, x: Array) -> Array:
    """Each eighth of the tokens is routed for itself, as on devices."""
    parts = [mixture(params, part, lambda y: y, lambda y: y) for part in jnp.split(x, EXPERTS)]
    return jnp.sum(jnp.concatenate(parts) ** 2)


def experts(mesh: Mesh) -> Loss:
    def local(params: Any, x: Array) -> Array:
        def exchange(y: Array, split: int, join: int) -> Array:
            return lax.all_to_all(y, "expert", split, join, tiled=True)

        found = mixture(params, x, functools.partial(exchange, split=0, join=1), functools.partial(exchange, split=1, join=0))
        return lax.psum(jnp.sum(found**2), "expert")

    specs = {"router": P(), "up": P("expert"), "down": P("expert")}
    return jax.shard_map(local, mesh=mesh, in_specs=(specs, P("expert")), out_specs=P())


# ----------------------------------------------------------------------------------------------------------------------- ring

LONG = 32
RING = {"qkv": normal(20, 3, WIDTH, HEADS, FEATURES, scale=WIDTH**-0.5), "out": normal(21, HEADS, FEATURES, WIDTH, scale=WIDTH**-0.5)}
SEQUENCE = normal(22, 2, LONG, WIDTH)


def ring_whole(params: Any, x: Array) -> Array:
    q, k, v = (jnp.einsum("bpw,whf->bphf", x, w) for w in params["qkv"])
    return jnp.sum(jnp.einsum("bphf,hfw->bpw", attend(q, k, v), params["out"]) ** 2)


def ring_attention(q: Array, k: Array, v: Array, n: int) -> Array:
    """Keys and values go round; each device keeps the running maximum, the sum and the weighted values of its own queries.

    Each step is computed again for the pull, so that what is kept are the keys and values on their way.
    """
    @jax.checkpoint
    def step(state: Any, _: None) -> tuple[Any, None]:
        k, v, top, total, found = state
        scores = jnp.einsum("bqhd,bkhd->bqhk", q, k) * q.shape[-1] ** -0.5
        new = jnp.maximum(top, lax.stop_gradient(jnp.max(scores, -1)))
        scale, weights = jnp.exp(top - new), jnp.exp(scores - new[..., None])
        found = found * scale[..., None] + jnp.einsum("bqhk,bkhd->bqhd", weights, v)
        to_next = [(i, (i + 1) % n) for i in range(n)]
        k, v = (lax.ppermute(x, "ring", to_next) for x in (k, v))
        return (k, v, new, total * scale + jnp.sum(weights, -1), found), None

    zero = jnp.zeros_like(q)
    start = (k, v, zero[..., 0] - 1e30, zero[..., 0], zero)
    _, _, _, total, found = lax.scan(step, start, None, length=n)[0]
    return found / total[..., None]


def ring(mesh: Mesh) -> Loss:
    def local(params: Any, x: Array) -> Array:
        q, k, v = (jnp.einsum("bpw,whf->bphf", x, w) for w in params["qkv"])
        found = ring_attention(q, k, v, mesh.shape["ring"])
        return lax.psum(jnp.sum(jnp.einsum("bphf,hfw->bpw", found, params["out"]) ** 2), "ring")

    return jax.shard_map(local, mesh=mesh, in_specs=(P(), P(None, "ring")), out_specs=P())


# ------------------------------------------------------------------------------------------------------------------- pipeline

STAGES, PIECES = 4, 6
PIPELINE = {"w": normal(30, STAGES, 2, WIDTH, WIDTH, scale=WIDTH**-0.5)}
FLOW = normal(31, PIECES, 8, WIDTH)


def stage(w: Array, x: Array) -> Array:
    return x + jnp.tanh(x @ w[0]) @ w[1]


def pipeline_whole(params: Any, x: Array) -> Array:
    for w in params["w"]:
        x = stage(w, x)
    return jnp.sum(x**2)


def pipeline(mesh: Mesh) -> Loss:
    """Micro-batches enter at the first stage, one at each tick; what a stage has made goes to the next."""
    def local(params: Any, x: Array) -> Array:
        w = params["w"][0]
        n, m = STAGES, x.shape[0]
        here = lax.axis_index("stage")
        entering = jnp.concatenate([x, jnp.zeros((n - 1, *x.shape[1:]), x.dtype)])

        def tick(held: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            t, new = given
            made = stage(w, jnp.where(here == 0, new, held))
            is_result = (here == n - 1) & (t >= n - 1)
            part = jnp.where(is_result, jnp.sum(made**2), 0)
            return lax.ppermute(made, "stage", [(i, i + 1) for i in range(n - 1)]), part

        start = lax.pcast(jnp.zeros_like(x[0]), ("stage",), to="varying")
        _, parts = lax.scan(tick, start, (jnp.arange(m + n - 1), entering))
        return lax.psum(jnp.sum(parts), ("data", "stage"))

    return jax.shard_map(local, mesh=mesh, in_specs=(P("stage"), P(None, "data")), out_specs=P())


GRID = (("data", 2), ("model", 4))
CASES = [
    Sharded("tensor parallel block", GRID, lambda mesh: block_loss, block_loss, BLOCK, TOKENS, BLOCK_SPECS, P("data")),
    Sharded("tensor parallel block, by hand", GRID, block_by_hand, block_loss, BLOCK, TOKENS, BLOCK_SPECS, P("data")),
    Sharded("tensor parallel block, explicit", GRID, block_explicit, block_loss, BLOCK, TOKENS, BLOCK_SPECS, P("data"),
            is_explicit=True),
    Sharded("experts", (("expert", 8),), experts, mixture_whole, MIXTURE, ROUTED,
            {"router": P(), "up": P("expert"), "down": P("expert")}, P("expert")),
    Sharded("ring attention", (("ring", 8),), ring, ring_whole, RING, SEQUENCE, P(), P(None, "ring")),
    Sharded("pipeline", (("data", 2), ("stage", 4)), pipeline, pipeline_whole, PIPELINE, FLOW, P("stage"), P(None, "data")),
]
