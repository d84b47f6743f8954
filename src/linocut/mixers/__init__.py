"""Linear-time token mixers as modules, and the registry that builds them by name.

Example:
    >>> from linocut import mixers
    >>> "linear_attention" in mixers.names()
    True
    >>> mixer = mixers.build("linear_attention", 32, causal=False, heads=2)
"""

from linocut.mixers.base import (
    Info,
    LocalMixer,
    Mixer,
    OrderedMixer,
    SetMixer,
    build,
    classes,
    exists,
    names,
    register,
    table,
)
from linocut.mixers.bigbird import BigBird
from linocut.mixers.efficient_attention import EfficientAttention
from linocut.mixers.flash import FLASH, CausalFLASH
from linocut.mixers.gated_deltanet import DeltaNet, GatedDeltaNet
from linocut.mixers.gau import GAU, CausalGAU
from linocut.mixers.gla import GatedLinearAttention
from linocut.mixers.griffin import Griffin
from linocut.mixers.hugging_face import accelerate
from linocut.mixers.images import Bidirectional, ImageMixer, Scan2d
from linocut.mixers.linear_attention import CausalLinearAttention, LinearAttention
from linocut.mixers.linformer import Linformer
from linocut.mixers.local_attention import CausalLocalAttention, LocalAttention
from linocut.mixers.longformer import CausalLongformer, Longformer
from linocut.mixers.lru import LRU
from linocut.mixers.mamba import Mamba, MambaState
from linocut.mixers.mamba2 import Mamba2
from linocut.mixers.nystromformer import Nystromformer
from linocut.mixers.performer import CausalPerformer, Performer
from linocut.mixers.retnet import RetNet
from linocut.mixers.rwkv4 import RWKV4
from linocut.mixers.rwkv6 import RWKV6
from linocut.mixers.rwkv7 import RWKV7
from linocut.mixers.s4 import S4
from linocut.mixers.s4d import S4D
from linocut.mixers.softmax_attention import CausalSoftmaxAttention, SoftmaxAttention
from linocut.mixers.sparse_transformer import SparseTransformer
from linocut.mixers.strided_attention import CausalStridedAttention, StridedAttention
from linocut.mixers.transnormer import (
    CausalDiagAttention,
    CausalNormAttention,
    DiagAttention,
    NormAttention,
    transnormer_layers,
)

__all__ = [
    "FLASH",
    "GAU",
    "LRU",
    "RWKV4",
    "RWKV6",
    "RWKV7",
    "S4",
    "S4D",
    "Bidirectional",
    "BigBird",
    "CausalDiagAttention",
    "CausalFLASH",
    "CausalGAU",
    "CausalLinearAttention",
    "CausalLocalAttention",
    "CausalLongformer",
    "CausalNormAttention",
    "CausalPerformer",
    "CausalSoftmaxAttention",
    "CausalStridedAttention",
    "DeltaNet",
    "DiagAttention",
    "EfficientAttention",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "Griffin",
    "ImageMixer",
    "Info",
    "LinearAttention",
    "Linformer",
    "LocalAttention",
    "LocalMixer",
    "Longformer",
    "Mamba",
    "Mamba2",
    "MambaState",
    "Mixer",
    "NormAttention",
    "Nystromformer",
    "OrderedMixer",
    "Performer",
    "RetNet",
    "Scan2d",
    "SetMixer",
    "SoftmaxAttention",
    "SparseTransformer",
    "StridedAttention",
    "accelerate",
    "build",
    "classes",
    "exists",
    "names",
    "register",
    "table",
    "transnormer_layers",
]
