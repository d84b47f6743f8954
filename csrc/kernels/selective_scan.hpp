// h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, y_t = C_t h_t + D x_t: the recurrence of Mamba (S6), where step size,
// input and output maps depend on the token; with delta's bias and softplus and the gate silu(z) in the same pass.
//
// Lanes are channels. A vector of channels takes some tokens, then the next vector does, and so memory is read row by
// row. What costs time is one exp for every token, channel and state.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// Tokens between two states that training keeps: so few that the way back through them stays in the nearest cache.
constexpr std::ptrdiff_t kScanChunk = 16;

// Channels that are kept next to each other, whole vectors of every instruction set.
constexpr std::ptrdiff_t kScanBlock = 16;

// A tensor (batch, length, channels or states) of any strides, counted in elements; data is null for an absent one.
struct Strided {
  void* data;
  std::ptrdiff_t batch, token, channel;
};

struct SelectiveScan {
  std::ptrdiff_t batch, length, channels, states;
  bool half;      // x, delta, z, B, C, y and their gradients are bf16, not float
  bool softplus;  // delta is softplus(delta + bias), not delta + bias
  Strided x, delta, z, B, C;  // z may be absent
  const float *A, *D, *bias;  // (channels, states), (channels), (channels); D and bias may be null
  const float* state;         // (batch, channels, states)
  Strided y;
  float* last;         // as state
  float* checkpoints;  // (batch, chunks, blocks of channels, states, channels of a block), the states before each
                       // chunk; null if not wanted
  int threads;
};

// Channels whose gradients of B and C are summed in one go; the caller sums over the groups. The same for any number of
// threads, so that results are, and whole blocks.
constexpr std::ptrdiff_t scan_group(std::ptrdiff_t channels) {
  return channels > 128 ? 128 : ((channels + 1) / 2 + kScanBlock - 1) / kScanBlock * kScanBlock;
}

struct SelectiveScanGrad {
  SelectiveScan forward;  // y and last are not used
  Strided grad_y;
  const float* grad_last;
  Strided grad_x, grad_delta, grad_z;
  float *grad_B, *grad_C;           // (batch, groups, length, states)
  float *grad_A, *grad_D, *grad_bias;  // (batch, channels, states), (batch, channels), (batch, channels)
  float* grad_state;                // (batch, channels, states)
};

LINOCUT_EACH_ISA(void selective_scan(const SelectiveScan& job);
                 void selective_scan_grad(const SelectiveScanGrad& job);)

}  // namespace linocut
