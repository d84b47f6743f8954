// Softmax attention to a window of keys, head by head, in blocks with a running maximum.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// q, y (batch, queries, heads, dim), k, v (batch, keys, heads, dim), rows contiguous, float or bf16. Query i stands at key
// before + i, keys >= before + queries, and sees that one, the window - 1 that lie 1, 2, … times `dilation` behind it, and
// unless causal as many ahead, as far as they are there.
struct LocalAttention {
  std::ptrdiff_t batch, queries, keys, before, heads, dim, window, dilation;
  bool causal, half;  // half: q, k, v, y and the gradients of y and q are bf16
  float scale;
  const void *q, *k, *v;
  void* y;
  float* log_sum;  // of the exponentials, (batch, heads, queries), if there
  int threads;
};

struct LocalAttentionGrad {
  LocalAttention forward;  // y and log_sum as the forward pass gave them
  const void* grad_y;
  void* grad_q;
  float *grad_k, *grad_v;  // zeros, which the gradients are added to
};

LINOCUT_EACH_ISA(void local_attention(const LocalAttention& job);
                 void local_attention_grad(const LocalAttentionGrad& job);)

}  // namespace linocut
