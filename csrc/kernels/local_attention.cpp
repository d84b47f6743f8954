// With a dilation the sequence falls into strands, every dilation-th token, that do not see each other; each is a sequence
// with an ordinary window. A block of queries of a strand goes through the tiles of keys that any of them sees. The
// backward pass (Dao et al., FlashAttention, 2022, algorithm 4) takes the blocks of a strand one after another, since
// neighbouring ones add to the same keys.
#include "local_attention.hpp"

#include "threads.hpp"
#include "tile.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

using std::ptrdiff_t;

constexpr int kQueries = 64, kKeys = 64;
constexpr float kLow = -1e30f;  // below every score: a maximum to start from whose differences are numbers

// Every dilation-th token of one head: query a is token first_query + a * dilation and stands at key a + shift, key c is
// token first_key + c * dilation.
struct Strand {
  ptrdiff_t first_query, queries, first_key, keys, shift, behind, ahead;
  ptrdiff_t query_at, key_at, step;  // of the head in the tensors, and from one token of the strand to the next
  ptrdiff_t sums_at;

  Strand(const LocalAttention& job, ptrdiff_t index) {
    const ptrdiff_t rest = index % job.dilation, head = index / job.dilation % job.heads;
    const ptrdiff_t batch = index / job.dilation / job.heads, d = job.dilation, row = job.heads * job.dim;
    first_key = rest;
    keys = (job.keys - rest + d - 1) / d;
    first_query = (rest - job.before % d + d) % d;
    queries = first_query < job.queries ? (job.queries - first_query + d - 1) / d : 0;
    shift = (job.before + first_query - first_key) / d;
    behind = job.window - 1;
    ahead = job.causal ? 0 : job.window - 1;
    query_at = batch * job.queries * row + first_query * row + head * job.dim;
    key_at = batch * job.keys * row + first_key * row + head * job.dim;
    step = d * row;
    sums_at = (batch * job.heads + head) * job.queries + first_query;
  }
};

// A block of queries and a tile of keys that some of them see.
struct Meeting {
  ptrdiff_t query, key;
  int rows, columns;

  // The first key of the tile that a row sees, and the one after the last.
  LINOCUT_INLINE int from(const Strand& strand, int row) const {
    const ptrdiff_t first = query + row + strand.shift - strand.behind - key;
    return static_cast<int>(first < 0 ? 0 : first > columns ? columns : first);
  }
  LINOCUT_INLINE int to(const Strand& strand, int row) const {
    const ptrdiff_t end = query + row + strand.shift + strand.ahead + 1 - key;
    return static_cast<int>(end < 0 ? 0 : end > columns ? columns : end);
  }
  // Whether all rows see all of a tile of whole vectors.
  LINOCUT_INLINE bool is_whole(const Strand& strand) const {
    return columns % kLanes == 0 && from(strand, rows - 1) == 0 && to(strand, 0) == columns;
  }
};

// The keys that a block of queries goes through.
struct Span {
  ptrdiff_t first, end;

  Span(const Strand& strand, ptrdiff_t query, int rows) {
    first = query + strand.shift - strand.behind;
    end = query + rows - 1 + strand.shift + strand.ahead + 1;
    if (first < 0) first = 0;
    if (end > strand.keys) end = strand.keys;
  }
};

LINOCUT_INLINE int at_most(ptrdiff_t n, int limit) { return n < limit ? static_cast<int>(n) : limit; }

LINOCUT_INLINE float* take(float*& memory, ptrdiff_t floats) {
  float* part = memory;
  memory += (floats + 15) / 16 * 16;
  return part;
}

// Room for what left or right make of so many floats; they leave floats where they are.
template <class F>
LINOCUT_INLINE F* take_factors(float*& memory, ptrdiff_t floats) {
  return kIsPair<F> ? reinterpret_cast<F*>(take(memory, inner<F>(floats))) : nullptr;
}

LINOCUT_INLINE void scale_row(float* row, int n, float factor) {
  for (int j = 0; j < n; j += kLanes) store(row + j, load(row + j) * factor);
}

LINOCUT_INLINE void clear(float* tile, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; ++i) tile[i] = 0;
}

