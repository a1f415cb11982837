"""Datasets, samplers and batches: ``torch.utils.data``.

May import: ``core``, ``graph`` and ``ops``.  Start reading at :mod:`dualrev.eager.utils.data.loading`.
"""

from dualrev.eager.utils.data import distributed as distributed
from dualrev.eager.utils.data.datasets import ChainDataset as ChainDataset
from dualrev.eager.utils.data.datasets import ConcatDataset as ConcatDataset
from dualrev.eager.utils.data.datasets import Dataset as Dataset
from dualrev.eager.utils.data.datasets import IterableDataset as IterableDataset
from dualrev.eager.utils.data.datasets import StackDataset as StackDataset
from dualrev.eager.utils.data.datasets import Subset as Subset
from dualrev.eager.utils.data.datasets import TensorDataset as TensorDataset
from dualrev.eager.utils.data.datasets import random_split as random_split
from dualrev.eager.utils.data.loading import DataLoader as DataLoader
from dualrev.eager.utils.data.loading import default_collate as default_collate
from dualrev.eager.utils.data.loading import default_convert as default_convert
from dualrev.eager.utils.data.loading import get_worker_info as get_worker_info
from dualrev.eager.utils.data.samplers import BatchSampler as BatchSampler
from dualrev.eager.utils.data.samplers import DistributedSampler as DistributedSampler
from dualrev.eager.utils.data.samplers import RandomSampler as RandomSampler
from dualrev.eager.utils.data.samplers import Sampler as Sampler
from dualrev.eager.utils.data.samplers import SequentialSampler as SequentialSampler
from dualrev.eager.utils.data.samplers import SubsetRandomSampler as SubsetRandomSampler
from dualrev.eager.utils.data.samplers import WeightedRandomSampler as WeightedRandomSampler
