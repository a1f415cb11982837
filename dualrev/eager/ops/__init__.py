"""Operations on tensors, one module for each kind; a module registers its functions, methods and operators as it is imported.

May import: ``core`` and ``graph``.  Start reading at :mod:`dualrev.eager.ops.unary`: an operation is a jax function, an ``Op``, and a
function that applies it; then ``registry``, where it is registered, and ``arguments``, which reads PyTorch's signatures.
"""

from dualrev.eager.ops import (
    binary,
    changed_shapes,
    constructors,
    conversion,
    copies,
    counting,
    creation,
    decompositions,
    dense,
    differences,
    distributions,
    dtype_names,
    einsum,
    equality,
    extremes,
    flat_indices,
    indexing,
    joining,
    lifting,
    linear_algebra,
    matrix_products,
    number_functions,
    operators,
    order_statistics,
    placement,
    printing,
    rearranged_parts,
    rearranging,
    reductions,
    replaced_parts,
    sampling,
    scaled_products,
    scattering,
    selecting,
    sequences,
    shapes,
    size_numbers,
    special_functions,
    statistics,
    storages,
    strides,
    ternary,
    unary,
    view_copies,
    windows,
)
from dualrev.eager.ops import complex as complex  # noqa: A004  (the module of complex tensors)

#: The modules that register operations.
MODULES = (binary, changed_shapes, complex, constructors, conversion, copies, counting, creation, decompositions, dense, differences,
           distributions, dtype_names, einsum, equality, extremes, flat_indices, indexing, joining, lifting,
           linear_algebra, matrix_products, number_functions, operators, order_statistics, placement, printing,
           rearranged_parts, rearranging, reductions, replaced_parts, sampling, scaled_products, scattering,
           selecting, sequences, shapes, size_numbers, special_functions, statistics, storages,
           strides, ternary, unary, view_copies, windows)
