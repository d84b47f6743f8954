// What the binding files share. A tensor comes as the number that tensor.data_ptr() gives, 0 for one that is absent:
// handing over arrays would cost microseconds each, which a step of a decoder does not have. The callers in
// src/linocut/ops have checked shapes, dtypes and contiguity. Every kernel runs without the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

namespace linocut {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// One function a binding file.
void bind_channel_decay(nanobind::module_& m);
void bind_depthwise_conv(nanobind::module_& m);
void bind_diagonal_recurrence(nanobind::module_& m);
void bind_gated_delta_rule(nanobind::module_& m);
void bind_gated_linear_attention(nanobind::module_& m);
void bind_linear_recurrence(nanobind::module_& m);
void bind_local_attention(nanobind::module_& m);
void bind_mamba_step(nanobind::module_& m);
void bind_selective_scan(nanobind::module_& m);
void bind_short_convolution(nanobind::module_& m);
void bind_wkv(nanobind::module_& m);
void bind_set_attention(nanobind::module_& m);

}  // namespace linocut