LINOCUT_INLINE float largest(vf v) {
  float result = v[0];
  for (int i = 1; i < kLanes; ++i) result = max(result, v[i]);
  return result;
}

LINOCUT_INLINE bool is_finite(const float* tile, ptrdiff_t n) {
  vf spoilt = splat(0.0f);
  for (ptrdiff_t i = 0; i < n; i += kLanes) spoilt += load(tile + i) * 0.0f;
  return sum(spoilt) == 0.0f;
}

// Tiles of a block; rows of queries and keys are `row` long, of scores kKeys. The last five are sides of products.
template <class F>
struct Tiles {
  int dim, row;
  float *q, *k, *v, *scores, *y, *tops, *sums;
  F *left_q, *left_k, *k_turned, *right_v, *left_scores;

  static ptrdiff_t floats(ptrdiff_t row) { return (3 * kQueries + 5 * kKeys) * row + 2 * kQueries * kKeys + 2 * kQueries; }

  Tiles(const LocalAttention& job, float*& memory)
      : dim(static_cast<int>(job.dim)), row(static_cast<int>(padded(static_cast<std::size_t>(job.dim)))) {
    q = take(memory, kQueries * row);
    k = take(memory, kKeys * row);
    v = take(memory, kKeys * row);
    scores = take(memory, kQueries * kKeys);
    y = take(memory, kQueries * row);
    tops = take(memory, kQueries);
    sums = take(memory, kQueries);
    left_q = take_factors<F>(memory, kQueries * row);
    left_k = take_factors<F>(memory, kKeys * row);
    k_turned = reinterpret_cast<F*>(take(memory, kKeys * inner<F>(row)));
    right_v = take_factors<F>(memory, kKeys * row);
    left_scores = take_factors<F>(memory, kQueries * kKeys);
  }

  // dim and row in factors
  LINOCUT_INLINE int dims() const { return static_cast<int>(inner<F>(dim)); }
  LINOCUT_INLINE int left_row() const { return static_cast<int>(inner<F>(row)); }
};

template <class T, class F>
LINOCUT_INLINE void pack_rows(const Tiles<F>& tiles, const void* tensor, ptrdiff_t at, ptrdiff_t step, ptrdiff_t first,
                              int rows, float* to) {
  pack(rows, tiles.dim, static_cast<const T*>(tensor) + at + first * step, step, to, tiles.row);
}

template <class T, class F>
LINOCUT_INLINE void pack_queries(const LocalAttention& job, const Strand& strand, const Tiles<F>& tiles,
                                 ptrdiff_t query, int rows) {
  pack_rows<T>(tiles, job.q, strand.query_at, strand.step, query, rows, tiles.q);
  scale_row(tiles.q, rows * tiles.row, job.scale);
}

// Rows of keys or values as the right side of a product with their transpose, by way of `between`.
template <class F>
LINOCUT_INLINE void turn(const Tiles<F>& tiles, int rows, const float* tile, F* between, F* to) {
  transpose(rows, tiles.dims(), left(rows, tiles.row, tile, tiles.row, between), tiles.left_row(), to, kKeys);
}

// The keys and values of a tile, and the scores of a block, as the left side, against it.
template <class T, class F>
void score(const LocalAttention& job, const Strand& strand, const Tiles<F>& tiles, const F* q, const Meeting& pair) {
  pack_rows<T>(tiles, job.k, strand.key_at, strand.step, pair.key, pair.columns, tiles.k);
  pack_rows<T>(tiles, job.v, strand.key_at, strand.step, pair.key, pair.columns, tiles.v);
  turn(tiles, pair.columns, tiles.k, tiles.left_k, tiles.k_turned);
  product<false>(pair.rows, static_cast<int>(padded(static_cast<std::size_t>(pair.columns))), tiles.dims(), q,
                 tiles.left_row(), 1, tiles.k_turned, kKeys, tiles.scores, kKeys);
}

// Puts a value where a row does not see a key, whatever stands there.
LINOCUT_INLINE void hide(const Strand& strand, const Meeting& pair, float* tile, float instead) {
  const vf lanes = __builtin_convertvector(lane_numbers(), vf);
  for (int i = 0; i < pair.rows; ++i) {
    const float from = static_cast<float>(pair.from(strand, i)), to = static_cast<float>(pair.to(strand, i));
    for (int j = 0; j < pair.columns; j += kLanes) {
      const vf column = lanes + static_cast<float>(j);
      const vf value = load(tile + i * kKeys + j);
      store(tile + i * kKeys + j, ((column >= from) & (column < to)) ? value : splat(instead));
    }
  }
}

