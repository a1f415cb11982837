"""How accurate derivatives of special functions are, in units in the last place (ulp) of the true value, beside jax's own.

``python -m tests.accuracy`` prints the table: for each function the worst of 200 points, through both modes in double precision,
against mpmath.  The points reach into the tails: next to poles, tiny, huge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np
from jax import lax
from mpmath import mp, mpf

import dualrev as dr

POINTS = 200
Truth = Callable[..., Any]


class Subject(NamedTuple):
    """A function of arrays, entry by entry, and its true derivative in argument ``argnum``, of mpmath numbers."""

    name: str
    fun: Callable[..., Any]
    args: tuple[np.ndarray, ...]
    truth: Truth
    argnum: int = 0
    #: Whether jax has this derivative.
    in_jax: bool = True
    #: The function of jax that has it, where it is another.
    peer: Callable[..., Any] | None = None
    #: Ulps that dualrev stays within where jax does not, or has no derivative.
    bound: float = np.inf
    #: Whether the last digits depend on which products and sums the compiler contracts: the worst of compiled and un-jitted counts.
    contracts: bool = False


class Score(NamedTuple):
    """The worst error over all points, and where it is."""

    ulp: float
    where: tuple[float, ...]


# ---------------------------------------------------------------------------------------------------------------- points

rng = np.random.default_rng(0)


def spread(low: float, high: float, n: int = POINTS) -> np.ndarray:
    return rng.uniform(low, high, n)


def powers(low: float, high: float, n: int = POINTS) -> np.ndarray:
    """Positive numbers, from ``10**low`` to ``10**high``."""
    return 10.0 ** spread(low, high, n)


def join(*parts: np.ndarray) -> np.ndarray:
    found = np.concatenate(parts)
    assert found.shape == (POINTS,), found.shape
    return found


def both_signs(low: float, high: float, n: int = POINTS) -> np.ndarray:
    return powers(low, high, n) * rng.choice([-1.0, 1.0], n)


def near_poles(n: int) -> np.ndarray:
    """Next to 0, -1, ..., -20."""
    return -rng.integers(0, 21, n) + both_signs(-8, -1, n)


GAMMA = join(spread(0, 12, 60), powers(-300, 300, 60), spread(-40, 0, 40), near_poles(40))
POLYGAMMA = join(spread(0, 12, 80), powers(-40, 40, 40), spread(-40, 0, 40), near_poles(40))
ORDERS = join(spread(1.01, 20, 100), powers(0.01, 1.5, 100))
SHIFTS = join(spread(0.01, 30, 100), powers(-2, 8, 100))
SHAPES = join(powers(-3, 3.5, 100), spread(0.3, 30, 100))
GAMMA_X = SHAPES * np.exp(rng.normal(0, 1, POINTS) / np.sqrt(SHAPES + 0.1))
ALPHA, BETA = (join(powers(-1, 3, 100), spread(0.5, 20, 100)) for _ in range(2))
LOGIT = np.log(ALPHA / BETA) + rng.normal(0, 1, POINTS) * np.sqrt(1 / (ALPHA + 1) + 1 / (BETA + 1))
BETA_X = 1 / (1 + np.exp(-LOGIT))
WIDE = join(spread(-6, 6, 100), both_signs(-20, 2, 100))
BESSEL = join(spread(-30, 30, 100), both_signs(-12, 12, 100))
UNIT = join(spread(-1, 1, 100), both_signs(-20, 0, 40), 1 - powers(-15, -1, 60))
POSITIVE = join(spread(0, 10, 100), powers(-200, 200, 100))


# ----------------------------------------------------------------------------------------------------------- true derivatives


def difference(f: Truth, argnum: int, order: int = 1) -> Truth:
    """A central difference of order 1 or 2, with an error of 1e-24."""

    def truth(*args: Any) -> Any:
        x, h = args[argnum], args[argnum] * mpf(10) ** -12

        def at(value: Any) -> Any:
            return f(*args[:argnum], value, *args[argnum + 1:])

        with mp.workdps(50):
            if order == 2:
                return (at(x + h) - 2 * at(x) + at(x - h)) / h**2
            return (at(x + h) - at(x - h)) / (2 * h)

    return truth


def gamma_tail(a: Any, x: Any) -> Any:
    """P(a, x), but for a constant: by the tail that is not near 1."""
    return mp.gammainc(a, 0, x, regularized=True) if x < a else -mp.gammainc(a, x, mp.inf, regularized=True)


def beta_tail(a: Any, b: Any, x: Any) -> Any:
    if x < a / (a + b):
        return mp.betainc(a, b, 0, x, regularized=True)
    return -mp.betainc(b, a, 0, 1 - x, regularized=True)


def gamma_density(a: Any, x: Any) -> Any:
    return mp.exp((a - 1) * mp.log(x) - x - mp.loggamma(a))


def beta_density(a: Any, b: Any, x: Any) -> Any:
    return mp.exp((a - 1) * mp.log(x) + (b - 1) * mp.log1p(-x) + mp.loggamma(a + b) - mp.loggamma(a) - mp.loggamma(b))


def gauss(x: Any) -> Any:
    return 2 / mp.sqrt(mp.pi) * mp.exp(-x * x)


def bessel_slope(order: int, scaled: bool) -> Truth:
    def truth(x: Any) -> Any:
        i0, i1 = mp.besseli(0, x), mp.besseli(1, x)
        value, slope = (i0, i1) if order == 0 else (i1, i0 - i1 / x)
        return mp.exp(-abs(x)) * (slope - mp.sign(x) * value) if scaled else slope
    return truth


def sinc_slope(x: Any) -> Any:
    z = mp.pi * x
    return (mp.cos(z) - mp.sin(z) / z) / x


def zeta_slope(s: Any, q: Any) -> Any:
    with mp.workdps(60 + int(s * mp.log10(q + 10))):  # mpmath's error is absolute
        return mp.zeta(s, q, 1)


def zeta_shift_slope(s: Any, q: Any) -> Any:
    with mp.workdps(60 + int(s * mp.log10(q + 10))):
        return -s * mp.zeta(s + 1, q)


def ndtri_slope(p: Any) -> Any:
    return mp.sqrt(2 * mp.pi) * mp.exp(mp.erfinv(1 - 2 * p) ** 2)


def derivative(f: Callable[..., Any]) -> Callable[..., Any]:
    """The derivative in the first argument, by dualrev."""
    return lambda x, *args: dr.jvp(lambda x: f(x, *args), (x,), (jnp.ones_like(x),))[1]


def whole(n: float) -> Callable[..., Any]:
    return lambda x: lax.polygamma(jnp.full_like(x, n), x)


SUBJECTS = [
    Subject("lgamma", lax.lgamma, (GAMMA,), mp.digamma),
    Subject("digamma", lax.digamma, (GAMMA,), lambda x: mp.psi(1, x), bound=8),
    Subject("polygamma(1, x)", whole(1), (POLYGAMMA,), lambda x: mp.psi(2, x), bound=100),
    Subject("polygamma(2, x)", whole(2), (POLYGAMMA,), lambda x: mp.psi(3, x), bound=16),
    Subject("zeta by s", lax.zeta, (ORDERS, SHIFTS), zeta_slope, peer=jsp.zeta),
    Subject("zeta by q", lax.zeta, (ORDERS, SHIFTS), zeta_shift_slope, 1, peer=jsp.zeta),
    Subject("igamma by a", lax.igamma, (SHAPES, GAMMA_X), difference(gamma_tail, 0), bound=150),
    Subject("igamma by x", lax.igamma, (SHAPES, GAMMA_X), gamma_density, 1, bound=150),
    Subject("igamma by a, twice", derivative(lax.igamma), (SHAPES, GAMMA_X), difference(gamma_tail, 0, 2), in_jax=False, bound=1e4),
    Subject("igammac by a", lax.igammac, (SHAPES, GAMMA_X), difference(lambda a, x: -gamma_tail(a, x), 0), bound=150),
    Subject("igammac by x", lax.igammac, (SHAPES, GAMMA_X), lambda a, x: -gamma_density(a, x), 1, bound=150),
    Subject("betainc by a", lax.betainc, (ALPHA, BETA, BETA_X), difference(beta_tail, 0), 0, in_jax=False, bound=200),
    Subject("betainc by b", lax.betainc, (ALPHA, BETA, BETA_X), difference(beta_tail, 1), 1, in_jax=False, bound=200),
    Subject("betainc by x", lax.betainc, (ALPHA, BETA, BETA_X), beta_density, 2, bound=200),
    Subject("erf", lax.erf, (join(spread(-6, 6, 100), both_signs(-20, 1.4, 100)),), gauss, bound=4),
    Subject("erfc", lax.erfc, (join(spread(-6, 6, 100), both_signs(-20, 1.4, 100)),), lambda x: -gauss(x), bound=4),
    Subject("erf_inv", lax.erf_inv, (UNIT,), lambda x: 1 / gauss(mp.erfinv(x)), bound=16),
    Subject("ndtri", jsp.ndtri, (join(spread(0.01, 0.99, 100), powers(-15, 0, 100)),), ndtri_slope, contracts=True),
    Subject("log_ndtr", jsp.log_ndtr, (spread(-30, 30),), lambda x: mp.npdf(x) / mp.ncdf(x)),
    Subject("i0e", lax.bessel_i0e, (BESSEL,), bessel_slope(0, True), bound=200),
    Subject("i1e", lax.bessel_i1e, (BESSEL,), bessel_slope(1, True), bound=200),
    Subject("i0", jsp.i0, (WIDE,), bessel_slope(0, False)),
    Subject("i1", jsp.i1, (WIDE,), bessel_slope(1, False)),
    Subject("exp", jnp.exp, (WIDE,), mp.exp),
    Subject("expm1", jnp.expm1, (WIDE,), mp.exp, bound=4),
    Subject("log", jnp.log, (POSITIVE,), lambda x: 1 / x),
    Subject("log1p", jnp.log1p, (join(spread(-1, 6, 100), powers(-20, 20, 100)),), lambda x: 1 / (1 + x)),
    Subject("logistic", jax.nn.sigmoid, (spread(-40, 40),), lambda x: 1 / (2 + mp.exp(x) + mp.exp(-x))),
    Subject("softplus", jax.nn.softplus, (spread(-40, 40),), lambda x: 1 / (1 + mp.exp(-x))),
    Subject("logsumexp", lambda x: jax.nn.logsumexp(jnp.stack([x, 0 * x, 2 * x]), 0), (spread(-20, 20),),
            lambda x: (mp.exp(x) + 2 * mp.exp(2 * x)) / (1 + mp.exp(x) + mp.exp(2 * x))),
    Subject("sqrt", jnp.sqrt, (POSITIVE,), lambda x: 0.5 / mp.sqrt(x)),
    Subject("sin", jnp.sin, (WIDE,), mp.cos),
    Subject("cos", jnp.cos, (WIDE,), lambda x: -mp.sin(x)),
    Subject("tan", jnp.tan, (WIDE,), lambda x: mp.sec(x) ** 2),
    Subject("asin", jnp.arcsin, (UNIT,), lambda x: 1 / mp.sqrt(1 - x * x)),
    Subject("atan", jnp.arctan, (WIDE,), lambda x: 1 / (1 + x * x)),
    Subject("sinh", jnp.sinh, (WIDE,), mp.cosh),
    Subject("cosh", jnp.cosh, (WIDE,), mp.sinh),
    Subject("tanh", jnp.tanh, (spread(-15, 15),), lambda x: mp.sech(x) ** 2),
    Subject("asinh", jnp.arcsinh, (WIDE,), lambda x: 1 / mp.sqrt(1 + x * x)),
    Subject("acosh", jnp.arccosh, (1 + powers(-15, 15),), lambda x: 1 / mp.sqrt(x * x - 1)),
    Subject("atanh", jnp.arctanh, (UNIT,), lambda x: 1 / (1 - x * x)),
    Subject("sinc", jnp.sinc, (join(spread(-1.3, 1.3, 100), both_signs(-4, 0.1, 100)),), sinc_slope),
]


# ----------------------------------------------------------------------------------------------------------------- measuring


def truths(subject: Subject) -> list[Any]:
    with mp.workdps(40):
        return [subject.truth(*(mpf(float(x)) for x in point)) for point in zip(*subject.args, strict=True)]


def score(got: Any, true: list[Any], args: tuple[np.ndarray, ...]) -> Score:
    tiny, huge = mpf(float(np.finfo(float).tiny)), mpf(float(np.finfo(float).max))
    worst = Score(0.0, ())
    for value, exact, point in zip(np.asarray(got).tolist(), true, zip(*args, strict=True), strict=True):
        if not tiny < abs(exact) < huge:
            continue
        error = float(abs(mpf(value) - exact) / mpf(float(np.spacing(float(abs(exact)))))) if np.isfinite(value) else np.inf
        if error > worst.ulp:
            worst = Score(error, tuple(float(x) for x in point))
    return worst


def derivatives(subject: Subject, is_compiled: bool = True) -> dict[str, Any]:
    """By name of the mode: dualrev's ``forward`` and ``reverse``, and those of jax."""

    def by(fun: Callable[..., Any]) -> Callable[..., Any]:
        args = [jnp.asarray(arg) for arg in subject.args]
        return lambda x: fun(*args[:subject.argnum], x, *args[subject.argnum + 1:])

    f, peer = by(subject.fun), by(subject.peer or subject.fun)

    def run(x: Any) -> dict[str, Any]:
        ones = jnp.ones_like(x)
        found = {"forward": dr.jvp(f, (x,), (ones,))[1], "reverse": dr.vjp(f, x)[1](ones)[0]}
        if subject.in_jax:
            found |= {"jax forward": jax.jvp(peer, (x,), (ones,))[1], "jax reverse": jax.vjp(peer, x)[1](ones)[0]}
        return found

    return (jax.jit(run) if is_compiled else run)(jnp.asarray(subject.args[subject.argnum]))


def measure(subject: Subject) -> dict[str, Score]:
    true = truths(subject)
    runs = [derivatives(subject), *([derivatives(subject, is_compiled=False)] if subject.contracts else [])]
    return {mode: max([score(run[mode], true, subject.args) for run in runs], key=lambda s: s.ulp) for mode in runs[0]}


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("derivative of", "dualrev, ulp", "jax, ulp", "worst point of dualrev")
    for subject in SUBJECTS:
        scores = measure(subject)
        ours = max(scores["forward"], scores["reverse"])
        theirs = f"{max(scores['jax forward'], scores['jax reverse']).ulp:.3g}" if subject.in_jax else "none"
        table.add_row(subject.name, f"{ours.ulp:.3g}", theirs, ", ".join(f"{x:.6g}" for x in ours.where))
    Console().print(table)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
