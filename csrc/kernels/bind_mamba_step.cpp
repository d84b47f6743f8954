#include <nanobind/stl/array.h>

#include <array>

#include "bind.hpp"
#include "mamba_step.hpp"

namespace linocut {
namespace {

// sizes: batch, d_model, d_inner, d_state, d_conv, dt_rank. parameters: in the order of MambaStep.
void step(const std::array<std::ptrdiff_t, 6>& sizes, const std::array<Address, 11>& parameters, Address x,
          Address tail, Address h, Address y, Address next_tail, Address next_h, int threads) {
  const auto parameter = [&](std::size_t i) { return at<const float>(parameters[i]); };
  const MambaStep job{sizes[0],
                      sizes[1],
                      sizes[2],
                      sizes[3],
                      sizes[4],
                      sizes[5],
                      parameter(0),
                      parameter(1),
                      parameter(2),
                      parameter(3),
                      parameter(4),
                      parameter(5),
                      parameter(6),
                      parameter(7),
                      parameter(8),
                      parameter(9),
                      parameter(10),
                      at<const float>(x),
                      at<const float>(tail),
                      at<const float>(h),
                      at<float>(y),
                      at<float>(next_tail),
                      at<float>(next_h),
                      threads};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(mamba_step, job);
}

}  // namespace

void bind_mamba_step(nanobind::module_& m) { m.def("mamba_step", &step); }

}  // namespace linocut
