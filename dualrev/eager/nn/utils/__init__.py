"""Gradients and parameters taken together, parametrizations, and sequences of different lengths: ``torch.nn.utils``.

May import: everything of ``nn``.  Start reading at :mod:`dualrev.eager.nn.utils.gradients`.
"""

from dualrev.eager.nn.utils import parametrizations as parametrizations
from dualrev.eager.nn.utils import parametrize as parametrize
from dualrev.eager.nn.utils import rnn as rnn
from dualrev.eager.nn.utils.fusing import convert_conv2d_weight_memory_format as convert_conv2d_weight_memory_format
from dualrev.eager.nn.utils.fusing import convert_conv3d_weight_memory_format as convert_conv3d_weight_memory_format
from dualrev.eager.nn.utils.fusing import fuse_conv_bn_eval as fuse_conv_bn_eval
from dualrev.eager.nn.utils.fusing import fuse_conv_bn_weights as fuse_conv_bn_weights
from dualrev.eager.nn.utils.fusing import fuse_linear_bn_eval as fuse_linear_bn_eval
from dualrev.eager.nn.utils.fusing import fuse_linear_bn_weights as fuse_linear_bn_weights
from dualrev.eager.nn.utils.fusing import skip_init as skip_init
from dualrev.eager.nn.utils.gradients import clip_grad_norm as clip_grad_norm
from dualrev.eager.nn.utils.gradients import clip_grad_norm_ as clip_grad_norm_
from dualrev.eager.nn.utils.gradients import clip_grad_value_ as clip_grad_value_
from dualrev.eager.nn.utils.gradients import clip_grads_with_norm_ as clip_grads_with_norm_
from dualrev.eager.nn.utils.gradients import get_total_norm as get_total_norm
from dualrev.eager.nn.utils.gradients import parameters_to_vector as parameters_to_vector
from dualrev.eager.nn.utils.gradients import vector_to_parameters as vector_to_parameters
from dualrev.eager.nn.utils.norms_by_hooks import remove_spectral_norm as remove_spectral_norm
from dualrev.eager.nn.utils.norms_by_hooks import remove_weight_norm as remove_weight_norm
from dualrev.eager.nn.utils.norms_by_hooks import spectral_norm as spectral_norm
from dualrev.eager.nn.utils.norms_by_hooks import weight_norm as weight_norm
