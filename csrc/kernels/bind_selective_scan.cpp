#include <nanobind/stl/array.h>

#include <array>

#include "bind.hpp"
#include "selective_scan.hpp"

namespace linocut {
namespace {

using Size = std::ptrdiff_t;
// Address and strides of a tensor of three dimensions.
using Laid = std::array<Size, 4>;

Strided strided(const Laid& tensor) {
  return {at<void>(static_cast<Address>(tensor[0])), tensor[1], tensor[2], tensor[3]};
}

SelectiveScan job(Size batch, Size length, Size channels, Size states, bool half, bool softplus, const Laid& x,
                  const Laid& delta, const Laid& z, const Laid& B, const Laid& C, Address A, Address D, Address bias,
                  Address state, int threads) {
  return {batch,
          length,
          channels,
          states,
          half,
          softplus,
          strided(x),
          strided(delta),
          strided(z),
          strided(B),
          strided(C),
          at<const float>(A),
          at<const float>(D),
          at<const float>(bias),
          at<const float>(state),
          {},
          nullptr,
          nullptr,
          threads};
}

void forward(Size batch, Size length, Size channels, Size states, bool half, bool softplus, const Laid& x,
             const Laid& delta, const Laid& z, const Laid& B, const Laid& C, Address A, Address D, Address bias,
             Address state, int threads, const Laid& y, Address last, Address checkpoints) {
  auto forward = job(batch, length, channels, states, half, softplus, x, delta, z, B, C, A, D, bias, state, threads);
  forward.y = strided(y);
  forward.last = at<float>(last);
  forward.checkpoints = at<float>(checkpoints);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(selective_scan, forward);
}

void backward(Size batch, Size length, Size channels, Size states, bool half, bool softplus, const Laid& x,
              const Laid& delta, const Laid& z, const Laid& B, const Laid& C, Address A, Address D, Address bias,
              Address state, int threads, Address checkpoints, const Laid& grad_y, Address grad_last,
              const Laid& grad_x, const Laid& grad_delta, const Laid& grad_z, Address grad_B, Address grad_C,
              Address grad_A, Address grad_D, Address grad_bias, Address grad_state) {
  SelectiveScanGrad grad{
      job(batch, length, channels, states, half, softplus, x, delta, z, B, C, A, D, bias, state, threads),
      strided(grad_y),
      at<const float>(grad_last),
      strided(grad_x),
      strided(grad_delta),
      strided(grad_z),
      at<float>(grad_B),
      at<float>(grad_C),
      at<float>(grad_A),
      at<float>(grad_D),
      at<float>(grad_bias),
      at<float>(grad_state)};
  grad.forward.checkpoints = at<float>(checkpoints);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(selective_scan_grad, grad);
}

}  // namespace

void bind_selective_scan(nanobind::module_& m) {
  m.attr("scan_chunk") = kScanChunk;
  m.attr("scan_block") = kScanBlock;
  m.def("scan_group", &scan_group);
  m.def("selective_scan", &forward);
  m.def("selective_scan_grad", &backward);
}

}  // namespace linocut
