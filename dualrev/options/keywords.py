"""The keyword options of every function that differentiates, for readers and for type checkers.

Written by ``python -m tests.keywords`` from :mod:`dualrev.options.settings`, where options are stated; a test fails when it is stale.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from dualrev.options.schedules import Bytes, Revolve


class Options(TypedDict, total=False):
    """Options of every function that differentiates.

    - ``zero_wins`` (False): in a pull or push, the product of 0 and infinity is 0, and so is the product of a zero tangent or
      cotangent and nan: a value that does not influence the result has derivative 0 even where a factor is infinite. The gradient
      of ``where(x < 1, x, sqrt(x))`` at 0 is then 1, and that of a norm at 0 is 0.
    - ``custom_vjp_jvp`` ("transpose"): the push of a ``jax.custom_vjp`` function is ``"transpose"``, the transpose of the user's
      backward function; ``"differentiate_primal"``, the push of the function without its rule; or ``"error"``, an error as in jax.
    - ``split_repeated`` (False): a pull through eigenvectors or singular vectors is right at repeated eigenvalues or singular
      values wherever the function has a derivative, also under ``jit`` and ``vmap``, where the default is NaN (see
      :mod:`dualrev.rules.linalg.spectral`). Everything that is computed from the vectors then carries an infinitesimal part, which
      takes up to three times as long.
    - ``stack_cotangents`` ("auto"): where the cotangent of a loop constant is a sum of products over the steps, the factors are
      stacked and contracted once, after the loop. ``"auto"`` does so if a step stacks no more bytes than the cotangent has, and all
      steps no more than the residuals of the loop; True does so wherever possible; False never, which takes the least memory, as
      all steps add to one sum (see :mod:`dualrev.calls.loops.sums_over_steps`).
    - ``recompute_residuals`` ("auto"): which residuals of a loop's steps are stored. ``"auto"``: those that the time model finds
      cheaper to store than to compute again in the pull; True, the fewest bytes from which the others follow by cheap operations,
      or an error where nothing can be computed again as it depends on callbacks, effects or collectives; False, all of them, apart
      from those of a part under ``checkpoint``, whose policy decides (see :mod:`dualrev.calls.loops.storing`).
    - ``fuse_loops`` ("auto"): whether the loops of a derivative become one kernel each, where they are compiled for a single CPU
      and their steps are small: ``"auto"``, those that consist of operations of which it is known that the compiler can write them
      into one function, on the releases of jaxlib on which that was tried (0.10 and 0.12); True, the same on any release; False,
      where the compiler does so by itself. Loops over few numbers get several times faster, most of all on jax 0.10. It rests on an
      attribute of XLA's own (see :mod:`dualrev.calls.loops.one_kernel`).
    - ``loop_checkpoints`` (None): the number of states of a ``while_loop`` that are kept for its pull; by default as many as fit
      into 64 MiB, at least 16 and at most 128, and residuals of all steps where the length is known (see
      :mod:`dualrev.calls.loops.recompute`).
    - ``max_steps`` (None): the most steps that a ``while_loop`` may take. Residuals of that many steps are then allocated, and the
      pull reads them; a longer loop raises an error, even in a branch that ``vmap`` runs although it is not taken. Not with
      ``loop_checkpoints``, which stores states instead.
    - ``schedule`` ("all"): what is kept of each ``scan`` for its pull: ``"all"`` residuals; ``"sqrt"``, the states before each of
      √n blocks of √n steps; ``Revolve(slots)``, ``slots`` states; or ``Bytes(n)``, as much as fits into ``n`` bytes. The rest is
      recomputed (see :mod:`dualrev.options.schedules`).
    - ``cotangent_dtype`` (None): the dtype in which the cotangents of parameters accumulate and are returned, where it is wider
      than theirs; one for all, or a tree of them (None: their own) that is a prefix of what is differentiated.
    - ``non_float`` ("float0"): how leaves are treated that are not floating-point or complex arrays. ``"float0"`` is as in jax;
      with ``"none"`` integers, booleans, keys and leaves that are no arrays at all pass through, and their derivative is None.
    """

    zero_wins: bool
    custom_vjp_jvp: Literal["transpose", "differentiate_primal", "error"]
    split_repeated: bool
    stack_cotangents: Literal["auto", True, False]
    recompute_residuals: Literal["auto", True, False]
    fuse_loops: Literal["auto", True, False]
    loop_checkpoints: int | None
    max_steps: int | None
    schedule: Literal["all", "sqrt"] | Revolve | Bytes
    cotangent_dtype: Any
    non_float: Literal["float0", "none"]
