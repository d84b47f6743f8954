// One small filter a channel, with any stride, dilation and padding: depthwise convolution and its gradients.
//
// On each axis output o, tap k and input i belong together where in_step i = out_step o + dilation k - offset. Forwards,
// in_step is 1 and out_step the stride. The gradient of the input is the same sum with the steps swapped and the signs of
// dilation and offset turned, so one kernel does both.
//
// Two layouts, each read and written where it lies: planes, whose neighbours along a row are neighbours in memory, and
// pixels, whose channels are. An axis with one output, tap and input stands for the missing one of a sequence.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

struct DepthwiseAxis {
  std::ptrdiff_t in, out, taps, in_step, out_step, dilation, offset;
};

// Numbers, not bytes, from one entry to the next.
struct DepthwiseStrides {
  std::ptrdiff_t batch, channel, y, x;
};

struct DepthwiseConv {
  std::ptrdiff_t batch, channels;
  DepthwiseAxis y, x;
  std::ptrdiff_t rows;  // output rows that one thread takes at a time
  bool half;            // in and out are bf16
  const void* in;
  DepthwiseStrides in_strides;
  void* out;
  DepthwiseStrides out_strides;
  const float *weight, *bias;  // (channels, taps) for planes, (taps, channels) for pixels; no bias: null
  int threads;
};

// From the input and the gradient of the output, which stands in place of the output; in_step is 1. Every piece of so
// many rows of an image writes its own sums: (batch, pieces, channels, taps + 1) for planes, (batch, pieces, taps + 1,
// channels) for pixels. The last of them is the bias's.
struct DepthwiseWeightGrad {
  DepthwiseConv forward;
  float* sums;
};

LINOCUT_EACH_ISA(void depthwise_planes(const DepthwiseConv& job); void depthwise_pixels(const DepthwiseConv& job);
                 void depthwise_planes_grad(const DepthwiseWeightGrad& job);
                 void depthwise_pixels_grad(const DepthwiseWeightGrad& job);)

}  // namespace linocut
