// Attention over a set in linear time: φ(k) summed against v in blocks that stay in cache, φ(q) read against the sums.
#pragma once

#include <cstddef>

#include "isa.hpp"

namespace linocut {

// φ. The last two are exponentials that are stabilised: keys by a running maximum for every feature, queries by
// their own maximum. random_features is exp(P x - norm |x|²), the others work channel by channel.
enum class FeatureMap { identity, elu_plus_one, relu, exp, stable_exp, random_features };

// Queries, keys or values: (batch, length, heads, dim), float or bf16, the last stride 1.
struct Tokens {
  const void* data;
  std::ptrdiff_t batch, length, heads;  // strides in elements
};

struct SetAttention {
  std::ptrdiff_t batch, length, heads, dim, features, value;
  bool half;  // tokens, outputs and their gradients are bf16; summaries are always float
  FeatureMap map;
  const float* projection;  // P, (features, dim), of random_features
  float norm;
  int threads;
};

// kv (batch, heads, features, value) = Σ φ(k) vᵀ, z (batch, heads, features) = Σ φ(k), and for stabilised maps the
// maximum m (batch, heads, features) of the exponents, which is -infinity without tokens.
struct SetSummarize {
  SetAttention shape;
  Tokens k, v;
  float *kv, *z, *m;
};

// The gradients of k and v, contiguous, from those of kv and z and the m that was found.
struct SetSummarizeGrad {
  SetAttention shape;
  Tokens k, v;
  const float *m, *grad_kv, *grad_z;
  void *grad_k, *grad_v;
};

// y (batch, length, heads, value), contiguous, = φ(q) kv / max(φ(q) z, floor); not divided where z is absent. For
// stabilised maps m, if there, is added to the exponents.
struct SetRead {
  SetAttention shape;
  Tokens q;
  const float *kv, *z, *m;
  void* y;
};

// The gradients of q, kv and z from that of y; y and grad_y contiguous. m has none: it cancels.
struct SetReadGrad {
  SetRead forward;
  const void* grad_y;
  void* grad_q;
  float *grad_kv, *grad_z;
};

// The random features themselves, (batch, length, heads, features): f = exp(u - top), u = P x - norm |x|², and top
// (batch, length, heads) = max u. The gradient leaves top alone.
struct RandomFeatures {
  SetAttention shape;
  Tokens x;
  void* f;
  float* top;
};

struct RandomFeaturesGrad {
  SetAttention shape;
  Tokens x;
  const void *f, *grad_f;
  void* grad_x;
};

LINOCUT_EACH_ISA(void set_summarize(const SetSummarize& job); void set_summarize_grad(const SetSummarizeGrad& job);
                 void set_read(const SetRead& job); void set_read_grad(const SetReadGrad& job);
                 void random_features(const RandomFeatures& job);
                 void random_features_grad(const RandomFeaturesGrad& job);)

}  // namespace linocut
