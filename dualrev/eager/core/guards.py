"""What PyTorch saves for backward, by operation: a change of it in place makes backward refuse.

Arrays never change here, so that the numbers of a backward pass are those of the forward values in any case.  PyTorch computes with
what its tensors hold at that time; a program that it refuses is refused here too, and no other.  An operation that is not listed
guards what its pull reads, which is the same for most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from dualrev.calls.linearization import Linearization
from dualrev.programs.jaxprs import reads
from dualrev.programs.partition import graph_of

#: Input ``i``, or output ``j`` as ``~j``; by the active input, where it depends on that.
Guards: TypeAlias = tuple[int, ...] | Mapping[int, tuple[int, ...]]

#: The outputs.
FIRST, SECOND, THIRD = ~0, ~1, ~2


def _each(guards: Guards, *names: str) -> dict[str, Guards]:
    return dict.fromkeys(names, guards)


GUARDS: dict[str, Guards] = {
    # Derivatives that are computed from the result alone.
    **_each((FIRST,), "Exp", "Exp2", "Expm1", "Reciprocal", "Relu", "Rsqrt", "Sigmoid", "Sqrt", "Tan", "Tanh", "Softmax", "LogSoftmax",
            "Polar", "LinalgInvEx", "LinalgCholeskyEx", "SpecialNdtri"),
    **_each((FIRST, SECOND), "LinalgEig", "LinalgEigh", "LinalgLuFactorEx"),
    **_each((FIRST, SECOND, THIRD), "LinalgLu", "LinalgSvd"),
    # From the operands and the result.
    **_each((0, FIRST), "Amax", "Amin", "Copysign", "Cumprod", "LinalgDet", "LinalgSlogdet", "LinalgVectorNorm", "Logsumexp", "Max:1",
            "Median", "Min:1", "Pdist", "Prod", "SpecialErfcx", "SpecialI1", "SpecialLogNdtr", "Std", "LinalgSolveEx",
            "LinalgSolveTriangular", "LinalgPinv"),
    **_each((0, 1, FIRST), "Cdist", "Dist", "LinalgHouseholderProduct", "LinalgLstsq"),
    **_each((0, 1, 2, FIRST), "IndexReduce", "Ormqr", "ScatterReduce"),
    "Hypot": {0: (0, FIRST), 1: (1, FIRST)},
    # From where an entry came from.
    **_each((SECOND,), "Frexp", "Kthvalue", "Max", "Median:1", "Min", "Mode", "Sort"),
    **_each((0, SECOND), "Cummax", "Cummin", "MaxPool1DWithIndices", "MaxPool2DWithIndices", "MaxPool3DWithIndices"),
    # From operands, some of which are read for their shapes only.
    **_each((0,), "Erfinv", "FftR2C", "AvgPool1D", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool1D", "AdaptiveAvgPool2D",
            "AdaptiveAvgPool3D", "ReflectionPadNd", "ReplicationPadNd"),
    **_each((0, 1), "Complex", "Convolution", "Gather", "GridSampler2D", "GridSampler3D", "MaskedSelect", "Take"),
    **_each((0, 1, 2), "NativeLayerNorm"),
    "IndexAdd": {2: (1, 2)},
    "IndexCopy": {0: (1,), 2: (1, 2)},
    "MaskedScatter": (1,),
    "Ldexp": (1, FIRST),
    "LinalgLuSolve": (1, 2, FIRST),
    "Pow:1": {0: (0, 1), 1: (0, 1, FIRST)},
    "Pow:2": (1, FIRST),
    "Div:2": {0: (1,), 1: (0, 1)},
    "Remainder": {1: (0, 1)},
    "NllLoss": (1, 2),
    # From the parts of a longer computation, which nobody can change.
    **_each((), "CumulativeTrapezoid", "Cov", "Diag", "Diagonal", "GaussianNllLoss", "HingeEmbeddingLoss", "Kron", "L1Loss",
            "MarginRankingLoss", "Quantile", "RepeatInterleave", "SpecialNdtr", "Tanhshrink", "Trapezoid"),
}


def guarded(known: Guards | None, positions: Sequence[int], sources: Sequence[tuple[int, int]], linearization: Linearization
            ) -> tuple[int, ...]:
    """The inputs, by number, and the outputs, by ``~number``, that PyTorch saves.

    For an operation of which nothing is ``known``, what the residuals are or are computed from; ``sources`` says which input (0),
    output (1) or further value (2) each is.
    """
    n_in, n_out = len(linearization.in_avals), len(linearization.out_avals)
    if known is not None:
        places = known if isinstance(known, tuple) else [place for i in positions for place in known.get(i, ())]
        return tuple(dict.fromkeys([place for place in places if -n_out <= place < n_in]))
    found = {where if kind == 0 else ~where: None for kind, where in sources if kind != 2}
    new = [n_out + where for kind, where in sources if kind == 2]
    if new:
        # With calls inlined: an output of a call need not depend on all of its operands.
        graph = graph_of(linearization.program.jaxpr)
        needed = reads(graph.computing([graph.outvars[k] for k in new]))
        found.update({i: None for i, needs in enumerate(needed) if needs})
    return tuple(found)