// Turns scores into weights under the running maximum, and scales what was summed up before to it.
template <class F>
LINOCUT_INLINE void weigh(const Tiles<F>& tiles, const Meeting& pair) {
  for (int i = 0; i < pair.rows; ++i) {
    float* scores = tiles.scores + i * kKeys;
    vf top = load(scores);
    for (int j = kLanes; j < pair.columns; j += kLanes) top = max(load(scores + j), top);
    const float before = tiles.tops[i], now = max(largest(top), before);
    vf total = splat(0.0f);
    for (int j = 0; j < pair.columns; j += kLanes) {
      const vf weight = exp(load(scores + j) - now);
      store(scores + j, weight);
      total += weight;
    }
    const float factor = before == now ? 1.0f : exp(before - now);
    tiles.tops[i] = now;
    tiles.sums[i] = tiles.sums[i] * factor + sum(total);
    if (factor != 1.0f) scale_row(tiles.y + i * tiles.row, tiles.row, factor);
  }
}

// Adds the scores' tile times rows of keys or values, which `to_right` takes as the right side of the product. Where
// they are not all finite, what has no weight must not reach a row; then they are multiplied as floats.
template <class F>
LINOCUT_INLINE void add_products(const Strand& strand, const Tiles<F>& tiles, const Meeting& pair, bool together,
                                 const float* tile, float* to_rows, F* to_right) {
  const int row = tiles.row;
  if (together) {
    const F* weights = left(pair.rows, pair.columns, tiles.scores, kKeys, tiles.left_scores);
    product<true>(pair.rows, row, static_cast<int>(inner<F>(pair.columns)), weights, inner<F>(kKeys), 1,
                  right(pair.columns, row, tile, row, to_right), row, to_rows, row);
    return;
  }
  for (int i = 0; i < pair.rows; ++i) {
    const int from = pair.from(strand, i), to = pair.to(strand, i);
    if (from >= to) continue;
    product<true>(1, row, to - from, tiles.scores + i * kKeys + from, kKeys, 1, tile + from * row, row,
                  to_rows + i * row, row);
  }
}

template <class T, class F>
void block(const LocalAttention& job, const Strand& strand, const Tiles<F>& tiles, ptrdiff_t query, int rows) {
  pack_queries<T>(job, strand, tiles, query, rows);
  const F* q = left(rows, tiles.row, tiles.q, tiles.row, tiles.left_q);
  clear(tiles.y, rows * tiles.row);
  for (int i = 0; i < rows; ++i) {
    tiles.tops[i] = kLow;
    tiles.sums[i] = 0;
  }
  const Span span(strand, query, rows);
  for (ptrdiff_t key = span.first; key < span.end; key += kKeys) {
    const Meeting pair{query, key, rows, at_most(span.end - key, kKeys)};
    const bool whole = pair.is_whole(strand);
    score<T>(job, strand, tiles, q, pair);
    if (!whole) hide(strand, pair, tiles.scores, -__builtin_inff());
    weigh(tiles, pair);
    add_products(strand, tiles, pair, whole || is_finite(tiles.v, pair.columns * tiles.row), tiles.v, tiles.y,
                 tiles.right_v);
  }
  T* y = static_cast<T*>(job.y) + strand.query_at + query * strand.step;
  for (int i = 0; i < rows; ++i, y += strand.step) {
    for (int j = 0; j < tiles.dim; j += kLanes) {
      store_n(y + j, load(tiles.y + i * tiles.row + j) / tiles.sums[i], tiles.dim - j);
    }
    if (job.log_sum) {
      job.log_sum[strand.sums_at + (query + i) * job.dilation] = tiles.tops[i] + __builtin_logf(tiles.sums[i]);
    }
  }
}

