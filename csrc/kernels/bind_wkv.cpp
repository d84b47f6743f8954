#include "bind.hpp"
#include "wkv.hpp"

namespace linocut {
namespace {

void forward(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, bool half, Address k, Address v,
             Address w, Address u, Address num, Address den, Address top, Address y, Address last_num,
             Address last_den, Address last_top, Address chunks, int threads) {
  const Wkv job{batch,
                length,
                channels,
                half,
                at<const void>(k),
                at<const void>(v),
                at<const float>(w),
                at<const float>(u),
                at<const float>(num),
                at<const float>(den),
                at<const float>(top),
                at<void>(y),
                at<float>(last_num),
                at<float>(last_den),
                at<float>(last_top),
                at<float>(chunks),
                threads};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(wkv, job);
}

void backward(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t channels, bool half, Address k, Address v,
              Address w, Address u, Address num, Address den, Address top, Address last_num, Address last_den,
              Address chunks, Address grad_y, Address grad_last_num, Address grad_last_den, Address grad_last_top,
              Address grad_k, Address grad_v, Address grad_w, Address grad_u, Address grad_num, Address grad_den,
              Address grad_top, int threads) {
  const WkvGrad grad{{batch,
                      length,
                      channels,
                      half,
                      at<const void>(k),
                      at<const void>(v),
                      at<const float>(w),
                      at<const float>(u),
                      at<const float>(num),
                      at<const float>(den),
                      at<const float>(top),
                      nullptr,
                      at<float>(last_num),
                      at<float>(last_den),
                      nullptr,
                      at<float>(chunks),
                      threads},
                     at<const void>(grad_y),
                     at<const float>(grad_last_num),
                     at<const float>(grad_last_den),
                     at<const float>(grad_last_top),
                     at<void>(grad_k),
                     at<void>(grad_v),
                     at<float>(grad_w),
                     at<float>(grad_u),
                     at<float>(grad_num),
                     at<float>(grad_den),
                     at<float>(grad_top)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(wkv_grad, grad);
}

}  // namespace

void bind_wkv(nanobind::module_& m) {
  m.def("wkv", &forward);
  m.def("wkv_grad", &backward);
}

}  // namespace linocut
