// y_t = act(bias + w_0 x_{t-width+1} + … + w_{width-1} x_t), channel by channel: the causal convolution of a few tokens
// that stands before the recurrence in Mamba, Mamba-2 and Gated DeltaNet.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// x is (batch, length, channels), float or bf16, with contiguous channels and any distance between tokens and between
// sequences; y alike and contiguous. weight is (width, channels), bias (channels); state, the width - 1 tokens before,
// (batch, width - 1, channels), and last, those at the end, are float.
struct ShortConvolution {
  std::ptrdiff_t batch, length, channels, width;  // width from 2 to 4
  bool half;                                      // x, y and their gradients are bf16
  bool silu;                                      // act is x sigmoid(x), not the identity
  const void* x;
  std::ptrdiff_t x_batch, x_token;
  const float *weight, *bias, *state;
  void* y;
  float* last;
  int threads;
};

// Tokens that one sum of the gradients of weight and bias is over.
constexpr std::ptrdiff_t kConvolutionPiece = 128;

struct ShortConvolutionGrad {
  ShortConvolution forward;
  const void* grad_y;
  std::ptrdiff_t grad_y_batch, grad_y_token;
  const float* grad_last;
  void* grad_x;
  // (batch, pieces, width, channels) and (batch, pieces, channels), to be summed over the first two
  float *grad_weight, *grad_bias;
  float* grad_state;
};

LINOCUT_EACH_ISA(void short_convolution(const ShortConvolution& job);
                 void short_convolution_grad(const ShortConvolutionGrad& job);)

}  // namespace linocut
