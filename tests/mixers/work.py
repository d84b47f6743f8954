"""Counting work instead of seconds: elements that operators write, and multiplications of matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class _Elements(TorchDispatchMode):
    """Adds up the elements of what every operator returns, unless it is a view of what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.count += sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """What torch's counter does not know: its attention on a CPU. It is given shapes."""
    batch, heads, rows, dim = query
    return 2 * batch * heads * rows * key[2] * (dim + value[3])


_MAPPING = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def count_work(run: Callable[[], object]) -> int:
    """Elements written plus floating-point operations of matrix products, convolutions and attention."""
    elements, flops = _Elements(), FlopCounterMode(display=False, custom_mapping=_MAPPING)
    with torch.no_grad(), flops, elements:
        run()
    return elements.count + int(flops.get_total_flops())
