"""``python -m papers.modes``: both modes at work."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from papers.modes.counting import count
from papers.modes.uncertainty import flight, propagate


def main() -> None:
    launch, covariance = jnp.array([12.0, 0.9]), jnp.diag(jnp.array([0.6, 0.05])) ** 2
    mean, spread = jax.jit(lambda m, c: propagate(flight, m, c))(launch, covariance)
    samples = jax.random.multivariate_normal(jax.random.key(0), launch, covariance, (100_000,))
    flights = jax.vmap(flight)(samples)
    print("a ball after one second, launched at 12.0 ± 0.6 m/s and 0.90 ± 0.05 rad")
    print("              mean             standard deviation")
    print(f"  this mode   {mean[0]:6.3f} {mean[1]:6.3f}    {spread[0, 0] ** 0.5:6.4f} {spread[1, 1] ** 0.5:6.4f}")
    m, s = flights.mean(0), flights.std(0)
    print(f"  100,000     {m[0]:6.3f} {m[1]:6.3f}    {s[0]:6.4f} {s[1]:6.4f}")
    print(f"  no mode     {flight(launch)[0]:6.3f} {flight(launch)[1]:6.3f}")

    def network(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        for w in weights:
            x = jnp.tanh(x @ w)
        return x.sum()

    print("\na network of three layers of 256, a batch of 32")
    for name, cost in count(network, [jnp.ones((256, 256))] * 3, jnp.ones((32, 256))).items():
        print(f"  {name:6} {cost.flops / 1e6:6.1f} Mflop  {cost.bytes / 2**20:5.1f} MiB  {cost.kernels:3} kernels")


if __name__ == "__main__":
    main()
