#include "bind.hpp"
#include "linear_recurrence.hpp"

namespace linocut {
namespace {

LinearRecurrence job(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, bool half, Address a,
                     Address b, Address state, Address h, Address last, int threads) {
  return {batch,           length,        channels,        half,   at<const void>(a), at<const void>(b),
          at<const float>(state), at<void>(h), at<float>(last), threads};
}

void forward(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, bool half, Address a, Address b,
             Address state, Address h, Address last, int threads) {
  const auto forward = job(batch, length, channels, half, a, b, state, h, last, threads);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(linear_recurrence, forward);
}

void backward(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, bool half, Address a, Address state,
              Address h, Address grad_h, Address grad_last, Address grad_a, Address grad_b, Address grad_state,
              int threads) {
  const LinearRecurrenceGrad grad{job(batch, length, channels, half, a, 0, state, h, 0, threads),
                                  at<const void>(grad_h),
                                  at<const float>(grad_last),
                                  at<void>(grad_a),
                                  at<void>(grad_b),
                                  at<float>(grad_state)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(linear_recurrence_grad, grad);
}

}  // namespace

void bind_linear_recurrence(nanobind::module_& m) {
  m.def("linear_recurrence", &forward);
  m.def("linear_recurrence_grad", &backward);
}

}  // namespace linocut
