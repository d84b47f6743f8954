"""Which rule goes with which operation of PyTorch's core set.

A rule is called after the operation ran, so it reads the size of the result off the result.
"""

from __future__ import annotations

from linocut.vision.fields import shapes, windows
from linocut.vision.fields.calls import Rule
from linocut.vision.fields.lanes import clamp, drop, reflect, wrap

# Operators of linocut.ops in which a token may depend on any other of its sequence.
_SEQUENCES = (
    "channel_decay",
    "chunked_attention",
    "complex_recurrence",
    "diagonal_ssm",
    "gated_delta_rule",
    "linear_recurrence",
    "local_attention",
    "selective_scan",
    "set_read",
    "set_summarize",
    "short_convolution",
    "wkv",
)


def _rules() -> dict[str, Rule]:
    found: dict[str, Rule] = {
        "convolution": windows.convolution,
        "_convolution": windows.convolution,
        "depthwise_conv": windows.depthwise_conv,
        **dict.fromkeys(_SEQUENCES, windows.sequence),
        "linear": shapes.linear,
    }
    for count, end in enumerate(("1d", "2d", "3d"), 1):
        found |= dict.fromkeys((f"max_pool{end}_with_indices", f"max_pool{end}", f"avg_pool{end}"), windows.pool(count))
        names = (f"_adaptive_avg_pool{end}", f"adaptive_avg_pool{end}", f"adaptive_max_pool{end}")
        found |= dict.fromkeys(names, windows.adaptive_pool(count))
        found[f"upsample_nearest{end}"] = windows.interpolate("nearest", count)
        found[f"_upsample_nearest_exact{end}"] = windows.interpolate("nearest-exact", count)
        found[f"upsample_{('linear', 'bilinear', 'trilinear')[count - 1]}{end}"] = windows.interpolate("linear", count)
        found[f"reflection_pad{end}"], found[f"replication_pad{end}"] = windows.pad(reflect), windows.pad(clamp)
    found["upsample_bicubic2d"] = windows.interpolate("cubic", 2)
    found |= {"constant_pad_nd": windows.pad(drop), "_pad_circular": windows.pad(wrap)}
    found |= {
        "pixel_shuffle": windows.pixel_shuffle,
        "pixel_unshuffle": windows.pixel_unshuffle,
        "permute": shapes.permute,
    }
    found |= dict.fromkeys(("transpose", "t"), shapes.transpose)
    found |= {
        "squeeze": shapes.squeeze,
        "unsqueeze": shapes.unsqueeze,
        "expand": shapes.expand,
        "slice": shapes.sliced,
        "select": shapes.select,
        "unbind": shapes.unbind,
    }
    found |= dict.fromkeys(("view", "_unsafe_view", "_reshape_alias"), shapes.view)
    found |= dict.fromkeys(("split", "split_with_sizes"), shapes.split)
    found |= {
        "cat": shapes.cat,
        "stack": shapes.stack,
        "repeat": shapes.repeat,
        "copy_": shapes.copied,
        "copy": shapes.copied,
    }
    found |= dict.fromkeys(("flip", "roll"), shapes.flip)
    sums = "sum mean amax amin var std prod any all logsumexp linalg_vector_norm norm argmax argmin count_nonzero"
    found |= dict.fromkeys(sums.split(), shapes.reduce)
    found |= dict.fromkeys(("max", "min", "var_mean", "std_mean", "median", "mode"), shapes.reduce_both)
    found |= dict.fromkeys(("_softmax", "_log_softmax", "cumsum", "cumprod", "glu", "logcumsumexp"), shapes.along)
    found |= dict.fromkeys(("sort", "topk", "cummax", "cummin", "kthvalue"), shapes.along_both)
    found |= dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "rms_norm"), windows.layer_norm)
    norms = "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm"
    found |= dict.fromkeys(norms.split(), windows.batch_norm)
    found |= {"_batch_norm_with_update": windows.train_batch_norm, "native_group_norm": windows.group_norm}
    found |= dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), shapes.matmul)
    attentions = "flash_attention_for_cpu flash_attention efficient_attention cudnn_attention"
    found |= dict.fromkeys((f"_scaled_dot_product_{name}" for name in attentions.split()), shapes.attention)
    found |= dict.fromkeys(("native_channel_shuffle", "channel_shuffle"), shapes.channels_only)
    same = "alias detach lift_fresh lift contiguous _to_copy clone native_dropout"
    found |= dict.fromkeys(same.split(), shapes.pointwise)
    untagged = "_prelu_kernel hardswish hardswish_ log_sigmoid_forward rrelu_with_noise rrelu_with_noise_"
    return found | dict.fromkeys(untagged.split(), shapes.pointwise)


RULES = _rules()
"""By the name of the operation, without namespace and overload."""
