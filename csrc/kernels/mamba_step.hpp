// One token through a whole Mamba layer, projections included: in a decoder the calls between the parts cost more than
// the parts.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// All float, rows contiguous. Names and shapes are those of the layer's parameters; a bias may be null.
struct MambaStep {
  std::ptrdiff_t batch, d_model, d_inner, d_state, d_conv, dt_rank;
  const float *in_proj, *in_bias;    // (2 d_inner, d_model): x, then z
  const float *conv1d, *conv_bias;   // (d_inner, d_conv)
  const float* x_proj;               // (dt_rank + 2 d_state, d_inner): dt, then B, then C
  const float *dt_proj, *dt_bias;    // (d_inner, dt_rank)
  const float *A_log, *D;            // (d_inner, d_state), (d_inner)
  const float *out_proj, *out_bias;  // (d_model, d_inner)
  const float *x, *tail, *h;         // (batch, d_model), (batch, d_conv - 1, d_inner), (batch, d_inner, d_state)
  float *y, *next_tail, *next_h;     // likewise
  int threads;
};

LINOCUT_EACH_ISA(void mamba_step(const MambaStep& job);)

}  // namespace linocut
