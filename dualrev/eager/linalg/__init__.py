"""Linear algebra under PyTorch's names: ``torch.linalg``.

May import: ``ops`` and below.  Start reading at :mod:`dualrev.eager.linalg.factorizations`.
"""

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.linalg.argument_names import with_names
from dualrev.eager.linalg.basics import LinAlgError as LinAlgError
from dualrev.eager.linalg.basics import cholesky as cholesky
from dualrev.eager.linalg.basics import cholesky_ex as cholesky_ex
from dualrev.eager.linalg.basics import det as det
from dualrev.eager.linalg.basics import inv as inv
from dualrev.eager.linalg.basics import inv_ex as inv_ex
from dualrev.eager.linalg.basics import matmul as matmul
from dualrev.eager.linalg.basics import slogdet as slogdet
from dualrev.eager.linalg.basics import solve as solve
from dualrev.eager.linalg.basics import vector_norm as vector_norm
from dualrev.eager.linalg.eigenpairs import lobpcg as _lobpcg  # noqa: F401  (registers itself among the functions of torch)
from dualrev.eager.linalg.equations import lstsq as lstsq
from dualrev.eager.linalg.equations import lu_solve as lu_solve
from dualrev.eager.linalg.equations import pinv as pinv
from dualrev.eager.linalg.equations import solve_ex as solve_ex
from dualrev.eager.linalg.equations import solve_triangular as solve_triangular
from dualrev.eager.linalg.equations import tensorinv as tensorinv
from dualrev.eager.linalg.equations import tensorsolve as tensorsolve
from dualrev.eager.linalg.factorizations import eig as eig
from dualrev.eager.linalg.factorizations import eigh as eigh
from dualrev.eager.linalg.factorizations import eigvals as eigvals
from dualrev.eager.linalg.factorizations import eigvalsh as eigvalsh
from dualrev.eager.linalg.factorizations import lu as lu
from dualrev.eager.linalg.factorizations import lu_factor as lu_factor
from dualrev.eager.linalg.factorizations import lu_factor_ex as lu_factor_ex
from dualrev.eager.linalg.factorizations import qr as qr
from dualrev.eager.linalg.factorizations import svd as svd
from dualrev.eager.linalg.factorizations import svdvals as svdvals
from dualrev.eager.linalg.functions_of_matrices import cond as cond
from dualrev.eager.linalg.functions_of_matrices import cross as cross
from dualrev.eager.linalg.functions_of_matrices import diagonal as diagonal
from dualrev.eager.linalg.functions_of_matrices import householder_product as householder_product
from dualrev.eager.linalg.functions_of_matrices import matrix_exp as matrix_exp
from dualrev.eager.linalg.functions_of_matrices import matrix_norm as matrix_norm
from dualrev.eager.linalg.functions_of_matrices import matrix_power as matrix_power
from dualrev.eager.linalg.functions_of_matrices import matrix_rank as matrix_rank
from dualrev.eager.linalg.functions_of_matrices import multi_dot as multi_dot
from dualrev.eager.linalg.functions_of_matrices import norm as norm
from dualrev.eager.linalg.functions_of_matrices import ormqr as _ormqr
from dualrev.eager.linalg.functions_of_matrices import vander as vander
from dualrev.eager.linalg.functions_of_matrices import vecdot as vecdot
from dualrev.eager.linalg.symmetric_factors import ldl_factor as ldl_factor
from dualrev.eager.linalg.symmetric_factors import ldl_factor_ex as ldl_factor_ex
from dualrev.eager.linalg.symmetric_factors import ldl_solve as ldl_solve
from dualrev.eager.ops.outputs import with_out
from dualrev.eager.ops.precision import with_precision
from dualrev.eager.ops.registry import both, renamed

#: The functions that take ``out=``.
_WITH_OUT = ("cholesky cholesky_ex cond cross det eig eigh eigvals eigvalsh householder_product inv inv_ex lstsq lu lu_factor "
             "lu_factor_ex lu_solve matmul matrix_norm matrix_power matrix_rank multi_dot norm pinv qr slogdet solve solve_ex "
             "solve_triangular svd svdvals tensorinv tensorsolve vecdot vector_norm ldl_factor ldl_factor_ex ldl_solve")
#: The functions of tensors.
_NAMES = [*_WITH_OUT.split(), "diagonal", "matrix_exp", "vander"]
globals().update({name: with_out(globals()[name], f"linalg_{name}") for name in _WITH_OUT.split()})
globals().update(with_precision("linalg", globals()))
globals().update({name: with_names(globals()[name], f"linalg_{name}") for name in _NAMES})


def _pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:  # noqa: A002
    """``linalg.pinv``."""
    return pinv(input, rtol=rcond)


def _orgqr(input: Tensor, input2: Tensor) -> Tensor:  # noqa: A002
    """``linalg.householder_product``."""
    return householder_product(input, input2)


for _name, _fun in (("pinverse", _pinverse), ("orgqr", _orgqr), ("ormqr", _ormqr)):
    both(renamed(_fun, _name, _fun.__doc__ or ""))
