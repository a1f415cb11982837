"""The public functions: sparse Jacobians and Hessians, with and without the value, and plans for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Unpack

from jax.sharding import Mesh

from dualrev import errors
from dualrev._jax.trees import PyTree
from dualrev.functional import checks
from dualrev.functional.checks import Argnums
from dualrev.functional.choices import Planned
from dualrev.functional.flat_calls import AnyEngine
from dualrev.options.settings import Options
from dualrev.sparse import derivatives, meshes, requests
from dualrev.sparse.derivatives import Sparse
from dualrev.sparse.formats import Format
from dualrev.sparse.plans import Kind, Plan


def jacobian(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, *, engine: AnyEngine = "auto",
             chunk_size: int | None = None, format: Format = "bcoo", pattern: Any = None, check: bool = False,  # noqa: A002
             plan: Plan | None = None, holomorphic: bool = False, **options: Unpack[Options]) -> Planned[..., PyTree]:
    r"""The sparse Jacobian of a function: only the entries of :math:`\partial f_i / \partial x_j` that may be nonzero.

    Columns that share no row are pushed together, rows that share no column are pulled together, and dense rows and columns are taken
    apart by pulling and pushing both: few passes give all entries.  The function that is returned detects the pattern and chooses
    colours once for each type of its arguments, and then evaluates a compiled program.  Both are kept as long as
    ``fun`` lives, and used again where they are asked for anew; what ``fun`` reads from elsewhere is taken to stay as it was, as by
    ``jax.jit``.  The pattern holds for all inputs of these types.

    Args:
      fun: function of arrays or pytrees of them: real ones, complex ones with real outputs, whose rows are gradients, or real ones
        with complex outputs; complex ones with complex outputs where ``holomorphic``.
      argnums, has_aux, holomorphic: as in :func:`dualrev.value_and_grad`.
      engine: ``"forward"`` pushes columns only, ``"reverse"`` pulls rows only, ``"auto"`` what costs the least, which may be both.
      chunk_size: how many colours to push or pull at once, to bound memory; None for all.
      format: ``"bcoo"``, a BCOO of jax with the dimensions of output and input; ``"csr"``, a BCSR, and ``"scipy"``, a ``csr_array`` of
        SciPy, with outputs and inputs flattened; ``"dense"``, an array as :func:`dualrev.jacobian` returns.
      pattern: the entries that may be nonzero, outputs by inputs in elements: a BCOO, a SciPy matrix, or an array.  By default it is
        detected.
      check: compare with a product with a random vector, in each call, whether the pattern that was given misses an entry.
      plan: the pattern and colours that :func:`plan` found, or :func:`load` read.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      A function that returns the Jacobian: a tree of outputs of trees of inputs, with sparse matrices for leaves, whose entries have
      the dtype of the output (that of the input, if that alone is complex); and ``aux`` where ``has_aux``.

    Raises:
      TypeError: an input or output has a dtype that is not allowed.
      ValueError: an unknown format or engine; a pattern or plan that does not fit.
      PatternError: ``check``, and the pattern misses an entry.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> J = dr.sparse.jacobian(lambda x: x[1:] * x[:-1])(jnp.array([1.0, 2.0, 3.0]))
    >>> J.nse, J.todense().tolist()
    (4, [[2.0, 1.0, 0.0], [0.0, 3.0, 2.0]])

    Source: [CurtisEtAl1974; ColemanVerma1998; GebremedhinEtAl2005].
    """
    request = requests.asked("jacobian", "jacobian", argnums, has_aux, engine, chunk_size, format, pattern, check, plan,
                             options, holomorphic=holomorphic)
    return derivatives.derivative(fun, request)


def value_and_jacobian(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, *, engine: AnyEngine = "auto",
                       chunk_size: int | None = None, format: Format = "bcoo", pattern: Any = None,  # noqa: A002
                       check: bool = False, plan: Plan | None = None, holomorphic: bool = False,
                       **options: Unpack[Options]) -> Planned[..., tuple[PyTree, PyTree]]:
    r"""The value of a function and its sparse Jacobian, from one evaluation: :math:`x \mapsto (f(x),\, \partial f(x))`.

    Args:
      fun, argnums, has_aux, engine, chunk_size, format, pattern, check, plan, holomorphic, options: as in :func:`jacobian`.

    Returns:
      A function that returns ``(value, jacobian)``, or ``((value, aux), jacobian)``.

    Raises:
      TypeError, ValueError, PatternError: as :func:`jacobian`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> value, J = dr.sparse.value_and_jacobian(lambda x: x ** 2)(jnp.array([1.0, 2.0]))
    >>> value.tolist(), J.data.tolist()
    ([1.0, 4.0], [2.0, 4.0])

    Source: [GebremedhinEtAl2005].
    """
    request = requests.asked("value_and_jacobian", "jacobian", argnums, has_aux, engine, chunk_size, format, pattern, check, plan,
                             options, holomorphic=holomorphic)
    return derivatives.derivative(fun, request, with_value=True)


def hessian(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None,
            format: Format = "bcoo", pattern: Any = None, check: bool = False, plan: Plan | None = None,  # noqa: A002
            holomorphic: bool = False, **options: Unpack[Options]) -> Planned[..., PyTree]:
    r"""The sparse Hessian of a scalar function: the entries of :math:`\partial^2 f / \partial x_i\, \partial x_j` that may be nonzero.

    A star colouring of the variables; each colour is pushed through the gradient (forward over reverse), and each entry is read at one
    of the two places where it and its mirror image stand.

    Args:
      fun: function of real arrays or pytrees of them, with one real scalar output; of complex ones where ``holomorphic``.
      argnums, has_aux, chunk_size, format, check, plan, holomorphic, options: as in :func:`jacobian`.
      pattern: as in :func:`jacobian`, inputs by inputs, symmetric.

    Returns:
      A function that returns the Hessian: a tree of inputs of trees of inputs, with sparse matrices for leaves; and ``aux`` where
      ``has_aux``.

    Raises:
      TypeError: an input is not real (complex where ``holomorphic``), or the output is not such a scalar.
      ValueError, PatternError: as :func:`jacobian`; the pattern is not symmetric.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> H = dr.sparse.hessian(lambda x: jnp.sum(x[1:] * x[:-1] ** 2))(jnp.array([1.0, 2.0, 3.0]))
    >>> H.nse, H.todense().tolist()
    (6, [[4.0, 2.0, 0.0], [2.0, 6.0, 4.0], [0.0, 4.0, 0.0]])

    Source: [ColemanMore1984; GebremedhinEtAl2009].
    """
    request = requests.asked("hessian", "hessian", argnums, has_aux, None, chunk_size, format, pattern, check, plan,
                             options, holomorphic=holomorphic)
    return derivatives.derivative(fun, request)


def value_and_hessian(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None,
                      format: Format = "bcoo", pattern: Any = None, check: bool = False, plan: Plan | None = None,  # noqa: A002
                      holomorphic: bool = False, **options: Unpack[Options]) -> Planned[..., tuple[PyTree, PyTree]]:
    r"""The value of a scalar function and its sparse Hessian: :math:`x \mapsto (f(x),\, \nabla^2 f(x))`.

    Args:
      fun, argnums, has_aux, chunk_size, format, pattern, check, plan, holomorphic, options: as in :func:`hessian`.

    Returns:
      A function that returns ``(value, hessian)``, or ``((value, aux), hessian)``.

    Raises:
      TypeError, ValueError, PatternError: as :func:`hessian`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> value, H = dr.sparse.value_and_hessian(lambda x: jnp.sum(x ** 3))(jnp.array([1.0, 2.0]))
    >>> float(value), H.data.tolist()
    (9.0, [6.0, 12.0])

    Source: [GebremedhinEtAl2009].
    """
    request = requests.asked("value_and_hessian", "hessian", argnums, has_aux, None, chunk_size, format, pattern, check, plan,
                             options, holomorphic=holomorphic)
    return derivatives.derivative(fun, request, with_value=True)


def plan(fun: Callable[..., PyTree], *args: PyTree, derivative: Kind = "jacobian", argnums: Argnums = 0, has_aux: bool = False,
         engine: AnyEngine = "auto", pattern: Any = None, order: str | Sequence[str] = "auto", substitution: bool = False,
         time_budget: float = 0.0, seed: int = 0, costs: tuple[float, float] | None = None, chunk_size: int | None = None,
         holomorphic: bool = False, mesh: Mesh | None = None, **kwargs: PyTree) -> Plan:
    r"""How the sparse Jacobian or Hessian of a function will be found: pattern, colours, directions, predicted time.

    Of all colourings that are tried, the one of the least :math:`c_f\, n_f + c_r\, n_r`: numbers of pushes and pulls, and what each
    costs by :mod:`dualrev.time_model`, or as ``costs`` says.

    Args:
      fun: the function.
      args, kwargs: its arguments; only types of arrays matter.
      derivative: ``"jacobian"`` or ``"hessian"``.
      argnums, has_aux, engine, pattern, chunk_size, holomorphic: as in :func:`jacobian`.
      order: the order of greedy colouring, or several to try: ``"natural"``, ``"largest_first"``, ``"smallest_last"``,
        ``"incidence_degree"``; ``"auto"`` tries them until one is known to be the best.
      substitution: allow colourings from which entries follow one after the other: fewer passes for Hessians and two-sided Jacobians,
        more rounding, and levels that run in sequence.
      time_budget: seconds for further orders: classes of the best colouring so far, rearranged, and random ones.
      seed: of the random orders.
      costs: :math:`c_f` and :math:`c_r` of a Jacobian, seconds of one push and of one pull, where they were measured; ``(1, 1)`` for
        the fewest passes.  Predicted by default.
      mesh: devices that share the passes.  Each takes as many colours as the others and evaluates the function on the whole input;
        one gathering of the compressed matrix gives all of them the whole one.  Axes are of the kind ``Auto``; more devices than
        colours are of no use.  Predicted times are those of one device.

    Returns:
      A :class:`Plan`, for ``jacobian(fun, sparse=plan)``; it can be printed, drawn by a notebook, and saved.

    Raises:
      TypeError, ValueError: as :func:`jacobian` and :func:`hessian`; an unknown order or derivative; costs that are not two positive
        numbers, or those of a Hessian, which takes pushes only; a ``mesh`` that is none, or has axes of another kind.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> def arrow(x):
    ...     return (x + x[0]).at[0].set(jnp.sum(x ** 2))
    >>> dr.sparse.plan(arrow, jnp.ones(100))
    <plan for the jacobian of arrow, 100 x 100: 2 forward and 1 reverse colours for 298 entries>

    Source: [GebremedhinEtAl2005; MontoisonEtAl2025].
    """
    if derivative not in ("jacobian", "hessian"):
        raise ValueError(f"plan: derivative must be 'jacobian' or 'hessian'; got {derivative!r}")
    task = requests.check_task("plan", order, substitution, time_budget, seed, costs)
    if costs is not None and derivative == "hessian":
        raise ValueError(f"plan: costs are those of a push and a pull of a Jacobian; a Hessian takes pushes only.  Got {costs!r}")
    chosen = engine if derivative == "jacobian" else None if engine == "auto" else engine
    if mesh is not None:
        meshes.check("plan", mesh)
    request = requests.asked("plan", derivative, argnums, has_aux, chosen, chunk_size, "bcoo", pattern, False, None, {}, task,
                             holomorphic)
    with errors.calling("plan"):
        checks.check_callable(fun)
        prepared, _ = Sparse(fun, request).prepared(args, kwargs)
        return dataclasses.replace(prepared.predicted(), mesh=mesh)
