#include "bind.hpp"
#include "local_attention.hpp"

namespace linocut {
namespace {

using Size = std::ptrdiff_t;

LocalAttention job(Size batch, Size queries, Size keys, Size before, Size heads, Size dim, Size window, Size dilation,
                   bool causal, bool half, float scale, Address q, Address k, Address v, Address y, Address log_sum,
                   int threads) {
  return {batch,  queries,           keys,              before,            heads,       dim,
          window, dilation,          causal,            half,              scale,       at<const void>(q),
          at<const void>(k), at<const void>(v), at<void>(y), at<float>(log_sum), threads};
}

void forward(Size batch, Size queries, Size keys, Size before, Size heads, Size dim, Size window, Size dilation,
             bool causal, bool half, float scale, Address q, Address k, Address v, Address y, Address log_sum,
             int threads) {
  const auto forward = job(batch, queries, keys, before, heads, dim, window, dilation, causal, half, scale, q, k, v, y,
                           log_sum, threads);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(local_attention, forward);
}

void backward(Size batch, Size queries, Size keys, Size before, Size heads, Size dim, Size window, Size dilation,
              bool causal, bool half, float scale, Address q, Address k, Address v, Address y, Address log_sum,
              Address grad_y, Address grad_q, Address grad_k, Address grad_v, int threads) {
  const LocalAttentionGrad grad{job(batch, queries, keys, before, heads, dim, window, dilation, causal, half, scale, q,
                                    k, v, y, log_sum, threads),
                                at<const void>(grad_y), at<void>(grad_q), at<float>(grad_k), at<float>(grad_v)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(local_attention_grad, grad);
}

}  // namespace

void bind_local_attention(nanobind::module_& m) {
  m.def("local_attention", &forward);
  m.def("local_attention_grad", &backward);
}

}  // namespace linocut
