// h_t = a_t h_{t-1} + b_t, channel by channel, with a gate for every token. The recurrence of RG-LRU.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// All (batch, length, channels), rows contiguous, float or bf16; states (batch, channels) float.
struct LinearRecurrence {
  std::ptrdiff_t batch, length, channels;
  bool half;  // a, b, h and their gradients are bf16
  const void *a, *b;
  const float* state;
  void* h;
  float* last;
  int threads;
};

// From h as the forward pass gave it. A bf16 h is rounded, so its gradients are good to bf16.
struct LinearRecurrenceGrad {
  LinearRecurrence forward;
  const void* grad_h;
  const float* grad_last;
  void *grad_a, *grad_b;
  float* grad_state;
};

LINOCUT_EACH_ISA(void linear_recurrence(const LinearRecurrence& job);
                 void linear_recurrence_grad(const LinearRecurrenceGrad& job);)

}  // namespace linocut
