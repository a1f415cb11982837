"""Short-time Fourier transforms: ``stft`` and ``istft``."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dualrev._jax.traces import Tracer
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.nn.functional import pad
from dualrev.eager.ops.registry import FUNCTIONS, method


def _frames(n: int, n_fft: int, hop: int) -> int:
    return 1 + (n - n_fft) // hop


def _spectrum(x: jax.Array, window: jax.Array, n_fft: int, hop: int, normalized: bool, onesided: bool) -> jax.Array:
    count = _frames(x.shape[-1], n_fft, hop)
    places = jnp.arange(count)[:, None] * hop + jnp.arange(n_fft)[None]
    parts = x[..., places] * window
    norm = "ortho" if normalized else "backward"
    found = jnp.fft.rfft(parts, norm=norm) if onesided else jnp.fft.fft(parts, norm=norm)
    return jnp.swapaxes(found, -1, -2)


def _signal(x: jax.Array, window: jax.Array, n_fft: int, hop: int, normalized: bool, onesided: bool, is_complex: bool) -> jax.Array:
    norm = "ortho" if normalized else "backward"
    x = jnp.swapaxes(x, -1, -2)
    parts = jnp.fft.irfft(x, n_fft, norm=norm) if onesided else jnp.fft.ifft(x, norm=norm)
    parts = (parts if is_complex else parts.real) * window
    count = parts.shape[-2]
    places = (jnp.arange(count)[:, None] * hop + jnp.arange(n_fft)[None]).ravel()
    length = n_fft + hop * (count - 1)
    out = jnp.zeros((*parts.shape[:-2], length), parts.dtype).at[..., places].add(parts.reshape(*parts.shape[:-2], -1))
    weight = jnp.zeros(length, window.dtype).at[places].add(jnp.broadcast_to(jnp.abs(window) ** 2, (count, n_fft)).ravel())
    return jnp.stack(jnp.broadcast_arrays(out, weight.astype(out.dtype)))


_stft = family("Stft", _spectrum)
_istft = family("Istft", _signal)


def _window(name: str, window: Tensor | None, win_length: int, n_fft: int, like: Tensor) -> Tensor:
    if window is not None and (window.ndim != 1 or window.shape[0] != win_length):
        raise RuntimeError(f"{name}: expected a 1D window tensor of size equal to win_length={win_length}, but got window with size "
                           f"{list(window.shape)}")
    given = FUNCTIONS["ones"](win_length, dtype=like.real.dtype if like.is_complex() else like.dtype) if window is None else window
    left = (n_fft - win_length) // 2
    return given if win_length == n_fft else pad(given, (left, n_fft - win_length - left))


@method
def stft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Tensor | None = None,  # noqa: A002
         center: bool = True, pad_mode: str = "reflect", normalized: bool = False, onesided: bool | None = None,
         return_complex: bool | None = None, align_to_window: bool | None = None) -> Tensor:
    """The Fourier transforms of windowed parts of a signal: frequencies times frames.

    Raises:
      RuntimeError: sizes do not fit, or ``return_complex`` is not given for a real signal.

    >>> from dualrev import eager as torch
    >>> torch.stft(torch.ones(8), 4, window=torch.ones(4), return_complex=True).shape
    torch.Size([3, 9])
    """
    is_complex = input.is_complex() or (window is not None and window.is_complex())
    if return_complex is None and not is_complex:
        raise RuntimeError("stft requires the return_complex parameter be given for real inputs, and will further require that "
                           "return_complex=True in a future PyTorch release.")
    if input.ndim not in (1, 2):
        raise RuntimeError(f"stft: expected a 1D or 2D tensor, but got {input.ndim}D")
    hop, win = n_fft // 4 if hop_length is None else hop_length, n_fft if win_length is None else win_length
    x = input
    if center:
        # The signal gets a dimension for padding that reflects.
        x = pad(x.reshape(1, -1, x.shape[-1]), (n_fft // 2, n_fft // 2), pad_mode).reshape(*x.shape[:-1], -1)
    n = x.shape[-1]
    if not 0 < n_fft <= n:
        raise RuntimeError(f"stft: expected 0 < n_fft < {n}, but got n_fft={n_fft}")
    if hop <= 0:
        raise RuntimeError(f"stft: expected hop_length > 0, but got hop_length={hop}")
    if not 0 < win <= n_fft:
        raise RuntimeError(f"stft: expected 0 < win_length <= n_fft, but got win_length={win}")
    half = not is_complex if onesided is None else onesided
    if half and is_complex:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    found: Tensor = apply(_stft(n_fft, hop, bool(normalized), half), (x, _window("stft", window, win, n_fft, input)))
    return found if return_complex or return_complex is None else FUNCTIONS["view_as_real"](found)


@method
def istft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Tensor | None = None,  # noqa: A002
          center: bool = True, normalized: bool = False, onesided: bool | None = None, length: int | None = None,
          return_complex: bool = False) -> Tensor:
    """The signal of short-time Fourier transforms: parts are windowed, added, and divided by the sum of squared windows.

    Raises:
      RuntimeError: the input is not complex, or the windows leave out a part of the signal.
    """
    if not input.is_complex():
        raise RuntimeError("istft requires a complex-valued input tensor matching the output from stft with return_complex=True.")
    hop, win = n_fft // 4 if hop_length is None else hop_length, n_fft if win_length is None else win_length
    half = input.shape[-2] != n_fft if onesided is None else onesided
    bins = n_fft // 2 + 1 if half else n_fft
    if input.shape[-2] != bins:
        raise RuntimeError(f"istft: expected the frequency dimension (3rd to the last) of the input tensor to match n_fft / 2 + 1 when "
                           f"onesided=True, but got {input.shape[-2]}")
    both_parts = apply(_istft(n_fft, hop, bool(normalized), half, bool(return_complex)),
                       (input, _window("istft", window, win, n_fft, input)))
    start = n_fft // 2 if center else 0
    total = both_parts.shape[-1]
    end = start + length if length is not None else total - n_fft // 2 if center else total
    out, weight = both_parts[0][..., start: end], both_parts[1][..., start: end]
    if weight.numel() and not isinstance(array_of(weight), Tracer) and float(weight.detach().abs().min()) < 1e-11:
        raise RuntimeError(f"window overlap add min: {int(float(weight.detach().abs().min()))}\nthe windows leave out a part of the "
                           "signal: take a smaller hop_length")
    out = out / weight
    missing = 0 if length is None else length - out.shape[-1]
    return pad(out, (0, missing)) if missing > 0 else out
