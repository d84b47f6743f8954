// Linear attention whose state fades by a factor for every key channel and token:
//   S_t = diag(e^{g_t}) S_{t-1} + k_t v_tᵀ,  y_t = S_tᵀ q_t,  with a bonus u: y_t = (S_{t-1} + diag(u) k_t v_tᵀ)ᵀ q_t.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// Tokens that are walked over together.
constexpr std::ptrdiff_t kChannelDecayChunk = 64;

// q, k (batch, length, heads, dim), v, y (…, value), contiguous, float or bf16; log_decay (batch, length, heads, dim),
// bonus (heads, dim) or absent, states (batch, heads, dim, value), all float.
struct ChannelDecay {
  std::ptrdiff_t batch, length, heads, dim, value;
  bool half;
  const void *q, *k, *v;
  const float *log_decay, *bonus, *state;
  void* y;
  float* last;
  int threads;
};

// grad_bonus is (batch, heads, dim), to be summed, or absent; chunks is room for the states at the ends of all chunks
// but the last, (batch, heads, (length - 1) / kChannelDecayChunk, value, dim).
struct ChannelDecayGrad {
  ChannelDecay forward;
  const void* grad_y;
  const float* grad_last;
  void *grad_q, *grad_k, *grad_v;
  float *grad_log_decay, *grad_bonus, *grad_state, *chunks;
};

LINOCUT_EACH_ISA(void channel_decay(const ChannelDecay& job); void channel_decay_grad(const ChannelDecayGrad& job);)

}  // namespace linocut
