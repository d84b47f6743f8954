"""Faster CPU paths for models of Hugging Face Transformers, swapped in place.

Without an NVIDIA GPU, Transformers runs its recurrent models through reference code in PyTorch: a Python loop over
tokens for Mamba's selective scan and for RG-LRU, tensors of chunk² entries for Mamba-2 and the gated delta rule. The
functions here take the same arguments and give the same results up to rounding, through :mod:`linocut.ops`. They are
swapped by name, in the layers of one model only: other models of the process keep what they had.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from linocut.ops.gated_delta_rule import gated_delta_rule
from linocut.ops.linear_recurrence import linear_recurrence
from linocut.ops.selective_scan import selective_scan
from linocut.ops.short_convolution import short_convolution
from linocut.ops.ssd import ssd

_SILU = ("silu", "swish")
_L2_EPSILON = 1e-6


def accelerate(model: nn.Module) -> list[str]:
    """Swap the slow CPU paths of a Transformers model for Linocut's kernels, in place.

    Covers the layers of Mamba, FalconMamba, Mamba-2, RecurrentGemma (RG-LRU) and Qwen3-Next (gated delta rule), and of
    other models of Transformers that are built from the same functions. Prefill, decoding with a cache and training
    all go through the kernels; on another device than the CPU, and in float16 or float64, the same functions run in
    PyTorch. What is swapped is not saved with a model: call this again after loading.

    Args:
        model: a model whose recurrent layers come from ``transformers`` 5; its parameters are not touched.

    Returns:
        The names of the layers that were changed, in the order of ``model.named_modules()``.

    Raises:
        ValueError: if no layer of the model has a path to swap. A changed layer raises it for sequences packed into
            one (``seq_idx``, ``cu_seqlens``), as it does without the packages that Transformers names.
    """
    changed = []
    for name, module in model.named_modules():
        scan = getattr(type(module), "_rnn_scan", None)
        if scan is not None and type(module).__module__.startswith("transformers."):
            object.__setattr__(module, "_rnn_scan", MethodType(_rnn_scan, module))
            changed.append(name)
            continue
        forward = _with_kernels(type(module))
        if forward is not None:
            object.__setattr__(module, "forward", MethodType(forward, module))
            changed.append(name)
    if not changed:
        raise ValueError(
            f"accelerate: {type(model).__name__} has no layer to speed up; it takes models of transformers >= 5 with "
            "layers of Mamba, FalconMamba, Mamba-2, RecurrentGemma, Qwen3-Next or built from the same functions"
        )
    return changed


def _with_kernels(cls: type[nn.Module]) -> Callable[..., Any] | None:
    """The class's forward with the slow functions that it names replaced; None if it names none."""
    if not cls.__module__.startswith("transformers."):
        return None
    # decorators of Transformers move weights that were put on another device; on a CPU there is nothing to move
    forward = cls.forward
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    if not isinstance(forward, FunctionType) or not _SCANS.keys() & set(forward.__code__.co_names):
        return None
    named = {name: swap for name, swap in _SWAPS.items() if name in forward.__code__.co_names}
    fast = FunctionType(
        forward.__code__, {**forward.__globals__, **named}, forward.__name__, forward.__defaults__, forward.__closure__
    )
    fast.__kwdefaults__ = forward.__kwdefaults__
    return fast


def _mamba_selective_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **kwargs: Any,
) -> Any:
    """S6 over (batch, channels, length)."""
    _refuse_packed(kwargs)
    x, delta, b, c, gate = (None if each is None else each.transpose(1, 2) for each in (hidden_states, dt, B, C, z))
    y, state = _same_dtype_scan(x, delta, A, b, c, D, gate, delta_bias, delta_softplus, None)
    y = y.transpose(1, 2)
    return (y, state) if return_last_state else y


