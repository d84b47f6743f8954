#include <nanobind/stl/array.h>

#include <array>

#include "bind.hpp"
#include "depthwise_conv.hpp"

namespace linocut {
namespace {

using Numbers4 = std::array<std::ptrdiff_t, 4>;
using Numbers7 = std::array<std::ptrdiff_t, 7>;

DepthwiseAxis axis(const Numbers7& n) { return {n[0], n[1], n[2], n[3], n[4], n[5], n[6]}; }

DepthwiseStrides strides(const Numbers4& n) { return {n[0], n[1], n[2], n[3]}; }

DepthwiseConv job(std::ptrdiff_t batch, std::ptrdiff_t channels, const Numbers7& y, const Numbers7& x,
                  std::ptrdiff_t rows, bool half, Address in, const Numbers4& in_strides, Address out,
                  const Numbers4& out_strides, Address weight, Address bias, int threads) {
  return {batch,
          channels,
          axis(y),
          axis(x),
          rows,
          half,
          at<const void>(in),
          strides(in_strides),
          at<void>(out),
          strides(out_strides),
          at<const float>(weight),
          at<const float>(bias),
          threads};
}

void forward(std::ptrdiff_t batch, std::ptrdiff_t channels, const Numbers7& y, const Numbers7& x, std::ptrdiff_t rows,
             bool half, bool pixels, Address in, const Numbers4& in_strides, Address out, const Numbers4& out_strides,
             Address weight, Address bias, int threads) {
  const auto forward = job(batch, channels, y, x, rows, half, in, in_strides, out, out_strides, weight, bias, threads);
  const nanobind::gil_scoped_release release;
  if (pixels) {
    LINOCUT_CALL(depthwise_pixels, forward);
  } else {
    LINOCUT_CALL(depthwise_planes, forward);
  }
}

void weight_grad(std::ptrdiff_t batch, std::ptrdiff_t channels, const Numbers7& y, const Numbers7& x,
                 std::ptrdiff_t rows, bool half, bool pixels, Address in, const Numbers4& in_strides, Address grad_out,
                 const Numbers4& out_strides, Address sums, int threads) {
  const DepthwiseWeightGrad grad{
      job(batch, channels, y, x, rows, half, in, in_strides, grad_out, out_strides, 0, 0, threads), at<float>(sums)};
  const nanobind::gil_scoped_release release;
  if (pixels) {
    LINOCUT_CALL(depthwise_pixels_grad, grad);
  } else {
    LINOCUT_CALL(depthwise_planes_grad, grad);
  }
}

}  // namespace

void bind_depthwise_conv(nanobind::module_& m) {
  m.def("depthwise_conv", &forward);
  m.def("depthwise_conv_weight_grad", &weight_grad);
}

}  // namespace linocut
