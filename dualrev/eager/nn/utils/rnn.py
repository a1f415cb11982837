"""Sequences of different lengths: ``torch.nn.utils.rnn``."""

from dualrev.eager.nn.functions.packing import PackedSequence as PackedSequence
from dualrev.eager.nn.functions.packing import invert_permutation as invert_permutation
from dualrev.eager.nn.functions.packing import pack_padded_sequence as pack_padded_sequence
from dualrev.eager.nn.functions.packing import pack_sequence as pack_sequence
from dualrev.eager.nn.functions.packing import pad_packed_sequence as pad_packed_sequence
from dualrev.eager.nn.functions.packing import pad_sequence as pad_sequence
from dualrev.eager.nn.functions.packing import unpack_sequence as unpack_sequence
from dualrev.eager.nn.functions.packing import unpad_sequence as unpad_sequence
