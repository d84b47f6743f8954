#include "bind.hpp"
#include "gated_delta_rule.hpp"

namespace linocut {
namespace {

using Size = std::ptrdiff_t;

void forward(Size batch, Size length, Size groups, Size dim, Size heads, Size value, Size segment, bool half, Address q,
             Address k, Address v, Address log_decay, Address beta, Address state, Address y, Address last,
             Address kept, int threads) {
  const GatedDeltaRule job{batch,
                           length,
                           groups,
                           heads,
                           dim,
                           value,
                           half,
                           at<const void>(q),
                           at<const void>(k),
                           at<const void>(v),
                           at<const float>(log_decay),
                           at<const float>(beta),
                           at<const float>(state),
                           at<void>(y),
                           at<float>(last),
                           at<float>(kept),
                           segment,
                           threads};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(gated_delta_rule, job);
}

void backward(Size batch, Size length, Size groups, Size dim, Size heads, Size value, Size segment, bool half,
              Address q, Address k, Address v, Address log_decay, Address beta, Address kept, Address grad_y,
              Address grad_last, Address grad_q, Address grad_k, Address grad_v, Address grad_log_decay,
              Address grad_beta, Address grad_state, int threads) {
  const GatedDeltaRuleGrad job{{batch,
                                length,
                                groups,
                                heads,
                                dim,
                                value,
                                half,
                                at<const void>(q),
                                at<const void>(k),
                                at<const void>(v),
                                at<const float>(log_decay),
                                at<const float>(beta),
                                nullptr,
                                nullptr,
                                nullptr,
                                at<float>(kept),
                                segment,
                                threads},
                               at<const void>(grad_y),
                               at<const float>(grad_last),
                               at<void>(grad_q),
                               at<void>(grad_k),
                               at<void>(grad_v),
                               at<float>(grad_log_decay),
                               at<float>(grad_beta),
                               at<float>(grad_state)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(gated_delta_rule_grad, job);
}

}  // namespace

void bind_gated_delta_rule(nanobind::module_& m) {
  m.def("gated_delta_rule", &forward);
  m.def("gated_delta_rule_grad", &backward);
}

}  // namespace linocut