template <class T>
void forward(const LocalAttention& job) {
  const ptrdiff_t blocks = ((job.queries + job.dilation - 1) / job.dilation + kQueries - 1) / kQueries;
  using F = Factor<T>;
  const Scratch scratch(job.threads, static_cast<std::size_t>(Tiles<F>::floats(job.dim + kLanes)));
  parallel_for(job.batch * job.heads * job.dilation * blocks, job.threads, [&](ptrdiff_t index, int thread) {
    const Strand strand(job, index / blocks);
    const ptrdiff_t query = index % blocks * kQueries;
    if (query >= strand.queries) return;
    float* memory = scratch.of(thread);
    block<T>(job, strand, Tiles<F>(job, memory), query, at_most(strand.queries - query, kQueries));
  });
}

// Tiles of the backward pass; those of the forward pass hold y's gradient in y, and in sums its product with y.
template <class F>
struct Grads {
  float *weights, *q, *sum;
  F *v_turned, *left_y, *right_y, *right_q, *right_weights;

  static ptrdiff_t floats(ptrdiff_t row) { return (2 * kKeys + 4 * kQueries) * row + 2 * kQueries * kKeys; }

  Grads(const Tiles<F>& tiles, float*& memory) {
    weights = take(memory, kQueries * kKeys);
    q = take(memory, kQueries * tiles.row);
    sum = take(memory, kKeys * tiles.row);
    v_turned = reinterpret_cast<F*>(take(memory, kKeys * inner<F>(tiles.row)));
    left_y = take_factors<F>(memory, kQueries * tiles.row);
    right_y = take_factors<F>(memory, kQueries * tiles.row);
    right_q = take_factors<F>(memory, kQueries * tiles.row);
    right_weights = take_factors<F>(memory, kQueries * kKeys);
  }
};

// Adds a tile to the gradients of keys or values.
template <class F>
LINOCUT_INLINE void add_rows(const Strand& strand, const Tiles<F>& tiles, const Meeting& pair, const float* tile,
                             float* grad) {
  grad += strand.key_at + pair.key * strand.step;
  for (int i = 0; i < pair.columns; ++i, grad += strand.step) {
    for (int j = 0; j < tiles.dim; j += kLanes) {
      const int left = tiles.dim - j;
      store_n(grad + j, load_n(grad + j, left) + load(tile + i * tiles.row + j), left);
    }
  }
}

// The sum over a pair's rows of weight times row, for each of its keys, in grads.sum; `rows` is the same as
// `from_rows`, as the right side of a product. Apart, a NaN in a row does not reach the keys that it does not see.
template <class F>
LINOCUT_INLINE void sum_rows(const Strand& strand, const Tiles<F>& tiles, const Grads<F>& grads, const Meeting& pair,
                             bool apart, const float* weights, const float* from_rows, const F* rows) {
  const int row = tiles.row;
  if (!apart) {
    product<false>(pair.columns, row, static_cast<int>(inner<F>(pair.rows)),
                   right(pair.rows, kKeys, weights, kKeys, grads.right_weights), 1, kKeys, rows, row, grads.sum, row);
    return;
  }
  clear(grads.sum, pair.columns * row);
  for (int i = 0; i < pair.rows; ++i) {
    const int from = pair.from(strand, i), to = pair.to(strand, i);
    if (from >= to) continue;
    product<true>(to - from, row, 1, weights + i * kKeys + from, 1, kKeys, from_rows + i * row, row,
                  grads.sum + from * row, row);
  }
}

// The weights of a pair from the scores, and then the scores' gradients in their place.
template <class F>
LINOCUT_INLINE void weigh_back(const Tiles<F>& tiles, const Grads<F>& grads, const F* y, const Meeting& pair) {
  const int columns = static_cast<int>(padded(static_cast<std::size_t>(pair.columns)));
  for (int i = 0; i < pair.rows; ++i) {
    for (int j = 0; j < pair.columns; j += kLanes) {
      store(grads.weights + i * kKeys + j, exp(load(tiles.scores + i * kKeys + j) - tiles.tops[i]));
    }
  }
  product<false>(pair.rows, columns, tiles.dims(), y, tiles.left_row(), 1, grads.v_turned, kKeys, tiles.scores, kKeys);
  for (int i = 0; i < pair.rows; ++i) {
    for (int j = 0; j < pair.columns; j += kLanes) {
      const ptrdiff_t at = i * kKeys + j;
      store(tiles.scores + at, load(grads.weights + at) * (load(tiles.scores + at) - tiles.sums[i]));
    }
  }
}

