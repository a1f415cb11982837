"""Factorizations, equations, norms and products of matrices give PyTorch's results, gradients and refusals."""

from __future__ import annotations

from typing import Any

from against_torch import in_both, message
from test_statistics import gradient


def matrices(t: Any) -> tuple[Any, Any]:
    a = t.arange(9.0).reshape(3, 3).sin() + t.eye(3) * 2
    return a.requires_grad_(), t.arange(6.0).reshape(3, 2).cos().requires_grad_()


def test_factorizations() -> None:
    def program(t: Any) -> Any:
        (a, b), f = matrices(t), t.linalg
        s = a @ a.T
        u, d, vh = f.svd(b, full_matrices=False)
        outs = [f.eigh(s).eigenvalues, f.eigvalsh(a), f.eigvalsh(s, UPLO="U"), f.eigh(s)[1].abs(), d, (u * d) @ vh, u.abs(),
                f.svdvals(b), t.svd(b).S, *[m.abs() for m in f.qr(b)], f.lu(a)[1], f.lu(a)[2], f.lu_factor(a)[0],
                t.cholesky(s), t.cholesky(s, upper=True), t.lu_unpack(*f.lu_factor(a))[2], f.eig(s)[0].abs().sort()[0]]
        return [outs, [gradient(t, o, a, b) for o in outs], f.qr(b, "r").R.abs(), f.lu_factor(a)[1], list(f.svd(b)[0].shape),
                list(f.qr(b, mode="complete")[0].shape), f.lu(b), f.lu_factor_ex(a).info]

    in_both(program, 1e-3)


def test_equations() -> None:
    def program(t: Any) -> Any:
        (a, b), f = matrices(t), t.linalg
        factor = f.cholesky(a @ a.T)
        packed = f.lu_factor(a)
        outs = [f.solve_triangular(a, b, upper=True), f.solve_triangular(a, b.T, upper=True, left=False),
                f.solve_triangular(a, b, upper=False, unitriangular=True), t.triangular_solve(b, a)[0], f.lstsq(a, b).solution,
                f.solve_ex(a, b)[0], t.cholesky_solve(b, factor), t.cholesky_solve(b, factor.mT, upper=True),
                t.cholesky_inverse(factor),
                f.lu_solve(*packed, b), t.lu_solve(b, *packed), f.lu_solve(*packed, b, adjoint=True),
                f.lu_solve(*packed, b.T, left=False), f.pinv(b), f.pinv(a), t.logdet(a), t.slogdet(a)[1], t.matrix_exp(a)]
        full = f.lstsq(b, t.ones(3, 1), driver="gelsd")
        return [outs, [gradient(t, o, a, b) for o in outs], full, f.pinv(t.tensor([[1.0, 2], [2, 4]])), t.logdet(-t.eye(3)),
                f.tensorsolve(t.eye(6).reshape(2, 3, 6), t.ones(2, 3)), f.tensorinv(t.eye(6).reshape(2, 3, 6))]

    in_both(program, 1e-3)


def test_norms_and_products() -> None:
    def program(t: Any) -> Any:
        f, a = t.linalg, t.arange(1.0, 13).reshape(2, 2, 3).sin().requires_grad_()
        c = t.tensor([[1.0, 2], [3, 4.5]])
        norms = [f.matrix_norm(a, o) for o in ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf"))]
        m, i, x, y = t.arange(9.0).reshape(3, 3).cos().requires_grad_(), t.arange(3.0), t.arange(12.0).sin(), t.arange(12.0).cos()
        p, q = x.reshape(2, 3, 2), y.reshape(2, 2, 3)
        products = [t.addmv(i, m, i, beta=0.5, alpha=2), t.addr(m, i, i, alpha=0.5), t.baddbmm(m, p, q, beta=2.0, alpha=0.1),
                    t.addbmm(m, p, q, beta=0.5), t.chain_matmul(m, m, m), f.multi_dot([m, m, i]), t.tensordot(m, p, dims=([1],
                                                                                                                          [1]))]
        return [norms, [gradient(t, o, a) for o in norms], products, [gradient(t, o, m) for o in products],
                *[f.cond(c, o) for o in (None, 2, -2, "fro", "nuc", 1)], f.matrix_rank(c), f.matrix_rank(t.ones(2, 2)),
                f.matrix_rank(c, tol=10.0), f.cross(i, i + 1), f.vecdot(c, c), f.vander(c[0]), f.norm(c, 2), f.norm(c), f.norm(c,
                                                                                                                               2,
                                                                                                                               dim=1),
                f.inv(c, out=t.empty(0)), t.addmm(t.full((3, 3), float("nan")), m, m, beta=0), t.ones(3, 3).addmm_(m.detach(),
                                                                                                                   m.detach())]

    in_both(program, 2e-4)


def test_refusals() -> None:
    def program(t: Any) -> Any:
        f = t.linalg
        return [message(lambda: f.eigh(t.ones(2, 3))), message(lambda: f.eigh(t.ones(2, 2).long()), NotImplementedError),
                message(lambda: f.svd(t.ones(3))), message(lambda: f.qr(t.ones(2, 2), "z")), message(lambda: t.cholesky(-t.eye(2))),
                message(lambda: f.solve_triangular(t.eye(3), t.ones(2, 2), upper=True)), message(lambda: f.lu_factor(t.zeros(2,
                                                                                                                             2))),
                message(lambda: f.matrix_norm(t.eye(2), "x")), message(lambda: f.multi_dot([t.eye(2)]))]

    in_both(program)
