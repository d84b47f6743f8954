// The Python face of the kernels of the mixers, linocut._kernels; the data's kernels are in linocut._native, which
// needs neither torch nor OpenMP.

#include <nanobind/nanobind.h>

#include "bind.hpp"
#include "bind_isa.hpp"

namespace nb = nanobind;

namespace {

// Raised by one whenever a function's arguments or meaning change; src/linocut/native.py holds the same number.
constexpr int kInterface = 3;

}  // namespace

NB_MODULE(_kernels, m) {
  m.doc() = "Kernels of linocut.ops, whose functions check what they are given.";
  m.attr("interface") = kInterface;
  linocut::bind_isa(m);
  linocut::bind_channel_decay(m);
  linocut::bind_depthwise_conv(m);
  linocut::bind_diagonal_recurrence(m);
  linocut::bind_gated_delta_rule(m);
  linocut::bind_gated_linear_attention(m);
  linocut::bind_linear_recurrence(m);
  linocut::bind_local_attention(m);
  linocut::bind_mamba_step(m);
  linocut::bind_selective_scan(m);
  linocut::bind_short_convolution(m);
  linocut::bind_wkv(m);
  linocut::bind_set_attention(m);
}
