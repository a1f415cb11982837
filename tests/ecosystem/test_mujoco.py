"""MJX: steps of rigid-body simulation, differentiated by state and control; kinematics, inverse dynamics, contacts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from uses import Uses, library

mujoco = library("mujoco", "mujoco-mjx")
mjx = library("mujoco.mjx", "mujoco-mjx")

use = Uses()

PENDULUM = """
<mujoco><option timestep="0.01" iterations="1" ls_iterations="4">
<flag eulerdamp="disable" contact="disable"/></option>
<worldbody><body><joint name="a" type="hinge" axis="0 1 0" damping="0.1"/><geom type="capsule" size="0.05" fromto="0 0 0 0 0 -0.5"/>
<body pos="0 0 -0.5"><joint name="b" type="hinge" axis="0 1 0"/>
<geom type="capsule" size="0.05" fromto="0 0 0 0 0 -0.4"/></body></body></worldbody>
<actuator><motor joint="a"/><position joint="b" kp="2"/></actuator></mujoco>
"""

BALL = """
<mujoco><option timestep="0.005" iterations="2" ls_iterations="4"/>
<worldbody><geom type="plane" size="5 5 0.1"/>
<body pos="0 0 0.099"><freejoint/><geom type="sphere" size="0.1"/></body></worldbody></mujoco>
"""


def model(text: str) -> Any:
    source = mujoco.MjModel.from_xml_string(text)
    return mjx.put_model(source), mjx.make_data(source)


def rollout(m: Any, d: Any, steps: int) -> Any:
    """The end of a few steps, by position, velocity and control."""

    def fun(p: Any) -> Any:
        state = d.replace(qpos=p["qpos"], qvel=p["qvel"], ctrl=p["ctrl"])
        state = jax.lax.scan(lambda s, _: (mjx.step(m, s), None), state, None, length=steps)[0]
        return jnp.sum(state.qpos**2) + 0.1 * jnp.sum(state.qvel**2)

    return fun


@use("grad")
def steps_of_a_double_pendulum() -> Any:
    m, d = model(PENDULUM)
    return rollout(m, d, 2), ({"qpos": np.array([0.4, -0.7]), "qvel": np.array([0.1, 0.5]), "ctrl": np.array([0.3, -0.2])},)


@use("jacfwd")
def linearized_dynamics() -> Any:
    m, d = model(PENDULUM)

    def fun(x: Any) -> Any:
        state = mjx.step(m, d.replace(qpos=x[:2], qvel=x[2:4], ctrl=x[4:]))
        return jnp.concatenate([state.qpos, state.qvel])

    return fun, (np.array([0.4, -0.7, 0.1, 0.5, 0.3, -0.2]),)


@use("grad", "hvp", "vmap")
def forward_kinematics() -> Any:
    m, d = model(PENDULUM)
    return (
        lambda q: jnp.sum(mjx.kinematics(m, d.replace(qpos=q)).xpos[2] ** 2) + jnp.sum(mjx.kinematics(m, d.replace(qpos=q)).xmat ** 3),
        (np.array([0.4, -0.7]),),
    )


@use("jvp")  # in reverse mode jax refuses the loop of the contact solver
def a_ball_in_contact() -> Any:
    m, d = model(BALL)

    def fun(p: Any) -> Any:
        state = mjx.step(m, d.replace(qpos=p["qpos"], qvel=p["qvel"]))
        return jnp.sum(state.qpos**2) + jnp.sum(state.qvel**2)

    return fun, ({"qpos": np.array([0.1, 0.2, 0.098, 1.0, 0.0, 0.0, 0.0]), "qvel": np.array([0.3, 0.1, -0.2, 0.1, 0.2, 0.3])},)


@use.program
def a_gradient_step_on_the_control() -> Any:
    m, d = model(PENDULUM)
    p = {"qpos": jnp.array([0.4, -0.7]), "qvel": jnp.array([0.1, 0.5]), "ctrl": jnp.array([0.3, -0.2])}
    return lambda: jax.jit(lambda c: c - 0.1 * jax.grad(lambda c: rollout(m, d, 2)({**p, "ctrl": c}))(c))(p["ctrl"])


test_use = use.derivatives_test()
test_installed = use.programs_test()
