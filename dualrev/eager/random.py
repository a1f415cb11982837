"""The random numbers of the process: ``torch.random``."""

from dualrev.eager.ops.generator import default_generator as default_generator
from dualrev.eager.ops.sampling import get_rng_state as get_rng_state
from dualrev.eager.ops.sampling import initial_seed as initial_seed
from dualrev.eager.ops.sampling import manual_seed as manual_seed
from dualrev.eager.ops.sampling import seed as seed
from dualrev.eager.ops.sampling import set_rng_state as set_rng_state
