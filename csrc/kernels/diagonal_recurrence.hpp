// The recurrences of diagonal state spaces: h_t = lam h_{t-1} + input, with complex gates that do not depend on the token.
//
//   diagonal_ssm         S4D: N states a channel share the channel's real input, and are read at once:
//                        y_t = 2 Re sum_N c h_t + skip u_t
//   complex_recurrence   LRU: one state a channel, complex inputs, and all states are the output
//
// Complex numbers are interleaved, as in torch: re, im, re, im.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// Tokens between two states that the forward pass keeps for the backward pass.
constexpr int kDiagonalChunk = 128;

struct DiagonalSsm {
  std::ptrdiff_t batch, length, channels, states;
  bool half;              // u and y and their gradients are bf16
  const void* u;          // (batch, length, channels)
  const float *lam, *c;   // (channels, states) complex
  const float* skip;      // (channels), or null for none
  const float* state;     // (batch, channels, states) complex
  void* y;                // as u
  float* last;            // as state
  float* kept;            // (batch, chunks, 2 states, channels): all re, all im before each chunk; null to keep none
  int threads;
};

// Gradients are those of torch: d/d re + i d/d im. Those of parameters come for each member of the batch.
struct DiagonalSsmGrad {
  DiagonalSsm forward;  // with kept; y, state and last are not read
  const void* grad_y;
  const float* grad_last;
  void* grad_u;
  float *grad_lam, *grad_c;  // (batch, channels, states) complex
  float* grad_skip;          // (batch, channels), or null
  float* grad_state;
};

struct ComplexRecurrence {
  std::ptrdiff_t batch, length, channels;
  const float *lam, *b, *state;  // (channels), (batch, length, channels), (batch, channels), complex
  float *h, *last;               // as b, as state
  int threads;
};

struct ComplexRecurrenceGrad {
  ComplexRecurrence forward;  // with h as the forward pass gave it; b and last are not read
  const float *grad_h, *grad_last;
  float *grad_lam, *grad_b, *grad_state;  // (batch, channels), as b, as state, complex
};

LINOCUT_EACH_ISA(void diagonal_ssm(const DiagonalSsm& job);
                 void diagonal_ssm_grad(const DiagonalSsmGrad& job);
                 void complex_recurrence(const ComplexRecurrence& job);
                 void complex_recurrence_grad(const ComplexRecurrenceGrad& job);)

}  // namespace linocut
