"""The native kernels of attention over a set: φ(k) fused with its sum against v, φ(q) fused with the reading.

No recurrence of its own: `linear_attention`, `efficient_attention` and `favor` say what is computed, in PyTorch, and
call these where :func:`linocut.ops.kernel.usable` says so. The features of a block of tokens never leave the cache, so
memory is that of the inputs and of the summary; the backward pass works them out again.

With bfloat16 inputs and a processor that multiplies bfloat16 (AVX-512 BF16) features, values and the summary as it is
read are rounded to bfloat16 for their products; sums, exponents and the projection into them stay float32. Outputs,
sums and gradients are then no further from the exact ones than three times what rounding the inputs and outputs to
bfloat16 makes; ``tests/ops/test_bfloat16.py`` measures it.

========== ============================================ ==================================
symbol     meaning                                      shape
========== ============================================ ==================================
``k, q``   keys and queries before φ, any strides       (batch, length, heads, dim)
``v, y``   values and outputs                           (batch, length, heads, value)
``kv``     Σ φ(k) vᵀ, float32                           (batch, heads, features, value)
``z``      Σ φ(k), float32                              (batch, heads, features)
``m``      running maximum of the exponents, float32    (batch, heads, features)
========== ============================================ ==================================
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import kernel

# The numbers of FeatureMap in csrc/kernels/set_attention.hpp
MAPS = {"identity": 0, "elu": 1, "relu": 2, "exp": 3, "stable_exp": 4, "random": 5}
_STABLE = (4, 5)


def _view(x: Tensor) -> tuple[int, ...]:
    return (x.data_ptr(), *x.stride()[:3])


def _rows(x: Tensor) -> Tensor:
    """The tensor itself if its last axis is dense, else a copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _features(x: Tensor, projection: Tensor | None) -> Any:
    """How many; a symbol where shapes are traced."""
    return x.shape[-1] if projection is None else projection.shape[0]


def _head(x: Tensor, value: int, feature_map: int, projection: Tensor | None, norm: float) -> tuple[Any, ...]:
    """The arguments that every kernel starts with."""
    half = int(x.dtype == torch.bfloat16)
    sizes = (*x.shape, _features(x, projection), value, half, feature_map, kernel.threads())
    return sizes, kernel.address(projection), norm


def _float_like(x: Tensor, *shape: Any) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=x.device)


