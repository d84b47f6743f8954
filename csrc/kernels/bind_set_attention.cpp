#include <nanobind/stl/array.h>

#include <array>

#include "bind.hpp"
#include "set_attention.hpp"

namespace linocut {
namespace {

using Size = std::ptrdiff_t;
// batch, length, heads, dim, features, value, half, map, threads
using Sizes = std::array<Size, 9>;
// address, strides of batch, length and heads
using View = std::array<Address, 4>;

SetAttention shape(const Sizes& s, Address projection, float norm) {
  return {s[0], s[1], s[2], s[3], s[4], s[5], s[6] != 0, static_cast<FeatureMap>(s[7]), at<const float>(projection),
          norm, static_cast<int>(s[8])};
}

Tokens tokens(const View& x) {
  return {at<const void>(x[0]), static_cast<Size>(x[1]), static_cast<Size>(x[2]), static_cast<Size>(x[3])};
}

void summarize(const Sizes& sizes, Address projection, float norm, const View& k, const View& v, Address kv, Address z,
               Address m) {
  const SetSummarize job{shape(sizes, projection, norm), tokens(k), tokens(v), at<float>(kv), at<float>(z), at<float>(m)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(set_summarize, job);
}

void summarize_grad(const Sizes& sizes, Address projection, float norm, const View& k, const View& v, Address m,
                    Address grad_kv, Address grad_z, Address grad_k, Address grad_v) {
  const SetSummarizeGrad job{shape(sizes, projection, norm), tokens(k),        tokens(v),
                             at<const float>(m),             at<const float>(grad_kv), at<const float>(grad_z),
                             at<void>(grad_k),               at<void>(grad_v)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(set_summarize_grad, job);
}

SetRead reading(const Sizes& sizes, Address projection, float norm, const View& q, Address kv, Address z, Address m,
                Address y) {
  return {shape(sizes, projection, norm), tokens(q), at<const float>(kv), at<const float>(z), at<const float>(m),
          at<void>(y)};
}

void read(const Sizes& sizes, Address projection, float norm, const View& q, Address kv, Address z, Address m,
          Address y) {
  const SetRead job = reading(sizes, projection, norm, q, kv, z, m, y);
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(set_read, job);
}

void read_grad(const Sizes& sizes, Address projection, float norm, const View& q, Address kv, Address z, Address m,
               Address y, Address grad_y, Address grad_q, Address grad_kv, Address grad_z) {
  const SetReadGrad job{reading(sizes, projection, norm, q, kv, z, m, y), at<const void>(grad_y), at<void>(grad_q),
                        at<float>(grad_kv), at<float>(grad_z)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(set_read_grad, job);
}

void features(const Sizes& sizes, Address projection, float norm, const View& x, Address f, Address top) {
  const RandomFeatures job{shape(sizes, projection, norm), tokens(x), at<void>(f), at<float>(top)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(random_features, job);
}

void features_grad(const Sizes& sizes, Address projection, float norm, const View& x, Address f, Address grad_f,
                   Address grad_x) {
  const RandomFeaturesGrad job{shape(sizes, projection, norm), tokens(x), at<const void>(f), at<const void>(grad_f),
                               at<void>(grad_x)};
  const nanobind::gil_scoped_release release;
  LINOCUT_CALL(random_features_grad, job);
}

}  // namespace

void bind_set_attention(nanobind::module_& m) {
  m.def("set_summarize", &summarize);
  m.def("set_summarize_grad", &summarize_grad);
  m.def("set_read", &read);
  m.def("set_read_grad", &read_grad);
  m.def("random_features", &features);
  m.def("random_features_grad", &features_grad);
}

}  // namespace linocut
