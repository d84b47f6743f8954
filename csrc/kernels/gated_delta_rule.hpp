// S_t = a_t (I - beta_t k_t k_tᵀ) S_{t-1} + beta_t k_t v_tᵀ, y_t = S_tᵀ q_t, head by head, in chunks.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// q, k (batch, length, groups, dim), v and y (batch, length, heads, value), rows contiguous, float or bf16; heads is a
// multiple of groups, and neighbouring heads share a group. log_decay, beta (batch, length, heads) float.
// States (batch, heads, dim, value) float. kept, if there: (batch, pieces, heads, dim, value), the state before every
// `segment` tokens, from which the backward pass starts.
struct GatedDeltaRule {
  std::ptrdiff_t batch, length, groups, heads, dim, value;
  bool half;  // q, k, v, y and their gradients are bf16
  const void *q, *k, *v;
  const float *log_decay, *beta, *state;
  void* y;
  float *last, *kept;
  std::ptrdiff_t segment;  // a multiple of 32
  int threads;
};

struct GatedDeltaRuleGrad {
  GatedDeltaRule forward;  // state, y and last are not used
  const void* grad_y;
  const float* grad_last;
  void *grad_q, *grad_k, *grad_v;
  float *grad_log_decay, *grad_beta, *grad_state;
};

LINOCUT_EACH_ISA(void gated_delta_rule(const GatedDeltaRule& job);
                 void gated_delta_rule_grad(const GatedDeltaRuleGrad& job);)

}  // namespace linocut