def _summary_like(k: Tensor, v: Tensor, feature_map: int, projection: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    shape = (k.shape[0], k.shape[2], _features(k, projection))
    kv, z = _float_like(k, *shape, v.shape[-1]), _float_like(k, *shape)
    return kv, z, _float_like(k, *(shape if feature_map in _STABLE else (0, 0, 0)))


@torch.library.custom_op(
    "linocut::set_summarize",
    mutates_args=(),
    schema="(Tensor k, Tensor v, int map, Tensor? projection, float norm) -> (Tensor, Tensor, Tensor)",
)
def summarize(k: Tensor, v: Tensor, map: int, projection: Tensor | None, norm: float) -> tuple[Tensor, Tensor, Tensor]:  # noqa: A002 - the schema's name
    """Σ φ(k) vᵀ, Σ φ(k) and the maximum of the exponents; the last is empty for maps that need none."""
    k, v = _rows(k), _rows(v)
    kv, z, m = _summary_like(k, v, map, projection)
    kernel.kernels().set_summarize(
        *_head(k, v.shape[-1], map, projection, norm), _view(k), _view(v), *(x.data_ptr() for x in (kv, z, m))
    )
    return kv, z, m


@summarize.register_fake
def _(k: Tensor, v: Tensor, map: int, projection: Tensor | None, norm: float) -> tuple[Tensor, Tensor, Tensor]:  # noqa: A002
    return _summary_like(k, v, map, projection)


@torch.library.custom_op(
    "linocut::set_summarize_grad",
    mutates_args=(),
    schema="(Tensor k, Tensor v, int map, Tensor? projection, float norm, Tensor m, Tensor grad_kv, Tensor grad_z)"
    " -> (Tensor, Tensor)",
)
def _summarize_grad(
    k: Tensor,
    v: Tensor,
    map: int,  # noqa: A002
    projection: Tensor | None,
    norm: float,
    m: Tensor,
    grad_kv: Tensor,
    grad_z: Tensor,
) -> tuple[Tensor, Tensor]:
    k, v, m, grad_kv, grad_z = _rows(k), _rows(v), m.contiguous(), grad_kv.contiguous(), grad_z.contiguous()
    grads = torch.empty(k.shape, dtype=k.dtype), torch.empty(v.shape, dtype=v.dtype)
    kernel.kernels().set_summarize_grad(
        *_head(k, v.shape[-1], map, projection, norm),
        *(_view(k), _view(v)),
        *(x.data_ptr() for x in (m, grad_kv, grad_z, *grads)),
    )
    return grads


@_summarize_grad.register_fake
def _(
    k: Tensor,
    v: Tensor,
    map: int,  # noqa: A002
    projection: Tensor | None,
    norm: float,
    m: Tensor,
    grad_kv: Tensor,
    grad_z: Tensor,
) -> tuple[Tensor, Tensor]:
    return k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_summarize(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    k, v, ctx.map, projection, ctx.norm = inputs
    ctx.save_for_backward(k, v, projection, output[2])


def _backward_summarize(ctx: Any, grad_kv: Tensor, grad_z: Tensor, grad_m: Tensor) -> tuple[Any, ...]:
    k, v, projection, m = ctx.saved_tensors
    return (*_summarize_grad(k, v, ctx.map, projection, ctx.norm, m, grad_kv, grad_z), None, None, None)


summarize.register_autograd(_backward_summarize, setup_context=_setup_summarize)


@torch.library.custom_op(
    "linocut::set_read",
    mutates_args=(),
    schema="(Tensor q, Tensor kv, Tensor? z, Tensor? m, int map, Tensor? projection, float norm) -> Tensor",
)
def read(
    q: Tensor,
    kv: Tensor,
    z: Tensor | None,
    m: Tensor | None,
    map: int,  # noqa: A002
    projection: Tensor | None,
    norm: float,
) -> Tensor:
    """φ(q) kv, divided by φ(q) z if z is given, in the dtype of ``q``."""
    q, kv = _rows(q), kv.contiguous()
    z, m = (None if x is None else x.contiguous() for x in (z, m))
    y = torch.empty(*q.shape[:-1], kv.shape[-1], dtype=q.dtype)
    kernel.kernels().set_read(
        *_head(q, kv.shape[-1], map, projection, norm), _view(q), *(kernel.address(x) for x in (kv, z, m, y))
    )
    return y


@read.register_fake
def _(
    q: Tensor,
    kv: Tensor,
    z: Tensor | None,
    m: Tensor | None,
    map: int,  # noqa: A002
    projection: Tensor | None,
    norm: float,
) -> Tensor:
    return q.new_empty((*q.shape[:-1], kv.shape[-1]))


@torch.library.custom_op(
    "linocut::set_read_grad",
    mutates_args=(),
    schema="(Tensor q, Tensor kv, Tensor? z, Tensor? m, int map, Tensor? projection, float norm, Tensor y,"
    " Tensor grad_y) -> (Tensor, Tensor, Tensor)",
)
def _read_grad(
    q: Tensor,
    kv: Tensor,
    z: Tensor | None,
    m: Tensor | None,
    map: int,  # noqa: A002
    projection: Tensor | None,
    norm: float,
    y: Tensor,
    grad_y: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    q, kv, grad_y = _rows(q), kv.contiguous(), grad_y.contiguous()
    z, m = (None if x is None else x.contiguous() for x in (z, m))
    grad_q = torch.empty(q.shape, dtype=q.dtype)
    grad_kv, grad_z = torch.empty_like(kv), torch.empty(kv.shape[:-1] if z is not None else (0, 0, 0))
    kernel.kernels().set_read_grad(
        *_head(q, kv.shape[-1], map, projection, norm),
        _view(q),
        *(kernel.address(x) for x in (kv, z, m, y, grad_y, grad_q, grad_kv)),
        kernel.address(None if z is None else grad_z),
    )
    return grad_q, grad_kv, grad_z


@_read_grad.register_fake
def _(
    q: Tensor,
    kv: Tensor,
    z: Tensor | None,
    m: Tensor | None,
    map: int,  # noqa: A002
    projection: Tensor | None,
    norm: float,
    y: Tensor,
    grad_y: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), kv.new_empty(kv.shape), kv.new_empty(kv.shape[:-1] if z is not None else (0, 0, 0))


def _setup_read(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, kv, z, m, ctx.map, projection, ctx.norm = inputs
    ctx.save_for_backward(q, kv, z, m, projection, output)


def _backward_read(ctx: Any, grad_y: Tensor) -> tuple[Any, ...]:
    q, kv, z, m, projection, y = ctx.saved_tensors
    grad_q, grad_kv, grad_z = _read_grad(q, kv, z, m, ctx.map, projection, ctx.norm, y, grad_y)
    return grad_q, grad_kv, None if z is None else grad_z, None, None, None, None


read.register_autograd(_backward_read, setup_context=_setup_read)


@torch.library.custom_op(
    "linocut::random_features",
    mutates_args=(),
    schema="(Tensor x, Tensor projection, float norm) -> (Tensor, Tensor)",
)
def random_features(x: Tensor, projection: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """exp(u - max u) with u = P x - norm |x|² for every token, and max u, which has no gradient."""
    x = _rows(x)
    f = torch.empty(*x.shape[:-1], projection.shape[0], dtype=x.dtype)
    top = _float_like(x, *x.shape[:-1])
    kernel.kernels().random_features(
        *_head(x, 1, MAPS["random"], projection, norm), _view(x), f.data_ptr(), top.data_ptr()
    )
    return f, top


@random_features.register_fake
def _(x: Tensor, projection: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    return x.new_empty((*x.shape[:-1], projection.shape[0])), _float_like(x, *x.shape[:-1])


@torch.library.custom_op(
    "linocut::random_features_grad",
    mutates_args=(),
    schema="(Tensor x, Tensor projection, float norm, Tensor f, Tensor grad_f) -> Tensor",
)
def _random_features_grad(x: Tensor, projection: Tensor, norm: float, f: Tensor, grad_f: Tensor) -> Tensor:
    x, grad_f = _rows(x), grad_f.contiguous()
    grad_x = torch.empty(x.shape, dtype=x.dtype)
    kernel.kernels().random_features_grad(
        *_head(x, 1, MAPS["random"], projection, norm), _view(x), f.data_ptr(), grad_f.data_ptr(), grad_x.data_ptr()
    )
    return grad_x


@_random_features_grad.register_fake
def _(x: Tensor, projection: Tensor, norm: float, f: Tensor, grad_f: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _setup_features(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, projection, ctx.norm = inputs
    ctx.save_for_backward(x, projection, output[0])


def _backward_features(ctx: Any, grad_f: Tensor, grad_top: Tensor) -> tuple[Any, ...]:
    x, projection, f = ctx.saved_tensors
    return _random_features_grad(x, projection, ctx.norm, f, grad_f), None, None


random_features.register_autograd(_backward_features, setup_context=_setup_features)


class StableSummary(NamedTuple):
    """Sums of exponentials, e^(u - m) in place of e^u; float32 or wider. No gradient goes through m: it cancels."""

    kv: Float[Tensor, "batch heads features value"]
    z: Float[Tensor, "batch heads features"]
    m: Float[Tensor, "batch heads maxima"]


def merge(a: StableSummary, b: StableSummary) -> StableSummary:
    """The summary of two pieces together, brought to the larger maximum; associative and commutative."""
    m = torch.maximum(a.m, b.m)
    # the maximum over no tokens is -inf, whose difference from itself would be NaN
    base = m.clamp_min(torch.finfo(m.dtype).min)
    scale_a, scale_b = (a.m - base).exp(), (b.m - base).exp()
    return StableSummary(scale_a[..., None] * a.kv + scale_b[..., None] * b.kv, scale_a * a.z + scale_b * b.z, m)


def maximum(u: Float[Tensor, "batch length heads maxima"]) -> Float[Tensor, "batch heads maxima"]:
    """The largest exponent of all tokens, -inf without any; no gradient."""
    return u.new_full((u.shape[0], *u.shape[2:]), -torch.inf) if u.shape[1] == 0 else u.detach().amax(dim=1)


def stable_sums(
    u: Float[Tensor, "batch length heads features"], v: Float[Tensor, "batch length heads value"]
) -> StableSummary:
    """The summary of exponents ``u`` and values in PyTorch."""
    m = maximum(u)
    f = (u - m[:, None]).exp()
    return StableSummary(torch.einsum("bnhf,bnhe->bhfe", f, v), f.sum(dim=1), m)


def check_tokens(name: str, k: Tensor, v: Tensor) -> None:
    """Refuse keys and values that do not describe the same tokens.

    Raises:
        ValueError: if they do not.
    """
    if k.dim() != 4 or v.dim() != 4 or k.shape[:-1] != v.shape[:-1]:
        shapes = f"{tuple(k.shape)} and {tuple(v.shape)}"
        raise ValueError(f"{name}: k and v must share (batch, length, heads), got {shapes}")


def check_reading(name: str, q: Tensor, features: int, kv: Tensor, **sums: Tensor) -> None:
    """Refuse queries that do not fit a summary, and a summary whose parts, z and m by name, do not fit each other.

    Raises:
        ValueError: if they do not.
    """
    if q.dim() != 4 or kv.dim() != 4 or kv.shape[:3] != (q.shape[0], q.shape[2], features):
        raise ValueError(
            f"{name}: q (batch, length, heads, dim) with {features} features needs a summary "
            f"(batch, heads, {features}, value), got {tuple(q.shape)} and {tuple(kv.shape)}"
        )
    for part, x in sums.items():
        if x.shape != kv.shape[:3]:
            expected = tuple(kv.shape[:3])
            raise ValueError(f"{name}: {part} of the summary must be {expected}, got {tuple(x.shape)}")


def readable(q: Tensor, *summary: Tensor) -> bool:
    """Whether the kernel reads such a summary: it takes all of it as float32, whatever the queries are."""
    return kernel.usable(q, *summary) and all(x.dtype == torch.float32 for x in summary)
