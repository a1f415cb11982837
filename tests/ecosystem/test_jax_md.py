"""JAX MD: energies, forces and Hessians in periodic boxes, neighbour lists, stress, elastic moduli, minimization, simulation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

jax_md = library("jax_md", "jax-md")
energy, quantity, space = jax_md.energy, jax_md.quantity, jax_md.space

use = Uses()
BOX = 3.6
#: Eight particles near the sites of a cubic lattice.
R = (np.stack(np.meshgrid(*[[0.45, 1.95]] * 3), -1).reshape(8, 3) + 0.15 * np.random.RandomState(0).randn(8, 3)) * 1.1


def periodic() -> Any:
    return space.periodic(BOX)


@use("grad", "hvp", "vmap", "eager")
def lennard_jones() -> Any:
    return energy.lennard_jones_pair(periodic()[0]), (R,)


@use("grad", "hessian")
def soft_spheres_by_species() -> Any:
    sigma = jnp.array([[1.2, 1.5], [1.5, 1.9]])
    return energy.soft_sphere_pair(periodic()[0], species=np.array([0, 1] * 4), sigma=sigma), (R,)


@use("grad", "jvp", "vmap")
def morse_by_its_parameters() -> Any:
    displacement = periodic()[0]

    def fun(p: Any) -> Any:
        return energy.morse_pair(displacement, sigma=p["sigma"], epsilon=p["epsilon"], alpha=p["alpha"])(jnp.asarray(R))

    return fun, ({"sigma": np.array(1.1), "epsilon": np.array(0.8), "alpha": np.array(4.0)},)


@use("grad", "jvp")
def lennard_jones_with_a_neighbour_list() -> Any:
    displacement, _ = periodic()
    neighbours, function = energy.lennard_jones_neighbor_list(
        displacement, BOX, r_onset=1.2, r_cutoff=1.6, dr_threshold=0.1, disable_cell_list=True
    )
    listed = neighbours.allocate(jnp.asarray(R))
    return lambda r: function(r, neighbor=listed), (R,)


@use("grad", "hvp")
def stillinger_weber() -> Any:
    return energy.stillinger_weber(periodic()[0]), (R,)


@use("grad")
def behler_parrinello_network() -> Any:
    return energy.behler_parrinello(periodic()[0], key=jax.random.key(0), mlp_sizes=(4,)), (R,)


@use("grad", "hvp")
def loss_on_forces() -> Any:
    """Training on forces: second order in the positions, first in the parameters."""
    force = quantity.force(lambda r, alpha: energy.morse_pair(periodic()[0], sigma=1.1, alpha=alpha)(r))
    return lambda alpha: jnp.mean((force(jnp.asarray(R), alpha) - 0.1) ** 2), (np.array(4.0),)


@use("grad")
def stress_in_a_deforming_box() -> Any:
    displacement, _ = space.periodic_general(BOX * jnp.eye(3), fractional_coordinates=True)
    function = energy.lennard_jones_pair(displacement)

    def fun(box: Any) -> Any:
        return jnp.sum(quantity.stress(lambda r, **kw: function(r, **kw), jnp.asarray(R / BOX), box) ** 2)

    return fun, (BOX * np.eye(3) + 0.02,)


@use("grad", "jvp")
def simulation_differentiated_through_time() -> Any:
    displacement, shift = periodic()

    def fun(r: Any) -> Any:
        init, step = jax_md.simulate.nve(energy.soft_sphere_pair(displacement, sigma=1.7), shift, 0.02)
        state = init(jax.random.key(0), r, kT=0.1)
        return jnp.sum(jax.lax.fori_loop(0, 3, lambda i, s: step(s), state).position ** 2)

    return fun, (R,)


@use("grad")
def minimization_differentiated_through_time() -> Any:
    displacement, shift = periodic()

    def fun(sigma: Any) -> Any:
        function = energy.soft_sphere_pair(displacement, sigma=sigma)
        init, step = jax_md.minimize.gradient_descent(function, shift, 0.05)
        return function(jax.lax.fori_loop(0, 3, lambda i, s: step(s), init(jnp.asarray(R))))

    return fun, (np.array(1.9),)


@use.program
def forces_stress_and_pressure() -> Any:
    def run() -> Any:
        displacement, _ = space.periodic_general(BOX * jnp.eye(3), fractional_coordinates=True)
        function, r, box = energy.lennard_jones_pair(displacement), jnp.asarray(R / BOX), BOX * jnp.eye(3)
        return quantity.force(function)(r), quantity.stress(function, r, box), quantity.pressure(function, r, box)

    return run


@use.program
def elastic_moduli() -> Any:
    def run() -> Any:
        displacement, _ = space.periodic_general(BOX * jnp.eye(3), fractional_coordinates=True)
        function = energy.soft_sphere_pair(displacement, sigma=1.9)
        return jax_md.elasticity.athermal_moduli(function, tether_strength=1e-3, cg_tol=1e-12)(jnp.asarray(R / BOX), BOX * jnp.eye(3))

    return run


@use.program
def fire_minimization_and_langevin_dynamics() -> Any:
    def run() -> Any:
        displacement, shift = periodic()
        function = energy.soft_sphere_pair(displacement, sigma=1.7)
        init, step = jax_md.minimize.fire_descent(function, shift)
        state = jax.lax.fori_loop(0, 3, lambda i, s: step(s), init(jnp.asarray(R)))
        start, move = jax_md.simulate.nvt_langevin(function, shift, 0.01, 0.1)
        return state.position, move(start(jax.random.key(0), state.position)).position

    return run


test_use = use.derivatives_test()
test_installed = use.programs_test()
