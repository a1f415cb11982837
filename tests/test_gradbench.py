"""The GradBench tool: its answers to good and bad messages, and its values against numpy and finite differences."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks.gradbench import ht
from benchmarks.gradbench.server import PROBLEMS, answer, serve

pytestmark = [pytest.mark.thorough, pytest.mark.promotes]

ROOT = Path(__file__).parent.parent
rng = np.random.default_rng(0)


def ask(module: str, function: str, given: Any) -> Any:
    found = answer(json.dumps({"id": 1, "kind": "evaluate", "module": module, "function": function, "input": given}))
    assert found["id"] == 1
    return found


def value(module: str, function: str, given: Any) -> np.ndarray:
    found = ask(module, function, given)
    assert found["success"], found["error"]
    return np.asarray(found["output"])


def slopes(module: str, function: str, given: dict[str, Any], name: str, output: Any = lambda x: x) -> np.ndarray:
    """Central differences of a function by one field of its input: [output, input]."""
    start = np.asarray(given[name], float)
    columns = []
    for i in range(start.size):
        ends = []
        for step in (1e-6, -1e-6):
            moved = start.copy()
            moved.flat[i] += step
            ends.append(np.ravel(output(value(module, function, {**given, name: moved.tolist()}))))
        columns.append((ends[0] - ends[1]) / 2e-6)
    return np.stack(columns, axis=1)


def close(x: Any, y: Any, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * max(1.0, float(np.max(np.abs(y)))))


# ------------------------------------------------------------------------------------------------------------- protocol


def test_messages_are_answered_in_order_over_pipes() -> None:
    lines = [json.dumps(message) for message in (
        {"id": 0, "kind": "start", "eval": "hello"},
        {"id": 1, "kind": "define", "module": "hello"},
        {"id": 2, "kind": "evaluate", "module": "hello", "function": "double", "input": 3.0, "description": "3"},
        {"id": 3, "kind": "analysis", "of": 2, "valid": True})]
    lines.insert(2, "{broken")
    run = subprocess.run([sys.executable, "-m", "benchmarks.gradbench"], input="\n".join(lines) + "\n", capture_output=True,
                         text=True, cwd=ROOT, timeout=100)
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert [m["id"] for m in found] == [0, 1, None, 2, 3] and run.returncode == 0
    assert found[0] == {"id": 0, "tool": "dualrev"} and found[1] == {"id": 1, "success": True} and found[4] == {"id": 3}
    assert not found[2]["success"] and found[3]["output"] == 6.0
    assert [t["name"] for t in found[3]["timings"]] == ["evaluate"] and found[3]["timings"][0]["nanoseconds"] > 0


def test_runs_and_seconds_are_both_met() -> None:
    found = ask("lse", "primal", {"x": [1.0, 2.0], "min_runs": 5, "min_seconds": 0.02})
    spent = [t["nanoseconds"] for t in found["timings"]]
    assert len(spent) >= 5 and sum(spent) >= 0.02e9


def evaluation(module: str, function: str, given: Any) -> str:
    return json.dumps({"id": 7, "kind": "evaluate", "module": module, "function": function, "input": given})


BAD = {
    "not JSON": ('{"id": 7, "kind": ', "JSONDecodeError"),
    "no object": ("[1, 2]", "JSON object"),
    "very deep": ("[" * 100_000, "Recursion"),
    "an unknown kind": ('{"id": 7, "kind": "sing"}', "sing"),
    "an unknown module": ('{"id": 7, "kind": "define", "module": "fft"}', "fft"),
    "a module that is no name": ('{"id": 7, "kind": "define", "module": []}', "module"),
    "an unknown function": (evaluation("gmm", "hessian", {}), "hessian"),
    "no input": ('{"id": 7, "kind": "evaluate", "module": "lse", "function": "primal"}', "input"),
    "a missing field": (evaluation("ode", "primal", {"x": [1.0]}), "no field s"),
    "a missing inner field": (evaluation("ht", "jacobian", {"data": {"model": {}}}), "data.model.bone_count"),
    "another shape": (evaluation("det", "primal", {"A": [1.0, 2.0, 3.0], "ell": 2}), r"A must have the shape \(4\)"),
    "ragged rows": (evaluation("kmeans", "cost", {"points": [[1.0], [1.0, 2.0]], "centroids": [[1.0]]}), "differ in length"),
    "text for numbers": (evaluation("lse", "primal", {"x": ["a"]}), "numbers"),
    "a fraction for a count": (evaluation("llsq", "primal", {"x": [1.0], "n": 2.5}), "whole number"),
    "a determinant too large": (evaluation("det", "primal", {"A": [], "ell": 40}), "ell must be at least 1 and at most"),
    "NaN": ('{"id": 7, "kind": "evaluate", "module": "hello", "function": "square", "input": NaN}', "NaN"),
    "a result that is not finite": (evaluation("hello", "square", 1e200), "finite"),
    "a particle that never lands": (evaluation("particle", "ff", {"w": 1e3}), "finite"),
    "a polynomial at one point": (evaluation("llsq", "primal", {"x": [1.0], "n": 1}), "finite"),
    "nothing": (evaluation("lse", "primal", {"x": []}), ""),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_messages_are_answered(what: str) -> None:
    line, said = BAD[what]
    found = answer(line)
    assert found["success"] is False and found["id"] in (7, None)
    assert isinstance(found["error"], str) and re.search(said, found["error"])


def test_the_tool_goes_on_after_bad_messages() -> None:
    out = io.StringIO()
    serve([line for line, _ in list(BAD.values())[:5]] + ["\n", evaluation("hello", "square", 3.0)], out)
    assert json.loads(out.getvalue().splitlines()[-1])["output"] == 9.0


# --------------------------------------------------------------------------------------------------------------- values


def test_mixture() -> None:
    d, k, n, m, gamma = 3, 2, 5, 2, 1.5
    given = {"d": d, "k": k, "n": n, "m": m, "gamma": gamma, "x": rng.normal(size=(n, d)).tolist(),
             "alpha": rng.normal(size=k).tolist(), "mu": rng.normal(size=(k, d)).tolist(), "q": rng.normal(size=(k, d)).tolist(),
             "l": rng.normal(size=(k, 3)).tolist()}
    alpha, mu, q, l, x = (np.asarray(given[name]) for name in ("alpha", "mu", "q", "l", "x"))  # noqa: E741
    total = -0.5 * n * d * np.log(2 * np.pi) - n * np.log(np.sum(np.exp(alpha)))
    terms = np.zeros((n, k))
    for i, j in itertools.product(range(n), range(k)):
        factor = np.diag(np.exp(q[j]))
        factor[[1, 2, 2], [0, 0, 1]] = l[j]
        terms[i, j] = alpha[j] + np.sum(q[j]) - 0.5 * np.sum((factor @ (x[i] - mu[j])) ** 2)
    total += np.sum(np.log(np.sum(np.exp(terms), axis=1)))
    freedom = d + m + 1
    log_gamma = 0.25 * d * (d - 1) * np.log(np.pi) + sum(math.lgamma(0.5 * (freedom - j)) for j in range(d))
    total += k * (freedom * d * np.log(gamma / np.sqrt(2)) - log_gamma)
    total -= np.sum(0.5 * gamma**2 * (np.sum(np.exp(2 * q), 1) + np.sum(l**2, 1)) - m * np.sum(q, 1))
    close(value("gmm", "objective", given), total, 1e-12)
    found = ask("gmm", "jacobian", given)["output"]
    for name in ("alpha", "mu", "q", "l"):
        assert np.shape(found[name]) == np.shape(given[name])
        close(np.ravel(found[name])[None], slopes("gmm", "objective", given, name))


@pytest.mark.parametrize("turn", [[0.3, -0.2, 0.5], [0.0, 0.0, 0.0]])
def test_bundle_adjustment(turn: list[float]) -> None:
    given = {"n": 2, "m": 3, "p": 4, "cam": [*turn, 0.1, 0.2, -3.0, 2.0, 0.1, 0.2, 0.05, 0.01], "x": [0.4, -0.6, 1.0], "w": 0.7,
             "feat": [0.1, 0.3]}
    found = ask("ba", "objective", given)["output"]
    cam = np.asarray(given["cam"])
    y = np.asarray(given["x"]) - cam[3:6]
    angle = np.linalg.norm(turn)
    if angle:
        w = cam[:3] / angle
        y = y * np.cos(angle) + np.cross(w, y) * np.sin(angle) + w * (w @ y) * (1 - np.cos(angle))
    q = y[:2] / y[2]
    q = q * (1 + cam[9] * (q @ q) + cam[10] * (q @ q) ** 2)
    assert found["reproj_error"]["repeated"] == 4 and found["w_err"] == {"element": pytest.approx(1 - 0.49), "repeated": 4}
    close(found["reproj_error"]["elements"], 0.7 * (cam[6] * q + cam[7:9] - given["feat"]), 1e-12)

    columns = [slopes("ba", "objective", given, name, lambda out: out.item()["reproj_error"]["elements"]) for name in ("cam", "x")]
    jacobian = ask("ba", "jacobian", given)["output"]
    values = np.asarray(jacobian["vals"][:30]).reshape(2, 15)
    close(values[:, :14], np.concatenate(columns, axis=1))
    close(values[:, 14], np.asarray(found["reproj_error"]["elements"]) / 0.7)
    assert jacobian["vals"][-1] == pytest.approx(-1.4)
    assert jacobian["rows"] == [0, 15, 30, 45, 60, 75, 90, 105, 120, 121, 122, 123, 124, 124]
    assert jacobian["cols"] == [*([*range(11), 22, 23, 24, 31] * 2), 34]


def hand(us: list[Any]) -> dict[str, Any]:
    vertices = 7
    parents = [-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19, 0]
    model: dict[str, Any] = {"bone_count": 22, "bone_names": ["bone"] * 22, "parents": parents, "is_mirrored": True,
             "base_relatives": rng.normal(size=(22, 4, 4)), "inverse_base_absolutes": rng.normal(size=(22, 4, 4)),
             "base_positions": np.concatenate([rng.normal(size=(vertices, 3)), np.ones((vertices, 1))], axis=1),
             "weights": rng.uniform(size=(vertices, 22)), "triangles": [[0, 1, 2], [3, 4, 5], [6, 1, 3]]}
    for name in ("base_relatives", "inverse_base_absolutes"):
        model[name][:, 3] = [0, 0, 0, 1]
    data = {"model": {name: np.asarray(x).tolist() for name, x in model.items()}, "correspondences": [2, 0, 1, 1],
            "points": rng.normal(size=(4, 3)).tolist()}
    return {"theta": (0.3 * rng.normal(size=26)).tolist(), "us": us, "data": data}


def hand_in_numpy(given: dict[str, Any]) -> np.ndarray:
    model = {name: np.asarray(x) for name, x in given["data"]["model"].items()}
    theta = np.asarray(given["theta"])
    angles = np.zeros((25, 3))
    i, column = 6, 5
    for _ in range(5):
        for joint in (2, 3, 4):
            for axis in range(2 if joint == 2 else 1):
                angles[column, axis] = theta[i]
                i += 1
            column += 1
        column += 1

    def turned(axis: int, angle: float) -> np.ndarray:
        found, (a, b) = np.eye(4), [k for k in range(3) if k != axis]
        sign = -1 if axis == 1 else 1
        found[a, a] = found[b, b] = np.cos(angle)
        found[a, b], found[b, a] = -sign * np.sin(angle), sign * np.sin(angle)
        return found

    absolutes: list[np.ndarray] = []
    for bone, parent in enumerate(model["parents"]):
        a = angles[bone + 3]
        relative = model["base_relatives"][bone] @ turned(2, a[1]) @ turned(1, a[2]) @ turned(0, a[0])
        absolutes.append(relative if parent < 0 else absolutes[parent] @ relative)
    moved = np.stack([a @ b for a, b in zip(absolutes, model["inverse_base_absolutes"], strict=True)])
    v = np.einsum("vb,bij,vj->vi", model["weights"], moved, model["base_positions"])[:, :3] * [-1, 1, 1]
    r = np.linalg.norm(theta[:3])
    w = theta[:3] / r
    v = v * np.cos(r) + np.cross(w, v) * np.sin(r) + np.outer(v @ w, w) * (1 - np.cos(r)) + theta[3:6]
    chosen = np.asarray(given["data"]["correspondences"])
    if given["us"]:
        us, corners = np.asarray(given["us"]), model["triangles"][chosen]
        v = us[:, :1] * v[corners[:, 0]] + us[:, 1:] * v[corners[:, 1]] + (1 - us.sum(1, keepdims=True)) * v[corners[:, 2]]
    else:
        v = v[chosen]
    return np.ravel(np.asarray(given["data"]["points"]) - v)


@pytest.mark.parametrize("us", [[], [[0.2, 0.3], [0.5, 0.1], [0.3, 0.3], [0.0, 1.0]]])
def test_hand_tracking(us: list[Any]) -> None:
    given = hand(us)
    close(value("ht", "objective", given), hand_in_numpy(given), 1e-12)
    jacobian = value("ht", "jacobian", given)
    close(jacobian[:, -26:], slopes("ht", "objective", given, "theta"))
    if us:
        every = slopes("ht", "objective", given, "us").reshape(4, 3, 4, 2)
        close(jacobian[:, :2], np.concatenate([every[i, :, i] for i in range(4)]))


def test_bones_that_descend_from_themselves_are_refused() -> None:
    given = hand([])
    given["data"]["model"]["parents"][:2] = [1, 0]
    assert "descend" in ask("ht", "objective", given)["error"]
    assert ht.depths_of((-1, 0, 1, 0)) == [0, 1, 2, 1]


def test_lstm() -> None:
    given = {"main_params": rng.normal(size=(4, 56)).tolist(), "extra_params": rng.normal(size=(3, 14)).tolist(),
             "state": rng.normal(size=(4, 14)).tolist(), "sequence": rng.uniform(size=(4, 14)).tolist()}
    main, extra, state, sequence = (np.array(given[name]) for name in given)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    loss = 0.0
    for t in range(3):
        h = sequence[t] * extra[0]
        for i in range(2):
            w, bias = main[2 * i].reshape(4, 14), main[2 * i + 1].reshape(4, 14)
            hidden, cell = state[2 * i], state[2 * i + 1]
            cell = (cell * sigmoid(h * w[0] + bias[0])
                    + sigmoid(hidden * w[1] + bias[1]) * np.tanh(hidden * w[3] + bias[3]))
            h = sigmoid(h * w[2] + bias[2]) * np.tanh(cell)
            state[2 * i], state[2 * i + 1] = h, cell
        y = h * extra[1] + extra[2]
        loss -= np.sum(sequence[t + 1] * (y - np.log(np.sum(np.exp(y)) + 2)))
    close(value("lstm", "objective", given), loss / (3 * 14), 1e-12)
    by_extra = slopes("lstm", "objective", given, "extra_params")[0]
    found = value("lstm", "jacobian", given)
    assert found.shape == (4 * 56 + 3 * 14,)
    close(found[4 * 56:], by_extra)
    # Along one direction of the weights.
    way = rng.normal(size=(4, 56))
    ends = [value("lstm", "objective", {**given, "main_params": (main + s * way).tolist()}) for s in (1e-6, -1e-6)]
    close(found[: 4 * 56] @ way.ravel(), (ends[0] - ends[1]) / 2e-6)


def test_clusters() -> None:
    points, centroids = rng.normal(size=(30, 2)), rng.normal(size=(3, 2))
    given = {"points": points.tolist(), "centroids": centroids.tolist()}
    apart = np.sum((points[:, None] - centroids) ** 2, axis=2)
    close(value("kmeans", "cost", given), np.sum(np.min(apart, axis=1)), 1e-12)
    nearest = np.argmin(apart, axis=1)
    means = np.stack([centroids[j] - points[nearest == j].mean(axis=0) for j in range(3)])
    close(value("kmeans", "dir", given), means, 1e-12)


def test_clusters_share_points_that_are_as_near_to_both() -> None:
    points, centroids = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    cost = PROBLEMS["kmeans"].functions["cost"](None)
    gradient, hessian = jax.grad(cost)(centroids, points), jax.hessian(cost)(centroids, points).reshape(6, 6)
    assert np.count_nonzero(hessian - np.diag(np.diag(hessian))) == 0
    found = value("kmeans", "dir", {"points": points.tolist(), "centroids": centroids.tolist()})
    close(found, gradient / np.diag(hessian).reshape(3, 2), 1e-12)


def test_small_sums() -> None:
    x = np.array([0.3, -2.0, 5.0])
    close(value("lse", "primal", {"x": x.tolist()}), np.log(np.sum(np.exp(x))), 1e-14)
    close(value("lse", "gradient", {"x": x.tolist()}), np.exp(x) / np.sum(np.exp(x)), 1e-14)
    for terms, n in ((3, 5), (16, 6), (35, 40)):
        given = {"x": rng.normal(size=terms).tolist(), "n": n}
        t = np.linspace(-1, 1, n)
        rest = np.sign(t) - np.polynomial.polynomial.polyval(t, given["x"])
        close(value("llsq", "primal", given), 0.5 * np.sum(rest**2), 1e-12)
        close(value("llsq", "gradient", given), -np.vander(t, terms, increasing=True).T @ rest, 1e-12)


def test_chain_of_equations() -> None:
    x, steps = np.array([0.3, 0.8, 1.1]), 7
    y, h = np.zeros(3), 2 / steps

    def rate(y: np.ndarray) -> np.ndarray:
        return x * np.array([1.0, *y[:-1]])

    for _ in range(steps):
        k1 = rate(y)
        k2 = rate(y + h / 2 * k1)
        k3 = rate(y + h / 2 * k2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(y + h * k3))
    given = {"x": x.tolist(), "s": steps}
    close(value("ode", "primal", given), y, 1e-13)
    close(value("ode", "gradient", given), slopes("ode", "primal", given, "x")[-1])


@pytest.mark.parametrize("ell", [1, 2, 5, 8])
def test_determinant(ell: int) -> None:
    a = rng.normal(size=(ell, ell))
    given = {"A": a.ravel().tolist(), "ell": ell}
    close(value("det", "primal", given), np.linalg.det(a), 1e-10)
    close(value("det", "gradient", given), np.ravel(np.linalg.det(a) * np.linalg.inv(a).T), 1e-9)


def test_determinant_of_a_singular_matrix_has_a_gradient() -> None:
    close(value("det", "gradient", {"A": [1.0, 2.0, 2.0, 4.0], "ell": 2}), [4.0, -2.0, -2.0, 1.0], 1e-15)


@pytest.mark.parametrize("modes", ["rr", "ff", "fr", "rf"])
def test_descent_in_all_four_pairs_of_modes(modes: str) -> None:
    # The optima that this search ends at, which every pair of modes has to find.
    close(value("particle", modes, {"w": 0.0}), 0.2071918746486116, 1e-9)
    found = value("saddle", modes, {"start": [1.0, 1.0]})
    close(found / 8.246324826140356e-06, np.ones(4), 1e-9)
