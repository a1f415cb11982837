"""``torch.utils.data.distributed``: the sampler of one of several processes."""

from dualrev.eager.utils.data.samplers import DistributedSampler as DistributedSampler
