"""Special functions, Fourier transforms, functions of numbers and facts about dtypes are PyTorch's."""

from __future__ import annotations

from typing import Any

from against_torch import in_both
from test_statistics import gradient

from dualrev import eager as torch


def test_special_functions() -> None:
    names = ["entr", "i0", "i0e", "i1", "i1e", "ndtr", "log_ndtr", "ndtri", "sinc", "expit", "logit", "erf", "erfc", "erfinv",
             "exp2",
             "expm1", "log1p", "gammaln", "digamma", "psi"]

    def program(t: Any) -> Any:
        x, y = t.tensor([0.1, 0.5, 0.9, 0.3], requires_grad=True), t.tensor([2.0, 0.3, 1.5, 0.1])
        s = t.special
        outs = [*[getattr(s, name)(x) for name in names], s.xlog1py(y, x), s.xlogy(y, x), t.igamma(y, x), t.igammac(y, x),
                s.zeta(y + 1.5, x), x.logit(0.2), t.logit(x, eps=1e-3), t.polygamma(1, x), x.polygamma(2), s.polygamma(0, x),
                t.mvlgamma(x + 3, 2), s.softmax(x, 0), s.log_softmax(x, 0), s.logsumexp(x, 0), s.round(x, decimals=1)]
        z = t.tensor([0.0, 1, -1, 2])
        zero = t.zeros(2, requires_grad=True)
        return [outs, [gradient(t, o, x) for o in outs], s.entr(z), z.sinc(), s.log_ndtr(t.tensor([-30.0, 5])),
                t.nextafter(z, t.tensor(9.0)), t.i0(t.tensor([1, 2])), gradient(t, zero.sinc(), zero), z.clone().logit_(0.1),
                s.i1(z, out=t.empty(4))]

    in_both(program, 3e-5)


BESSEL = ["airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "modified_bessel_k0", "modified_bessel_k1",
          "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "spherical_bessel_j0"]


def test_bessel_functions() -> None:
    def program(t: Any) -> Any:
        x = t.tensor([-3.0, -0.5, 0.0, 0.25, 1.0, 7.5, 30.0])
        refused = []
        for call in (lambda: t.special.bessel_j0(t.ones(1).bfloat16()), lambda: t.special.bessel_y1(t.ones(1) + 1j),
                     lambda: t.special.airy_ai(2.0)):
            try:
                call()
            except (NotImplementedError, TypeError) as error:
                refused.append(str(error).splitlines()[0])
        return [*[getattr(t.special, name)(y) for name in BESSEL for y in (x, x.double(), t.tensor([1, 2]))],
                t.special.bessel_j0(x.requires_grad_()).requires_grad, t.special.bessel_j1(x.detach(), out=t.empty(7)), refused,
                t.vmap(t.special.bessel_j0)(t.ones(2, 3))]

    in_both(program)


def test_bessel_functions_inside_a_compiled_program() -> None:
    x = torch.tensor([0.5, 2.0])
    for name in BESSEL:
        fun = getattr(torch.special, name)
        assert torch.equal(torch.jit(lambda x, fun=fun: fun(x) * 2)(x), fun(x) * 2)


def test_fourier_transforms() -> None:
    def program(t: Any) -> Any:
        f, x = t.fft, t.arange(12.0).reshape(3, 4).sin().requires_grad_()
        outs = [f.fft(x), f.fft(x, n=3, dim=0), f.fft(x, 6, norm="ortho"), f.ifft(x), f.rfft(x), f.rfft(x, dim=0, norm="forward"),
                f.irfft(f.rfft(x)), f.irfft(f.rfft(x, dim=0), n=3, dim=0), f.fft2(x), f.ifft2(x, norm="ortho"), f.rfft2(x),
                f.irfft2(f.rfft2(x)), f.fftn(x, s=(2,)), f.fftn(x, s=(2, 5), dim=(1, 0)), f.ifftn(x), f.rfftn(x),
                f.irfftn(f.rfftn(x), s=(3, 4)), f.hfft(x), f.ihfft(x), f.fftshift(x), f.ifftshift(x, dim=1)]
        return [outs, [gradient(t, o.abs() ** 2, x) for o in outs], f.fftfreq(5), f.fftfreq(4, 0.5), f.rfftfreq(5)]

    in_both(program, 5e-5)


def test_functions_of_numbers() -> None:
    def program(t: Any) -> Any:
        x, i = t.tensor([1.5, -2.0, 0.0, 8.0], requires_grad=True), t.tensor([4, 6, -9, 0])
        outs = [t.frexp(x)[0], t.ldexp(x, t.tensor([1, 2, 3, 0])), x.float_power(3), x.clamp_min(1.0), t.clamp_max(x, 1.0)]
        w = t.tensor([1.0, -2, 3])
        w.clip_(-1, 2).multiply_(2).subtract_(1).divide_(2).absolute_().negative_().lerp_(t.ones(3), 0.5).cumsum_(0)
        return [outs, [gradient(t, o, x) for o in outs], t.frexp(x)[1], t.signbit(t.tensor([-0.0, 1])), t.isposinf(x / 0),
                t.isneginf(x / 0),
                t.gcd(i, t.tensor(6)), t.lcm(i, t.tensor([6, 4, 3, 2])), t.float_power(2, x.detach()), w,
                t.ones(3, 3).tril_().triu_(-1), t.zeros(5, 2).fill_diagonal_(1.0, wrap=True), t.tensor([1.0,
                                                                                                        2]).apply_(lambda v: v * 3),
                t.tensor([1.0, 2]).map_(t.tensor([3.0, 4]), lambda a, b: a * b), t.ones(2, 3, 4).sum_to_size(3, 1)]

    in_both(program)


def test_dtypes() -> None:
    def program(t: Any) -> Any:
        kinds = [t.bool, t.uint8, t.int8, t.int16, t.int32, t.int64, t.float16, t.bfloat16, t.float32, t.float64, t.complex64,
                 t.complex128]
        some = [t.tensor(1), t.tensor([1]), t.tensor(1.0, dtype=t.float64), t.tensor([1.0]), t.tensor([True]), 3, 2.5, True, 1j]
        x = t.tensor([1.5, 2])
        info = t.finfo(t.float32)
        t.set_printoptions(precision=2)
        short = str(t.tensor([1.23456]))
        t.set_printoptions(profile="default")
        return [[repr(t.promote_types(a, b)) for a in kinds for b in kinds], [t.can_cast(a, b) for a in kinds for b in kinds],
                [repr(t.result_type(a, b)) for a in some[:5] for b in some], info.eps, info.max, info.tiny, info.bits, info.dtype,
                t.iinfo(t.int8).min, repr(t.finfo(t.float16)), repr(t.iinfo(t.int32)), x.type(), x.byte(), x.char(),
                x.type("torch.LongTensor"), x.type(t.DoubleTensor), t.pi, t.e, list(x[t.newaxis].shape), short, x.is_signed()]

    in_both(program)
