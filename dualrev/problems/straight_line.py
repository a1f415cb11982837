"""Straight-line programs of many scalars, on which the literature counts the multiplications of a Jacobian.

Each is written from its published definition, with every quantity that a formula names computed once.  How many multiplications a
Jacobian takes depends on how a program is written: counts of others are for their own text of the same functions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from dualrev.functional.gradients import grad

#: The ratio of specific heats of a diatomic gas.
GAMMA = 1.4

Scalars = tuple[jax.Array, ...]


def human_heart_dipole(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array, t: jax.Array, u: jax.Array, v: jax.Array,
                       w: jax.Array) -> Scalars:
    """The eight equations of the human heart dipole, whose right-hand sides are data (here 1).

    Two dipoles with moments ``(a, c)`` and ``(b, d)`` at ``(t, v)`` and ``(u, w)`` have given sums of moments to order three.
    [AverickEtAl1992, sec. 2.5].
    """
    tv, uw = t**2 - v**2, u**2 - w**2
    t3, v3 = t * (t**2 - 3 * v**2), v * (v**2 - 3 * t**2)
    u3, w3 = u * (u**2 - 3 * w**2), w * (w**2 - 3 * u**2)
    return (a + b - 1, c + d - 1,
            t * a + u * b - v * c - w * d - 1,
            v * a + w * b + t * c + u * d - 1,
            a * tv - 2 * c * t * v + b * uw - 2 * d * u * w - 1,
            c * tv + 2 * a * t * v + d * uw + 2 * b * u * w - 1,
            a * t3 + c * v3 + b * u3 + d * w3 - 1,
            c * t3 - a * v3 + d * u3 - b * w3 - 1)


def propane_combustion(x1: jax.Array, x2: jax.Array, x3: jax.Array, x4: jax.Array, x5: jax.Array, x6: jax.Array, x7: jax.Array,
                       x8: jax.Array, x9: jax.Array, x10: jax.Array, x11: jax.Array) -> Scalars:
    """The equilibrium of the combustion of propane in air: eleven amounts of products, at a pressure of 40 and with 10 parts of air.

    Equilibrium constants are 1, as where the literature counts.
    [AverickEtAl1992, sec. 2.6].
    """
    p, air = 40.0, 10.0
    q = p / x11
    root = jnp.sqrt(q)
    return (x1 + x4 - 3,
            2 * x1 + x2 + x4 + x7 + x8 + x9 + 2 * x10 - air,
            2 * x2 + 2 * x5 + x6 + x7 - 8,
            2 * x3 + x9 - 4 * air,
            x2 * x4 - x1 * x5,
            jnp.sqrt(x2 * x4) - jnp.sqrt(x1) * x6 * root,
            jnp.sqrt(x1 * x2) - jnp.sqrt(x4) * x7 * root,
            x1 - x4 * x8 * q,
            x1 * jnp.sqrt(x3) - x4 * x9 * root,
            x1**2 - x4**2 * x10 * q,
            x11 - (x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + x10))


def robot_arm(t1: jax.Array, t2: jax.Array, t3: jax.Array, t4: jax.Array, t5: jax.Array, t6: jax.Array) -> Scalars:
    """The position and the Euler angles of the hand of an arm with six joints, from the angles of the joints.

    Lengths are those of an industrial arm, in millimetres.  The columns of the hand's rotation are from the product of the joints'
    rotations with Denavit and Hartenberg's convention [Craig, Introduction to Robotics, ch. 3].
    """
    a1, a2, a3, d1, d4, d6 = 175.0, 890.0, 50.0, 575.0, 1035.0, 185.0
    c1, c2, c4, c5, c6 = (jnp.cos(t) for t in (t1, t2, t4, t5, t6))
    s1, s2, s4, s5, s6 = (jnp.sin(t) for t in (t1, t2, t4, t5, t6))
    t23 = t2 + t3
    c23, s23 = jnp.cos(t23), jnp.sin(t23)
    # In the vertical plane of the arm, across it, and upwards: the direction in which the hand points.
    along = c23 * c4 * s5 + s23 * c5
    across = s4 * s5
    ax, ay = c1 * along + s1 * across, s1 * along - c1 * across
    az = s23 * c4 * s5 - c23 * c5
    # The lowest entries of the two other columns.
    rest = c23 * s5 + s23 * c4 * c5
    turned = s23 * s4
    nz, oz = c6 * rest - turned * s6, -s6 * rest - turned * c6
    reach = a1 + a2 * c2 + a3 * c23 + d4 * s23
    return (d6 * ax + c1 * reach, d6 * ay + s1 * reach, d6 * az + a2 * s2 + a3 * s23 - d4 * c23 + d1,
            jnp.arctan2(ay, ax), jnp.arctan2(jnp.sqrt(1 - az**2), az), jnp.arctan2(oz, -nz))


def black_scholes(spot: jax.Array, strike: jax.Array, rate: jax.Array, volatility: jax.Array, time: jax.Array) -> jax.Array:
    """The price of a European call [BlackScholes1973, eq. 13]."""
    spread = volatility * jnp.sqrt(time)
    d1 = (jnp.log(spot / strike) + (rate + 0.5 * volatility**2) * time) / spread
    d2 = d1 - spread

    def normal(x: jax.Array) -> jax.Array:
        return 0.5 * (1 + erf(x * 0.5**0.5))

    return spot * normal(d1) - strike * jnp.exp(-rate * time) * normal(d2)


def black_scholes_greeks(spot: jax.Array, strike: jax.Array, rate: jax.Array, volatility: jax.Array, time: jax.Array) -> Scalars:
    """The derivatives of the price by all five quantities: the Jacobian of these has the second-order ones."""
    found: Scalars = grad(black_scholes, argnums=(0, 1, 2, 3, 4))(spot, strike, rate, volatility, time)
    return found


def roe_flux_1d(rho_l: jax.Array, m_l: jax.Array, e_l: jax.Array, rho_r: jax.Array, m_r: jax.Array, e_r: jax.Array) -> Scalars:
    """The flux of mass, momentum and energy between two states of a gas, by Roe's approximate Riemann solver.

    [Roe1981; Toro2009, sec. 11.2.2].
    """
    flux, momenta = _roe([rho_l, m_l, e_l], [rho_r, m_r, e_r])
    return flux[0], momenta[0], flux[1]


def roe_flux_3d(rho_l: jax.Array, mx_l: jax.Array, my_l: jax.Array, mz_l: jax.Array, e_l: jax.Array, rho_r: jax.Array, mx_r: jax.Array,
                my_r: jax.Array, mz_r: jax.Array, e_r: jax.Array) -> Scalars:
    """As :func:`roe_flux_1d`, along the first of three axes."""
    flux, momenta = _roe([rho_l, mx_l, my_l, mz_l, e_l], [rho_r, mx_r, my_r, mz_r, e_r])
    return flux[0], *momenta, flux[1]


def _roe(left: list[jax.Array], right: list[jax.Array]) -> tuple[Scalars, list[jax.Array]]:
    """The flux of mass and energy, and of each momentum: the mean of both sides' less half of |eigenvalue| · strength · eigenvector."""
    root_l, root_r = jnp.sqrt(left[0]), jnp.sqrt(right[0])
    total = root_l + root_r
    sides = []
    for rho, *momenta, energy in (left, right):
        velocities = [m / rho for m in momenta]
        kinetic = sum((v * m for v, m in zip(velocities[1:], momenta[1:], strict=True)), velocities[0] * momenta[0])
        pressure = (GAMMA - 1) * (energy - 0.5 * kinetic)
        sides.append((velocities, pressure, (energy + pressure) / rho, energy + pressure))
    (v_l, p_l, h_l, ep_l), (v_r, p_r, h_r, ep_r) = sides

    def mean(x: jax.Array, y: jax.Array) -> jax.Array:
        return (root_l * x + root_r * y) / total

    u, *others = [mean(x, y) for x, y in zip(v_l, v_r, strict=True)]
    h = mean(h_l, h_r)
    half_q = 0.5 * sum((v * v for v in others), u * u)
    a2 = (GAMMA - 1) * (h - half_q)
    a = jnp.sqrt(a2)
    rho, d_rho, d_p = root_l * root_r, right[0] - left[0], p_r - p_l
    sound = d_p / a2
    impulse = rho * (v_r[0] - v_l[0]) / a
    # Strengths times |eigenvalue|, halved once: of the two sound waves, of the contact wave, and of the shear waves.
    low, high = u - a, u + a
    speed = jnp.abs(u)
    first = jnp.abs(low) * (0.5 * (sound - impulse))
    last = jnp.abs(high) * (0.5 * (sound + impulse))
    contact = speed * (d_rho - sound)
    shear = [speed * (rho * (y - x)) for x, y in zip(v_l[1:], v_r[1:], strict=True)]
    ends = first + last
    all_waves = ends + contact
    ua = u * a
    mass = 0.5 * (left[1] + right[1] - all_waves)
    along = 0.5 * (left[1] * v_l[0] + p_l + right[1] * v_r[0] + p_r - (first * low + last * high + contact * u))
    across = [0.5 * (left[1] * x + right[1] * y - (all_waves * v + s))
              for x, y, v, s in zip(v_l[1:], v_r[1:], others, shear, strict=True)]
    waves = ends * h + (last - first) * ua + contact * half_q
    for v, s in zip(others, shear, strict=True):
        waves = waves + v * s
    energy = 0.5 * (v_l[0] * ep_l + v_r[0] * ep_r - waves)
    return (mass, energy), [along, *across]


def perceptron(x: jax.Array, label: jax.Array, w1: jax.Array, b1: jax.Array, w2: jax.Array, b2: jax.Array, scale: jax.Array,
               shift: jax.Array) -> jax.Array:
    """The cross entropy of a network with a hidden layer that is normalized [BaEtAl2016]."""
    hidden = jnp.tanh(w1 @ x + b1)
    centred = hidden - jnp.mean(hidden)
    normalized = centred / jnp.sqrt(jnp.mean(centred**2) + 1e-6) * scale + shift
    logits = jnp.tanh(w2 @ normalized + b2)
    return jnp.log(jnp.sum(jnp.exp(logits))) * jnp.sum(label) - jnp.sum(label * logits)
