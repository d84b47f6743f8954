#include "bind.hpp"
#include "short_convolution.hpp"

namespace linocut {
namespace {

using Size = std::ptrdiff_t;

ShortConvolution job(Size batch, Size length, Size channels, Size width, bool half, bool silu, Address x, Size x_batch,
                     Size x_token, Address weight, Address bias, Address state, Address y, Address last, int threads) {
  return {batch,
          length,
          channels,
          width,
          half,
          silu,
          at<const void>(x),
          x_batch,
          x_token,
          at<const float>(weight),
          at<const float>(bias),
          at<const float>(state),
          at<void>(y),
          at<float>(last),
          threads};
}

void forward(Size batch, Size length, Size channels, Size width, bool half, bool silu, Address x, Size x_batch,
             Size x_token, Address weight, Address bias, Address state, Address y, Address last, int threads) {
  const auto forward =
      job(batch, length, channels, width, half, silu, x, x_batch, x_token, weight, bias, state, y, last, threads);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(short_convolution, forward);
}

void backward(Size batch, Size length, Size channels, Size width, bool half, bool silu, Address x, Size x_batch,
              Size x_token, Address weight, Address bias, Address state, Address grad_y, Size grad_y_batch,
              Size grad_y_token, Address grad_last, Address grad_x, Address grad_weight, Address grad_bias,
              Address grad_state, int threads) {
  const ShortConvolutionGrad grad{
      job(batch, length, channels, width, half, silu, x, x_batch, x_token, weight, bias, state, 0, 0, threads),
      at<const void>(grad_y),
      grad_y_batch,
      grad_y_token,
      at<const float>(grad_last),
      at<void>(grad_x),
      at<float>(grad_weight),
      at<float>(grad_bias),
      at<float>(grad_state)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(short_convolution_grad, grad);
}

}  // namespace

void bind_short_convolution(nanobind::module_& m) {
  m.attr("convolution_piece") = kConvolutionPiece;
  m.def("short_convolution", &forward);
  m.def("short_convolution_grad", &backward);
}

}  // namespace linocut
