"""Functions of ``torch.nn.functional`` that stand in ``torch`` itself, some with other arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.spectrograms import istft, stft

#: Those with the same arguments.
_SAME = """
    adaptive_avg_pool1d avg_pool1d bilinear celu celu_ channel_shuffle conv1d conv2d conv3d conv_tbc cosine_similarity group_norm
    hardshrink layer_norm max_pool1d max_pool2d max_pool3d pairwise_distance pdist pixel_shuffle pixel_unshuffle prelu relu relu_
    rms_norm selu selu_ softmax log_softmax threshold threshold_ rrelu rrelu_
""".split()  # noqa: SIM905  (names are read as words)
#: Those whose reduction is a number: none, mean, sum.
_REDUCING = ["binary_cross_entropy_with_logits", "cosine_embedding_loss", "hinge_embedding_loss", "kl_div", "margin_ranking_loss",
             "poisson_nll_loss", "triplet_margin_loss"]


def _numbered(name: str) -> Callable[..., Tensor]:
    """A loss that takes its reduction as a number, last of its arguments."""
    fun: Any = getattr(F, name)

    def loss(*args: Any, reduction: int = 0, **kwargs: Any) -> Tensor:
        return fun(*args, reduction=("none", "mean", "sum")[reduction], **kwargs)

    loss.__name__ = loss.__qualname__ = name
    loss.__doc__ = f"``nn.functional.{name}``, with 0, 1 or 2 for no reduction (the default), the mean and the sum."
    return loss


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,  # noqa: A002
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """``nn.functional.conv_transpose1d``."""
    return F.conv_transpose1d(input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,  # noqa: A002
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """``nn.functional.conv_transpose2d``."""
    return F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,  # noqa: A002
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """``nn.functional.conv_transpose3d``."""
    return F.conv_transpose3d(input, weight, bias, stride, padding, output_padding, groups, dilation)


def batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,  # noqa: A002
               running_var: Tensor | None, training: bool, momentum: float, eps: float, cudnn_enabled: bool) -> Tensor:
    """``nn.functional.batch_norm``, with its arguments in another order."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,  # noqa: A002
                  running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float, cudnn_enabled: bool) -> Tensor:
    """``nn.functional.instance_norm``, with its arguments in another order."""
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def dropout(input: Tensor, p: float, train: bool) -> Tensor:  # noqa: A002
    """``nn.functional.dropout``."""
    return F.dropout(input, p, train)


def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
              ) -> Tensor:
    """``nn.functional.embedding``, with the table first."""
    return F.embedding(indices, weight, None if padding_idx < 0 else padding_idx, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """``nn.functional.affine_grid``."""
    return F.affine_grid(theta, size, align_corners)


def _hardshrink(self: Tensor, lambd: float = 0.5) -> Tensor:
    """``nn.functional.hardshrink``."""
    return F.hardshrink(self, lambd)


Tensor.hardshrink = _hardshrink  # type: ignore[assignment, method-assign]


def named() -> dict[str, Callable[..., Any]]:
    """The functions, by their names in ``torch``."""
    own = {f.__name__: f for f in (conv_transpose1d, conv_transpose2d, conv_transpose3d, batch_norm, instance_norm, dropout, embedding,
                                   affine_grid_generator, stft, istft)}
    return {**{name: getattr(F, name) for name in _SAME}, **{name: _numbered(name) for name in _REDUCING}, **own,
            "native_channel_shuffle": F.native_channel_shuffle}
