#include "bind.hpp"
#include "channel_decay.hpp"

namespace linocut {
namespace {

ChannelDecay job(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t heads, std::ptrdiff_t dim,
                 std::ptrdiff_t value, bool half, Address q, Address k, Address v, Address log_decay, Address bonus,
                 Address state, Address y, Address last, int threads) {
  return {batch,
          length,
          heads,
          dim,
          value,
          half,
          at<const void>(q),
          at<const void>(k),
          at<const void>(v),
          at<const float>(log_decay),
          at<const float>(bonus),
          at<const float>(state),
          at<void>(y),
          at<float>(last),
          threads};
}

void forward(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t heads, std::ptrdiff_t dim,
             std::ptrdiff_t value, bool half, Address q, Address k, Address v, Address log_decay, Address bonus,
             Address state, Address y, Address last, int threads) {
  const auto forward =
      job(batch, length, heads, dim, value, half, q, k, v, log_decay, bonus, state, y, last, threads);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(channel_decay, forward);
}

void backward(std::ptrdiff_t batch, std::ptrdiff_t length, std::ptrdiff_t heads, std::ptrdiff_t dim,
              std::ptrdiff_t value, bool half, Address q, Address k, Address v, Address log_decay, Address bonus,
              Address state, Address grad_y, Address grad_last, Address grad_q, Address grad_k, Address grad_v,
              Address grad_log_decay, Address grad_bonus, Address grad_state, Address chunks, int threads) {
  const ChannelDecayGrad grad{
      job(batch, length, heads, dim, value, half, q, k, v, log_decay, bonus, state, 0, 0, threads),
      at<const void>(grad_y),
      at<const float>(grad_last),
      at<void>(grad_q),
      at<void>(grad_k),
      at<void>(grad_v),
      at<float>(grad_log_decay),
      at<float>(grad_bonus),
      at<float>(grad_state),
      at<float>(chunks)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(channel_decay_grad, grad);
}

}  // namespace

void bind_channel_decay(nanobind::module_& m) {
  m.def("channel_decay", &forward);
  m.def("channel_decay_grad", &backward);
}

}  // namespace linocut