template <class T, class F>
void block_back(const LocalAttentionGrad& grad, const Strand& strand, const Tiles<F>& tiles, const Grads<F>& grads,
                ptrdiff_t query, int rows) {
  const LocalAttention& job = grad.forward;
  const int row = tiles.row;
  // y for a moment where q's gradient will be
  pack_rows<T>(tiles, job.y, strand.query_at, strand.step, query, rows, grads.q);
  pack_rows<T>(tiles, grad.grad_y, strand.query_at, strand.step, query, rows, tiles.y);
  for (int i = 0; i < rows; ++i) {
    vf total = splat(0.0f);
    for (int j = i * row; j < (i + 1) * row; j += kLanes) total += load(tiles.y + j) * load(grads.q + j);
    tiles.sums[i] = sum(total);
    tiles.tops[i] = job.log_sum[strand.sums_at + (query + i) * job.dilation];
  }
  pack_queries<T>(job, strand, tiles, query, rows);
  clear(grads.q, rows * row);
  const F *q = left(rows, row, tiles.q, row, tiles.left_q), *y = left(rows, row, tiles.y, row, grads.left_y);
  const F *right_q = right(rows, row, tiles.q, row, grads.right_q);
  const F *right_y = right(rows, row, tiles.y, row, grads.right_y);
  const bool are_finite = is_finite(tiles.q, rows * row) && is_finite(tiles.y, rows * row);
  const Span span(strand, query, rows);
  for (ptrdiff_t key = span.first; key < span.end; key += kKeys) {
    const Meeting pair{query, key, rows, at_most(span.end - key, kKeys)};
    score<T>(job, strand, tiles, q, pair);
    const bool whole = pair.is_whole(strand);
    if (!whole) hide(strand, pair, tiles.scores, -__builtin_inff());
    turn(tiles, pair.columns, tiles.v, tiles.left_k, grads.v_turned);
    weigh_back(tiles, grads, y, pair);
    if (!whole) {
      // 0 times NaN is no zero
      hide(strand, pair, grads.weights, 0.0f);
      hide(strand, pair, tiles.scores, 0.0f);
    }
    sum_rows(strand, tiles, grads, pair, !whole && !are_finite, grads.weights, tiles.y, right_y);
    add_rows(strand, tiles, pair, grads.sum, grad.grad_v);
    sum_rows(strand, tiles, grads, pair, !whole && !are_finite, tiles.scores, tiles.q, right_q);
    add_rows(strand, tiles, pair, grads.sum, grad.grad_k);
    add_products(strand, tiles, pair, whole || is_finite(tiles.k, pair.columns * row), tiles.k, grads.q, tiles.right_v);
  }
  T* out = static_cast<T*>(grad.grad_q) + strand.query_at + query * strand.step;
  for (int i = 0; i < rows; ++i, out += strand.step) {
    for (int j = 0; j < tiles.dim; j += kLanes) {
      store_n(out + j, load(grads.q + i * row + j) * job.scale, tiles.dim - j);
    }
  }
}

template <class T>
void backward(const LocalAttentionGrad& grad) {
  const LocalAttention& job = grad.forward;
  using F = Factor<T>;
  const ptrdiff_t row = job.dim + kLanes;
  const Scratch scratch(job.threads, static_cast<std::size_t>(Tiles<F>::floats(row) + Grads<F>::floats(row)));
  parallel_for(job.batch * job.heads * job.dilation, job.threads, [&](ptrdiff_t index, int thread) {
    const Strand strand(job, index);
    float* memory = scratch.of(thread);
    const Tiles<F> tiles(job, memory);
    const Grads<F> grads(tiles, memory);
    for (ptrdiff_t query = 0; query < strand.queries; query += kQueries) {
      block_back<T>(grad, strand, tiles, grads, query, at_most(strand.queries - query, kQueries));
    }
  });
}

}  // namespace

void local_attention(const LocalAttention& job) { job.half ? forward<bf16>(job) : forward<float>(job); }

void local_attention_grad(const LocalAttentionGrad& job) {
  job.forward.half ? backward<bf16>(job) : backward<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
