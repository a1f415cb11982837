"""One of several processes of a run: ``python -m tests.processes TASK``, with what it is in the environment.

All processes together have 8 virtual devices.  Started by ``test_processes.py``.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import dualrev as dr
from benchmarks.sharded import batches
from benchmarks.sharded.cases import layers, network

RATE = 0.01


def mesh_of_all() -> Mesh:
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def put(mesh: Mesh, tree: Any, spec: P) -> Any:
    """Global arrays, of which each process gives its part."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__), tree)


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """NumPy arrays of global ones, on each process."""
    whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))(tree)
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), whole)


def trained(mesh: Mesh, params: Any, batch: Any, spec: P, steps: int) -> Any:
    shardings = jax.tree.map(lambda _: NamedSharding(mesh, spec), params)

    def step(params: Any, batch: Any) -> Any:
        return jax.tree.map(lambda w, g: w - RATE * g, params, dr.grad(batches.squares)(params, batch))

    compiled = jax.jit(step, out_shardings=shardings)
    for _ in range(steps):
        params = compiled(params, batch)
    return params


def chain(x: Any) -> Any:
    return jnp.sin(sum(jnp.roll(x, k) * x for k in range(-5, 6)))


def laplacians(params: Any, points: Any) -> Any:
    return jnp.sum(jax.vmap(dr.laplacian(lambda x: network(params, x[None])[0, 0]))(points)[1] ** 2)


PARAMS = layers(0, *batches.SIZES)
X = np.random.default_rng(0).standard_normal(30)
POINTS = np.random.default_rng(1).standard_normal((16, 4))


def numbers() -> dict[str, Any]:
    """What is compared with one process."""
    mesh = mesh_of_all()
    batch = put(mesh, batches.BATCH, P("data"))
    found = {}
    for name, spec in (("data parallel", P()), ("fully sharded", P("data"))):
        found[name] = everywhere(mesh, trained(mesh, put(mesh, PARAMS, spec), batch, spec, 3))
    x = put(mesh, X, P())
    plan = dr.sparse.plan(chain, x, engine="forward", mesh=mesh)
    found["sparse Jacobian"] = everywhere(mesh, dr.sparse.jacobian(chain, plan=plan)(x).data)
    small = layers(3, 4, 8, 1)
    gradient = jax.jit(dr.value_and_grad(laplacians))(put(mesh, small, P()), put(mesh, POINTS, P("data")))
    found["Laplacians"] = everywhere(mesh, gradient)
    return found


def write(folder: pathlib.Path, found: dict[str, Any]) -> None:
    for name, tree in found.items():
        np.savez(folder / f"{name}.{jax.process_index()}.npz", *jax.tree.leaves(tree))


def run_numbers(folder: pathlib.Path) -> None:
    write(folder, numbers())


def run_dies(folder: pathlib.Path) -> None:
    """The last process ends without a word after two steps."""
    mesh = mesh_of_all()
    params, batch = put(mesh, PARAMS, P()), put(mesh, batches.BATCH, P("data"))
    for i in range(1000):
        params = jax.block_until_ready(trained(mesh, params, batch, P(), 1))
        if i == 1 and jax.process_index() == jax.process_count() - 1:
            os._exit(3)


def run_differs(folder: pathlib.Path) -> None:
    """The last process has another shape."""
    mesh = mesh_of_all()
    width = 16 if jax.process_index() < jax.process_count() - 1 else 24
    params = put(mesh, layers(0, 8, width, 8), P())
    dr.testing.check_processes(params, "parameters", timeout=30)


def run_is_late(folder: pathlib.Path) -> None:
    """The last process does not come to the check."""
    if jax.process_index() < jax.process_count() - 1:
        dr.testing.check_processes(PARAMS, "parameters", timeout=2)


def run_resumes(folder: pathlib.Path) -> None:
    """Six steps with a checkpoint after three; or, if there is one, the last three of them."""
    import orbax.checkpoint as ocp

    mesh = mesh_of_all()
    batch = put(mesh, batches.BATCH, P("data"))
    params = put(mesh, PARAMS, P("data"))
    path = folder / "checkpoint"
    with ocp.StandardCheckpointer() as checkpointer:
        if path.exists():
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params)
            write(folder, {"resumed": everywhere(mesh, trained(mesh, checkpointer.restore(path, like), batch, P("data"), 3))})
            return
        params = trained(mesh, params, batch, P("data"), 3)
        checkpointer.save(path, params)
        checkpointer.wait_until_finished()
    write(folder, {"continued": everywhere(mesh, trained(mesh, params, batch, P("data"), 3))})


def main() -> None:
    tasks: dict[str, Callable[[pathlib.Path], None]] = {
        name.removeprefix("run_"): task for name, task in globals().items() if name.startswith("run_")}
    get = os.environ.__getitem__
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(get("COORDINATOR"), int(get("PROCESSES")), int(get("PROCESS")), initialization_timeout=60,
                               heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10)
    assert jax.device_count() == 8
    tasks[sys.argv[1]](pathlib.Path(get("FOLDER")))


if __name__ == "__main__":
    main()
