// What the two passes of chunked gated linear attention share: a chunk's tiles in cache and the decays inside of it.
#pragma once

#include "gated_linear_attention.hpp"
#include "tile.hpp"

namespace linocut::LINOCUT_ISA {

// Rows a chunk may have; how many it has is the kernels' choice.
constexpr int kMaxChunk = 64;

// Scores cost a chunk's length for every token, the state's way through the cache one over it; heads that share their
// scores shift the balance.
LINOCUT_INLINE int chunk_length(const GatedLinearAttention& job) { return job.heads > job.groups ? 64 : 32; }

// Normalisers are kept away from zero.
constexpr float kSmallest = 1e-6f;

template <FeatureMap map>
LINOCUT_INLINE vf mapped(vf x) {
  const vf zero = splat(0.0f);
  if (map == FeatureMap::elu_plus_one) return x > zero ? x + 1.0f : exp_negative(x);
  if (map == FeatureMap::relu) return x < zero ? zero : x;
  if (map == FeatureMap::exp) return exp(x);
  return x;
}

// The map's derivative, from its value.
LINOCUT_INLINE vf slope(FeatureMap map, vf value) {
  const vf zero = splat(0.0f), one = splat(1.0f);
  if (map == FeatureMap::elu_plus_one) return value > one ? one : value;
  if (map == FeatureMap::relu) return value > zero ? one : zero;
  return map == FeatureMap::exp ? value : one;
}

template <FeatureMap map, class T>
LINOCUT_INLINE void pack_with(int rows, int columns, const T* from, std::ptrdiff_t from_row, float* to,
                              std::ptrdiff_t to_row) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; j += kLanes) {
      const vf v = mapped<map>(load_n(from + i * from_row + j, columns - j));
      store(to + i * to_row + j, j + kLanes <= columns ? v : first_lanes(v, columns - j));
    }
  }
}

// As pack, through the feature map.
template <class T>
void pack_mapped(FeatureMap map, int rows, int columns, const T* from, std::ptrdiff_t from_row, float* to,
                 std::ptrdiff_t to_row) {
  switch (map) {
    case FeatureMap::elu_plus_one:
      return pack_with<FeatureMap::elu_plus_one>(rows, columns, from, from_row, to, to_row);
    case FeatureMap::relu: return pack_with<FeatureMap::relu>(rows, columns, from, from_row, to, to_row);
    case FeatureMap::exp: return pack_with<FeatureMap::exp>(rows, columns, from, from_row, to, to_row);
    default: return pack_with<FeatureMap::identity>(rows, columns, from, from_row, to, to_row);
  }
}

// Rows of values times the weight of their token.
template <class T>
LINOCUT_INLINE void pack_weighted(int rows, int columns, const T* from, std::ptrdiff_t from_row, const float* weight,
                                  std::ptrdiff_t weight_row, float* to, std::ptrdiff_t to_row) {
  for (int i = 0; i < rows; ++i) {
    const float factor = weight ? weight[i * weight_row] : 1.0f;
    for (int j = 0; j < columns; j += kLanes) {
      store(to + i * to_row + j, factor * load_n(from + i * from_row + j, columns - j));
    }
  }
}

LINOCUT_INLINE void scale_rows(int rows, int columns, const float* factors, const float* from, std::ptrdiff_t from_row,
                               float* to, std::ptrdiff_t to_row) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; j += kLanes) {
      store(to + i * to_row + j, factors[i] * load(from + i * from_row + j));
    }
  }
}

template <class T>
LINOCUT_INLINE void prefetch_rows(int rows, int columns, const T* from, std::ptrdiff_t from_row) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; j += 64 / static_cast<int>(sizeof(T))) __builtin_prefetch(from + i * from_row + j);
  }
}

LINOCUT_INLINE float dot(int n, const float* a, const float* b) {
  vf total = splat(0.0f);
  for (int j = 0; j < n; j += kLanes) total += load(a + j) * load(b + j);
  return sum(total);
}