def _mamba_selective_state_update(
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    z: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """One token of S6; the cache's state is changed in place, as the caller expects."""
    x, delta, b, c, gate = (None if each is None else each[:, None] for each in (hidden_states, dt, B, C, z))
    y, after = _same_dtype_scan(x, delta, A, b, c, D, gate, dt_bias, dt_softplus, state)
    state.copy_(after)
    return y[:, 0]


def _same_dtype_scan(
    x: Any,
    delta: Any,
    A: Tensor,
    B: Any,
    C: Any,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
    softplus: bool,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The scan as the kernel takes it: sequences in the dtype of x, parameters and state in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    delta, B, C = (each.to(x.dtype) for each in (delta, B, C))
    D, bias, state = (None if each is None else each.to(wide) for each in (D, bias, state))
    return selective_scan(x, delta, A.to(wide), B, C, D=D, z=z, delta_bias=bias, delta_softplus=softplus, state=state)


def _mamba2_chunk_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **kwargs: Any,
) -> Any:
    """SSD; the chunk size is the kernel's own, which changes rounding alone."""
    _refuse_packed(kwargs)
    dt = dt if dt_bias is None else dt + dt_bias.to(dt.dtype)
    dt = (functional.softplus(dt) if dt_softplus else dt).clamp(*dt_limit)
    wide = torch.promote_types(hidden_states.dtype, torch.float32)
    # Transformers keeps the state as (batch, heads, channels, state); the op has it transposed
    state = None if initial_states is None else initial_states.to(wide).transpose(2, 3)
    y, state = ssd(
        hidden_states.to(wide),
        dt.to(wide),
        A.to(wide),
        B.to(wide),
        C.to(wide),
        D=None if D is None else D.to(wide),
        state=state,
    )
    return (y, state.transpose(2, 3)) if return_final_states else y


def _mamba2_selective_state_update(
    state: Tensor,
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    z: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """One token of SSD; dt, A, D and dt_bias come expanded over the channels of a head, and the state is changed."""
    dt, A = dt[:, None, :, 0], A[:, 0, 0]
    D, dt_bias = (None if each is None else each[:, 0] for each in (D, dt_bias))
    y, after = _mamba2_chunk_scan(
        *(hidden_states[:, None], dt, A, B[:, None], C[:, None]),
        chunk_size=1,
        D=D,
        dt_bias=dt_bias,
        initial_states=state,
        dt_softplus=dt_softplus,
        return_final_states=True,
    )
    state.copy_(after)
    y = y[:, 0] if z is None else y[:, 0] * functional.silu(z)
    token: Tensor = y.to(hidden_states.dtype)
    return token


def _torch_gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The gated delta rule, over a sequence or one token."""
    _refuse_packed(kwargs)
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v, log_decay, beta = (each.to(wide) for each in (query, key, value, g, beta))
    if use_qk_l2norm_in_kernel:
        q, k = (each * torch.rsqrt(each.square().sum(-1, keepdim=True) + _L2_EPSILON) for each in (q, k))
    q = q * query.shape[-1] ** -0.5
    state = None if initial_state is None else initial_state.to(wide)
    y, state = gated_delta_rule(q, k, v, log_decay, beta, state=state)
    return y.to(query.dtype), state if output_final_state else None


def _causal_conv1d_fn(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **kwargs: Any
) -> Tensor:
    """A short depthwise convolution over (batch, channels, length) and its activation."""
    _refuse_packed(kwargs)
    return _convolve(hidden_states, weight, bias, activation, None).to(hidden_states.dtype)


def _causal_conv1d_update(
    hidden_states: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """The same for the next token; the cache's last inputs, (batch, channels, any), are changed in place."""
    before = conv_state[:, :, conv_state.shape[2] + 1 - weight.shape[1] :].transpose(1, 2)
    y = _convolve(hidden_states, weight, bias, activation, before)
    conv_state.copy_(torch.cat([conv_state, hidden_states], dim=2)[:, :, -conv_state.shape[2] :])
    return y.to(hidden_states.dtype)


def _convolve(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, before: Tensor | None
) -> Tensor:
    x = hidden_states.to(weight.dtype).transpose(1, 2)
    wide = torch.promote_types(x.dtype, torch.float32)
    before = None if before is None else before.to(wide)
    y, _ = short_convolution(x, weight, bias=bias, state=before, activation="silu" if activation in _SILU else None)
    y = y.transpose(1, 2)
    if activation is not None and activation not in _SILU:
        y = getattr(functional, activation)(y)
    return y


def _unfused(*args: Any, **kwargs: Any) -> None:
    """No kernel for a whole layer: the layer goes on with its parts, which are Linocut's."""
    _refuse_packed(kwargs)


def _refuse_packed(options: dict[str, Any]) -> None:
    """Sequences packed into one would run into each other; Transformers' own forms refuse them too."""
    for name in ("seq_idx", "cu_seqlens"):
        if options.get(name) is not None:
            raise ValueError(f"accelerate: packed sequences cannot be kept apart, got {name}; give them as a batch")


def _rnn_scan(
    module: nn.Module,
    hidden_states: Tensor,
    recurrent_gate: Tensor,
    reset: Tensor,
    recurrent_states: Tensor | None,
    acc_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """RG-LRU's recurrence, with the gate closed where a document starts."""
    gate = recurrent_gate * ~reset
    h, last = linear_recurrence(
        gate.to(hidden_states.dtype),
        hidden_states,
        state=None if recurrent_states is None else recurrent_states.to(acc_dtype),
    )
    return h, last


# What makes a layer worth changing, and what is changed along with it.
_SCANS: dict[str, Callable[..., Any]] = {
    "mamba_selective_scan": _mamba_selective_scan,
    "mamba_selective_state_update": _mamba_selective_state_update,
    "mamba2_chunk_scan": _mamba2_chunk_scan,
    "mamba2_selective_state_update": _mamba2_selective_state_update,
    "torch_chunk_gated_delta_rule": _torch_gated_delta_rule,
    "torch_recurrent_gated_delta_rule": _torch_gated_delta_rule,
}
_SWAPS: dict[str, Callable[..., Any]] = {
    **_SCANS,
    "causal_conv1d_fn": _causal_conv1d_fn,
    "causal_conv1d_update": _causal_conv1d_update,
    "mamba_inner_fn": _unfused,
    "mamba2_split_conv1d_scan_combined": _unfused,
}
