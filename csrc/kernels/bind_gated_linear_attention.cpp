#include <array>

#include "bind.hpp"
#include "gated_linear_attention.hpp"

#include <nanobind/stl/array.h>

namespace linocut {
namespace {

using Sizes = std::array<std::ptrdiff_t, 6>;   // batch, length, groups, heads, dim, value
using Tokens = std::array<std::ptrdiff_t, 3>;  // from token to token of q, k, v

GatedLinearAttention job(const Sizes& n, bool half, int map, bool normalize, const std::array<Address, 8>& inputs,
                         const Tokens& tokens, const std::array<Address, 4>& outputs, std::ptrdiff_t segment,
                         int threads) {
  GatedLinearAttention job{};
  job.batch = n[0], job.length = n[1], job.groups = n[2], job.heads = n[3], job.dim = n[4], job.value = n[5];
  job.half = half, job.map = static_cast<FeatureMap>(map), job.normalize = normalize;
  job.q = at<const void>(inputs[0]), job.k = at<const void>(inputs[1]), job.v = at<const void>(inputs[2]);
  job.log_decay = at<const float>(inputs[3]), job.weight = at<const float>(inputs[4]);
  job.skip = at<const float>(inputs[5]);
  job.state = at<const float>(inputs[6]), job.norm = at<const float>(inputs[7]);
  job.q_token = tokens[0], job.k_token = tokens[1], job.v_token = tokens[2];
  job.y = at<void>(outputs[0]), job.last = at<float>(outputs[1]), job.last_norm = at<float>(outputs[2]);
  job.checkpoints = at<float>(outputs[3]);
  job.segment = segment, job.threads = threads;
  return job;
}

// inputs: q, k, v, log_decay, weight, skip, state, norm; outputs: y, last, last_norm, checkpoints.
void forward(const Sizes& sizes, bool half, int map, bool normalize, const std::array<Address, 8>& inputs,
             const Tokens& tokens, const std::array<Address, 4>& outputs, std::ptrdiff_t segment, int threads) {
  const auto forward = job(sizes, half, map, normalize, inputs, tokens, outputs, segment, threads);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(gated_linear_attention, forward);
}

// inputs: q, k, v, log_decay, weight, skip, checkpoints, grad_y, grad_last, grad_last_norm; outputs: the gradients of q,
// k, v, log_decay, weight, skip, state, norm.
void backward(const Sizes& sizes, bool half, int map, bool normalize, const std::array<Address, 10>& inputs,
              const Tokens& tokens, const std::array<Address, 8>& outputs, std::ptrdiff_t segment, int threads) {
  GatedLinearAttentionGrad grad{};
  grad.forward = job(sizes, half, map, normalize,
                     {inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5], 0, 0}, tokens,
                     {0, 0, 0, inputs[6]}, segment, threads);
  grad.grad_y = at<const void>(inputs[7]);
  grad.grad_last = at<const float>(inputs[8]), grad.grad_last_norm = at<const float>(inputs[9]);
  grad.grad_q = at<void>(outputs[0]), grad.grad_k = at<void>(outputs[1]), grad.grad_v = at<void>(outputs[2]);
  grad.grad_log_decay = at<float>(outputs[3]), grad.grad_weight = at<float>(outputs[4]);
  grad.grad_skip = at<float>(outputs[5]);
  grad.grad_state = at<float>(outputs[6]), grad.grad_norm = at<float>(outputs[7]);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(gated_linear_attention_grad, grad);
}

}  // namespace

void bind_gated_linear_attention(nanobind::module_& m) {
  m.def("gated_linear_attention", &forward);
  m.def("gated_linear_attention_grad", &backward);
}

}  // namespace linocut