// The decays between the tokens of a chunk, as products of factors in [0, 1]: unlike differences of cumulative
// logarithms they lose nothing next to a strong decay, and a decay of -infinity is a clean cut.
struct Decays {
  float before[kMaxChunk];              // from the state before the chunk to token t: the product over s <= t
  float after[kMaxChunk];               // from token s to the state after the chunk
  float total;                          // over the whole chunk
  float between[kMaxChunk * kMaxChunk]; // row t, column s: from s to t, 1 on the diagonal, 0 where s > t
};

// Row length of `between` and of scores.
constexpr int kScoreRow = kMaxChunk;

// A triangle is cut into blocks of so many rows.
constexpr int kBlockRows = 16;
static_assert(kBlockRows % kLanes == 0 && kMaxChunk % kBlockRows == 0);

LINOCUT_INLINE void fill(Decays& decays, int rows, const float* log_decay, std::ptrdiff_t stride) {
  float step[kMaxChunk] = {};
  for (int t = 0; t < rows; ++t) step[t] = log_decay[t * stride];
  for (int t = 0; t < rows; t += kLanes) store(step + t, exp(load(step + t)));
  float total = 1.0f;
  for (int t = 0; t < rows; ++t) decays.before[t] = total *= step[t];
  decays.total = total;
  const vi lanes = lane_numbers();
  for (int j = 0; j < rows; j += kLanes) {
    vf row = splat(0.0f);
    for (int t = j; t < rows; ++t) {
      row = lanes == vi{} + (t - j) ? splat(1.0f) : row * step[t];
      store(decays.between + t * kScoreRow + j, row);
    }
    store(decays.after + j, row);
  }
}

// scores[t][s] = q_tᵀ k_s for s <= t, from k transposed; columns beyond t up to whole vectors are filled with whatever.
// dim and q_row count factors.
template <class F>
LINOCUT_INLINE void causal_scores(int rows, int dim, const F* q, std::ptrdiff_t q_row, const F* k_transposed,
                                  float* scores) {
  for (int i = 0; i < rows; i += kBlockRows) {
    product<false>(rows - i < kBlockRows ? rows - i : kBlockRows, i + kBlockRows, dim, q + i * q_row, q_row, 1,
                   k_transposed, kScoreRow, scores + i * kScoreRow, kScoreRow);
  }
}

// Scores as the left side of a product; pairs with clean zeros beyond the diagonal, up to whole vectors.
LINOCUT_INLINE const float* left_scores(int, const float* scores, float*) { return scores; }

#if defined(__AVX512BF16__)
LINOCUT_INLINE const Pair* left_scores(int rows, const float* scores, Pair* to) {
  bf16* halves = &to->first;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j <= i; j += kLanes) {
      store(halves + i * kScoreRow + j, first_lanes(load(scores + i * kScoreRow + j), i + 1 - j));
    }
  }
  return to;
}

// As pack_weighted, for the right side of a product; rows of the result are `to_row` pairs long.
template <class T>
LINOCUT_INLINE void pack_weighted(int rows, int columns, const T* from, std::ptrdiff_t from_row, const float* weight,
                                  std::ptrdiff_t weight_row, Pair* to, std::ptrdiff_t to_row) {
  const vf none = splat(0.0f);
  for (int i = 0; i < rows; i += 2, from += 2 * from_row, to += to_row) {
    const bool both = i + 1 < rows;
    const float first = weight ? weight[i * weight_row] : 1.0f;
    const float second = weight && both ? weight[(i + 1) * weight_row] : 1.0f;
    for (int j = 0; j < columns; j += kLanes) {
      const vf below = both ? second * load_n(from + from_row + j, columns - j) : none;
      store(to + j, paired(first * load_n(from + j, columns - j), below));
    }
  }
}
#endif

}  // namespace linocut::LINOCUT_ISA
