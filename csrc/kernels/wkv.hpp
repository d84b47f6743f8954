// RWKV-4's average of values with weights that fade with distance, channel by channel:
//   y_t = (A_{t-1} + e^{u + k_t} v_t) / (B_{t-1} + e^{u + k_t}),  A_t = e^{-w} A_{t-1} + e^{k_t} v_t,  B_t without v.
// A = num e^top and B = den e^top, where top is the largest exponent so far: nothing overflows.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// Tokens between two states that the forward pass keeps for the backward pass.
constexpr std::ptrdiff_t kWkvChunk = 64;

// k, v, y (batch, length, channels), rows contiguous, float or bf16; w, u (channels) float; states (batch, channels)
// float; chunks (batch, (length - 1) / kWkvChunk, 3, channels): num, den and top before every chunk but the first.
struct Wkv {
  std::ptrdiff_t batch, length, channels;
  bool half;
  const void *k, *v;
  const float *w, *u, *num, *den, *top;
  void* y;
  float *last_num, *last_den, *last_top, *chunks;
  int threads;
};

// grad_w and grad_u are (batch, channels), to be summed. The forward's y is not read; last_num and last_den are.
struct WkvGrad {
  Wkv forward;
  const void* grad_y;
  const float *grad_last_num, *grad_last_den, *grad_last_top;
  void *grad_k, *grad_v;
  float *grad_w, *grad_u, *grad_num, *grad_den, *grad_top;
};

LINOCUT_EACH_ISA(void wkv(const Wkv& job); void wkv_grad(const WkvGrad& job);)

}  // namespace linocut
