// S_t = exp(a_t) S_{t-1} + w_t k_t v_tᵀ, y_t = S_tᵀ q_t (+ skip v_t), with a decay a_t <= 0 for every head and token or
// none: causal linear attention with its normaliser and feature map, retention, Mamba-2's SSD.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// What is done to q and k first.
enum class FeatureMap { identity, elu_plus_one, relu, exp };

// q, k (batch, length, groups, dim) and v (batch, length, heads, value) are float or bf16; tokens may lie further apart
// than their channels need, a batch is `length` tokens long. Each group serves heads / groups heads.
struct GatedLinearAttention {
  std::ptrdiff_t batch, length, groups, heads, dim, value;
  bool half;  // q, k, v, y and their gradients are bf16
  FeatureMap map;
  bool normalize;  // divides y by q_tᵀ z_t, z_t = exp(a_t) z_{t-1} + k_t; neither weight nor skip then
  const void *q, *k, *v;
  std::ptrdiff_t q_token, k_token, v_token;
  const float *log_decay, *weight;  // a and w: (batch, length, heads); absent for 0 and 1
  const float* skip;                // (heads); absent for 0
  const float *state, *norm;        // S (batch, heads, dim, value) and z (batch, heads, dim); absent for 0
  void* y;                          // (batch, length, heads, value)
  float *last, *last_norm;          // as state and norm
  // States before every `segment`-th token, transposed, z as one more row when normalising:
  // (batch, segments, heads, value (+ 1), dim). Absent when no gradient is wanted.
  float* checkpoints;
  std::ptrdiff_t segment;
  int threads;
};

// Gradients lie dense, as y and the states; those of weight and skip come for every token and head.
struct GatedLinearAttentionGrad {
  GatedLinearAttention forward;  // with checkpoints
  const void* grad_y;
  const float *grad_last, *grad_last_norm;  // absent for 0
  void *grad_q, *grad_k, *grad_v;
  float *grad_log_decay, *grad_weight, *grad_skip;
  float *grad_state, *grad_norm;
};

LINOCUT_EACH_ISA(void gated_linear_attention(const GatedLinearAttention& job);
                 void gated_linear_attention_grad(const GatedLinearAttentionGrad& job);)

}  // namespace linocut
