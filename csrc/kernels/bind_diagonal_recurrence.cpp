#include "bind.hpp"
#include "diagonal_recurrence.hpp"

namespace linocut {
namespace {

void ssm(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, std::ptrdiff_t states, bool half,
         Address u, Address lam, Address c, Address skip, Address state, Address y, Address last, Address kept,
         int threads) {
  const DiagonalSsm job{batch, length, channels, states, half, at<const void>(u), at<const float>(lam),
                        at<const float>(c), at<const float>(skip), at<const float>(state), at<void>(y),
                        at<float>(last), at<float>(kept), threads};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(diagonal_ssm, job);
}

void ssm_grad(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, std::ptrdiff_t states, bool half,
              Address u, Address lam, Address c, Address skip, Address kept, Address grad_y, Address grad_last,
              Address grad_u, Address grad_lam, Address grad_c, Address grad_skip, Address grad_state, int threads) {
  const DiagonalSsmGrad grad{
      {batch, length, channels, states, half, at<const void>(u), at<const float>(lam), at<const float>(c),
       at<const float>(skip), nullptr, nullptr, nullptr, at<float>(kept), threads},
      at<const void>(grad_y),
      at<const float>(grad_last),
      at<void>(grad_u),
      at<float>(grad_lam),
      at<float>(grad_c),
      at<float>(grad_skip),
      at<float>(grad_state)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(diagonal_ssm_grad, grad);
}

void complex(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, Address lam, Address b,
             Address state, Address h, Address last, int threads) {
  const ComplexRecurrence job{batch, length, channels, at<const float>(lam), at<const float>(b),
                              at<const float>(state), at<float>(h), at<float>(last), threads};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(complex_recurrence, job);
}

void complex_grad(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, Address lam, Address state,
                  Address h, Address grad_h, Address grad_last, Address grad_lam, Address grad_b, Address grad_state,
                  int threads) {
  const ComplexRecurrenceGrad grad{{batch, length, channels, at<const float>(lam), nullptr, at<const float>(state),
                                    at<float>(h), nullptr, threads},
                                   at<const float>(grad_h),
                                   at<const float>(grad_last),
                                   at<float>(grad_lam),
                                   at<float>(grad_b),
                                   at<float>(grad_state)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(complex_recurrence_grad, grad);
}

}  // namespace

void bind_diagonal_recurrence(nanobind::module_& m) {
  m.def("diagonal_ssm", &ssm);
  m.def("diagonal_ssm_grad", &ssm_grad);
  m.def("complex_recurrence", &complex);
  m.def("complex_recurrence_grad", &complex_grad);
}

}  // namespace linocut
