// The gradient, from the last segment to the first. In a segment every head's states are worked out again from the
// checkpoint, then its chunks are taken in reverse. With P = Q Kᵀ, D the decays between tokens, S the state before a
// chunk, S' the gradient of the state after it, b and a the decays from S to a token and from a token to S':
//
//   dP = dY Vᵀ ∘ D                 dQ = dP K + b dY Sᵀ          dS  = D_total S' + (b dY)ᵀ Q (transposed)
//   dV = (P ∘ D)ᵀ dY + a K S'      dK = dPᵀ Q + a V S'ᵀ
//
// S, S' are kept transposed, (value, dim). A normaliser is one more column of V, all ones, whose dY is the gradient of
// the denominator; the gradient of a decay is the sum of what passes over it.
#include <type_traits>

#include "chunk.hpp"
#include "gated_linear_attention.hpp"
#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

struct Item {
  std::ptrdiff_t batch, group, begin, end;
};

// Tiles of floats; and of factors, what products take of them.
template <class F>
struct Tiles {
  int dim, value, columns;              // columns: value, and one for the normaliser
  int dim_row, value_row, column_row;   // row lengths of tiles
  float *q, *k, *grad_q, *grad_k;       // of a segment
  float *scores, *grad_scores;          // of every chunk of a segment, the latter summed over heads
  float *v, *grad_y, *kept, *read, *dp, *pd, *grad_v, *through;
  float *states, *grad_state, *grad_states;
  F *k_transposed, *v_transposed;
  F *left_q, *left_k, *right_q, *right_k;  // of a segment
  F *left_scores, *right_scores, *left_columns, *right_columns, *right_state;
  Decays decays;
  float normaliser[kMaxChunk];

  // Numbers of the inner dimension, as factors.
  static LINOCUT_INLINE int factors(int n) { return static_cast<int>(inner<F>(n)); }

  // Where the factors of a tile of a segment or a chunk begin that belong to a row.
  LINOCUT_INLINE std::ptrdiff_t left_at(std::ptrdiff_t row) const { return row * inner<F>(dim_row); }
  LINOCUT_INLINE std::ptrdiff_t right_at(std::ptrdiff_t row) const { return inner<F>(row) * dim_row; }
};

// Lays the tiles out from `base`; without one it only counts.
template <class F>
Tiles<F> tiles(const GatedLinearAttention& job, float* base, std::size_t* floats) {
  Tiles<F> t{};
  t.dim = static_cast<int>(job.dim), t.value = static_cast<int>(job.value), t.columns = t.value + job.normalize;
  t.dim_row = static_cast<int>(padded(t.dim)), t.value_row = static_cast<int>(padded(t.value));
  t.column_row = static_cast<int>(padded(t.columns));
  const std::size_t segment = job.segment, chunk = kMaxChunk, heads = job.heads / job.groups;
  const std::size_t dims = t.dim_row, columns = t.column_row, state = t.columns * dims;
  const std::size_t longest = t.columns > t.dim_row ? t.columns : t.dim_row;
  std::size_t used = 0;
  const auto take = [&](auto*& tile, std::size_t count) {
    if (base) tile = reinterpret_cast<std::remove_reference_t<decltype(tile)>>(base + used);
    used += (count + 15) / 16 * 16;
  };
  take(t.q, segment * dims), take(t.k, segment * dims), take(t.grad_q, segment * dims), take(t.grad_k, segment * dims);
  take(t.scores, segment * chunk), take(t.grad_scores, segment * chunk);
  take(t.dp, chunk * chunk), take(t.pd, chunk * chunk);
  take(t.v, chunk * columns), take(t.grad_y, chunk * columns), take(t.kept, chunk * columns);
  take(t.read, chunk * columns), take(t.grad_v, chunk * t.value_row), take(t.through, chunk * dims);
  take(t.grad_state, t.dim * static_cast<std::size_t>(t.value_row));
  take(t.states, segment / chunk_length(job) * state), take(t.grad_states, heads * state);
  take(t.k_transposed, chunk * inner<F>(dims)), take(t.v_transposed, chunk * inner<F>(columns));
  if (kIsPair<F>) {
    take(t.left_q, segment * inner<F>(dims)), take(t.left_k, segment * inner<F>(dims));
    take(t.right_q, inner<F>(segment) * dims), take(t.right_k, inner<F>(segment) * dims);
    take(t.left_scores, chunk * inner<F>(chunk)), take(t.right_scores, inner<F>(chunk) * chunk);
    take(t.left_columns, chunk * inner<F>(columns)), take(t.right_columns, inner<F>(chunk) * columns);
    take(t.right_state, inner<F>(longest) * (dims > columns ? dims : columns));
  }
  if (floats) *floats = used;
  return t;
}

// A chunk of one head: its place in the tensors and in the segment's tiles.
struct Chunk {
  int rows;
  std::ptrdiff_t token, head, in_segment;
};

// v times its weight, with a column of ones for the normaliser; the decays; v as it stays in the state.
template <class T, class F>
void load_values(const GatedLinearAttention& job, Tiles<F>& t, const Chunk& c) {
  const auto at = c.token * job.heads + c.head;
  pack_weighted(c.rows, t.value, static_cast<const T*>(job.v) + c.token * job.v_token + c.head * t.value, job.v_token,
                job.weight ? job.weight + at : nullptr, job.heads, t.v, t.column_row);
  for (int i = 0; i < c.rows && job.normalize; ++i) {
    for (int j = t.value; j < t.column_row; ++j) t.v[i * t.column_row + j] = j == t.value ? 1.0f : 0.0f;
  }
  if (!job.log_decay) return;
  fill(t.decays, c.rows, job.log_decay + at, job.heads);
  scale_rows(c.rows, t.column_row, t.decays.after, t.v, t.column_row, t.kept, t.column_row);
}

template <class T, class F>
void load_grads(const GatedLinearAttentionGrad& grad, Tiles<F>& t, const Chunk& c) {
  const auto& job = grad.forward;
  pack_weighted(c.rows, t.value, static_cast<const T*>(grad.grad_y) + (c.token * job.heads + c.head) * t.value,
                job.heads * job.value, nullptr, 0, t.grad_y, t.column_row);
}

// A tile of a segment, whole or as factors, from the row of a chunk on.
LINOCUT_INLINE const float* left_of(const Tiles<float>& t, const float* tile, const float*, std::ptrdiff_t row) {
  return tile + row * t.dim_row;
}
LINOCUT_INLINE const float* right_of(const Tiles<float>& t, const float* tile, const float*, std::ptrdiff_t row) {
  return tile + row * t.dim_row;
}
LINOCUT_INLINE const Pair* left_of(const Tiles<Pair>& t, const float*, const Pair* factors, std::ptrdiff_t row) {
  return factors + t.left_at(row);
}
LINOCUT_INLINE const Pair* right_of(const Tiles<Pair>& t, const float*, const Pair* factors, std::ptrdiff_t row) {
  return factors + t.right_at(row);
}

// keep * state + columnsᵀ rows for a state of (columns, dim).
template <class F>
LINOCUT_INLINE void add_outer(const Tiles<F>& t, const Chunk& c, float keep, const float* columns, const F* rows,
                              float* state) {
  product_onto(t.columns, t.dim_row, t.factors(c.rows), keep,
               right(c.rows, t.column_row, columns, t.column_row, t.right_columns), 1, t.column_row, rows, t.dim_row,
               state, t.dim_row);
}

// Adds what a chunk's outputs pass on to the state before it.
template <class F>
void pass_back(const GatedLinearAttention& job, const Tiles<F>& t, const Chunk& c, float* grad_state) {
  add_outer(t, c, job.log_decay ? t.decays.total : 1.0f, job.log_decay ? t.read : t.grad_y,
            right_of(t, t.q, t.right_q, c.in_segment), grad_state);
}

// P ∘ D of a chunk, with clean zeros where s > t.
template <class F>
void decayed_scores(const GatedLinearAttention& job, Tiles<F>& t, const Chunk& c) {
  const float* scores = t.scores + c.in_segment * kScoreRow;
  for (int i = 0; i < c.rows; ++i) {
    for (int j = 0; j < c.rows; j += kLanes) {
      vf value = splat(0.0f);
      if (j <= i) {
        value = first_lanes(load(scores + i * kScoreRow + j), i + 1 - j);
        if (job.log_decay) value *= load(t.decays.between + i * kScoreRow + j);
      }
      store(t.pd + i * kScoreRow + j, value);
    }
  }
}

// Turns the gradients of the outputs into those of numerator and denominator, and finishes `dp` and `through`.
template <class F>
void normalised(const GatedLinearAttention& job, Tiles<F>& t, const Chunk& c, const float* state) {
  const float* norm = state + t.value * t.dim_row;
  const float* q = t.q + c.in_segment * t.dim_row;
  for (int i = 0; i < c.rows; ++i) {
    vf weights = splat(0.0f);
    for (int j = 0; j <= i; j += kLanes) weights += load(t.pd + i * kScoreRow + j);
    const float before = job.log_decay ? t.decays.before[i] : 1.0f;
    const float value = sum(weights) + before * dot(t.dim_row, q + i * t.dim_row, norm);
    t.normaliser[i] = 1.0f / (value < kSmallest ? kSmallest : value);
  }
  scale_rows(c.rows, t.column_row, t.normaliser, t.grad_y, t.column_row, t.grad_y, t.column_row);
}

template <class F>
void denominators(const GatedLinearAttention& job, Tiles<F>& t, const Chunk& c, const float* state) {
  const float* norm = state + t.value * t.dim_row;
  const float* q = t.q + c.in_segment * t.dim_row;
  for (int i = 0; i < c.rows; ++i) {
    vf total = splat(0.0f);
    for (int j = 0; j <= i; j += kLanes) {
      const int at = i * kScoreRow + j;
      total += first_lanes(load(t.pd + at) * load(t.dp + at), i + 1 - j);
    }
    const float numerator = sum(total) + dot(t.dim_row, q + i * t.dim_row, t.through + i * t.dim_row);
    const float grad = t.normaliser[i] < 1.0f / kSmallest ? -t.normaliser[i] * numerator : 0.0f;
    t.grad_y[i * t.column_row + t.value] = grad;
    for (int j = 0; j <= i; j += kLanes) {
      store(t.dp + i * kScoreRow + j, load(t.dp + i * kScoreRow + j) + grad);
    }
    const float passed = job.log_decay ? grad * t.decays.before[i] : grad;
    if (job.log_decay) t.read[i * t.column_row + t.value] = passed;
    for (int j = 0; j < t.dim_row; j += kLanes) {
      float* to = t.through + i * t.dim_row + j;
      store(to, load(to) + passed * load(norm + j));
    }
  }
}

// The gradients of the logarithms of the decays: of every path from a token or the state to a later one, all that it
// carries, given to every decay on its way. Nothing is subtracted.
template <class F>
void decay_grads(const GatedLinearAttentionGrad& grad, Tiles<F>& t, const Chunk& c, const float* read, const float* kept,
                 float across) {
  float* to = grad.grad_log_decay + c.token * grad.forward.heads + c.head;
  vf paths[kMaxChunk / kLanes];
  for (int j = 0; j < kMaxChunk / kLanes; ++j) paths[j] = splat(0.0f);
  float later = across;
  for (int i = c.rows - 1; i >= 0; --i) {
    vf over = splat(0.0f);
    for (int j = 0; j <= i; j += kLanes) {
      const int at = i * kScoreRow + j;
      vf& path = paths[j / kLanes];
      path += first_lanes(load(t.pd + at) * load(t.dp + at), i + 1 - j);
      over += first_lanes(path, i - j);
    }
    later += read[i];
    to[i * grad.forward.heads] = later + sum(over);
  }
  float earlier = 0.0f;
  for (int i = 0; i < c.rows; ++i) {
    to[i * grad.forward.heads] += earlier;
    earlier += kept[i];
  }
}

// Adds the rows of `through` to the segment's gradients, and gives their products with the rows of `with`.
template <class F>
LINOCUT_INLINE void add_through(const Tiles<F>& t, int rows, const float* with, float* to, float* products) {
  for (int i = 0; i < rows; ++i) {
    vf total = splat(0.0f);
    for (int j = 0; j < t.dim_row; j += kLanes) {
      const vf value = load(t.through + i * t.dim_row + j);
      total += value * load(with + i * t.dim_row + j);
      store(to + i * t.dim_row + j, load(to + i * t.dim_row + j) + value);
    }
    if (products) products[i] = sum(total);
  }
}

template <class T, class F>
void value_grads(const GatedLinearAttentionGrad& grad, Tiles<F>& t, const Chunk& c) {
  const auto& job = grad.forward;
  product<false>(c.rows, t.value_row, t.factors(t.dim), left_of(t, t.k, t.left_k, c.in_segment), t.left_at(1), 1,
                 right(t.dim, t.value_row, t.grad_state, t.value_row, t.right_state), t.value_row, t.grad_v,
                 t.value_row);
  if (job.log_decay) scale_rows(c.rows, t.value_row, t.decays.after, t.grad_v, t.value_row, t.grad_v, t.value_row);
  const F* pd = right(c.rows, c.rows, t.pd, kScoreRow, t.right_scores);
  const F* grad_y = right(c.rows, t.value_row, t.grad_y, t.column_row, t.right_columns);
  for (int i = 0; i < c.rows; i += kBlockRows) {
    product<true>(c.rows - i < kBlockRows ? c.rows - i : kBlockRows, t.value_row, t.factors(c.rows - i),
                  pd + t.factors(i) * kScoreRow + i, 1, kScoreRow, grad_y + t.factors(i) * t.column_row, t.column_row,
                  t.grad_v + i * t.value_row, t.value_row);
  }
  const auto at = c.token * job.heads + c.head;
  const T* v = static_cast<const T*>(job.v) + c.token * job.v_token + c.head * t.value;
  T* to = static_cast<T*>(grad.grad_v) + at * t.value;
  for (int i = 0; i < c.rows; ++i, v += job.v_token, to += job.heads * t.value) {
    const float weight = job.weight ? job.weight[at + i * job.heads] : 1.0f, skip = job.skip ? job.skip[c.head] : 0.0f;
    vf of_weight = splat(0.0f), of_skip = splat(0.0f);
    for (int j = 0; j < t.value; j += kLanes) {
      const vf gradient = load(t.grad_v + i * t.value_row + j);
      if (!job.weight && !job.skip) {
        store_n(to + j, gradient, t.value - j);
        continue;
      }
      const vf value = load_n(v + j, t.value - j), output = load(t.grad_y + i * t.column_row + j);
      of_weight += first_lanes(gradient, t.value - j) * value, of_skip += output * value;
      store_n(to + j, weight * gradient + skip * output, t.value - j);
    }
    if (job.weight) grad.grad_weight[at + i * job.heads] = sum(of_weight);
    if (job.skip) grad.grad_skip[at + i * job.heads] = sum(of_skip);
  }
}

template <class T, class F>
void chunk_grads(const GatedLinearAttentionGrad& grad, Tiles<F>& t, const Chunk& c, const float* state,
                 float* grad_state, bool first_head) {
  const auto& job = grad.forward;
  const float *q = t.q + c.in_segment * t.dim_row, *k = t.k + c.in_segment * t.dim_row;
  load_values<T>(job, t, c);
  load_grads<T>(grad, t, c);
  decayed_scores(job, t, c);
  if (job.normalize) normalised(job, t, c, state);
  const float *read = t.grad_y, *kept = t.v;
  if (job.log_decay) {
    scale_rows(c.rows, t.column_row, t.decays.before, t.grad_y, t.column_row, t.read, t.column_row);
    read = t.read, kept = t.kept;
  }
  const int value = t.factors(t.value), column_row = t.factors(t.column_row);
  transpose(c.rows, value, left(c.rows, t.value, t.v, t.column_row, t.left_columns), column_row, t.v_transposed,
            kScoreRow);
  causal_scores(c.rows, value, left(c.rows, t.value, t.grad_y, t.column_row, t.left_columns), column_row,
                t.v_transposed, t.dp);
  product<false>(c.rows, t.dim_row, value, left(c.rows, t.value, read, t.column_row, t.left_columns), column_row, 1,
                 right(t.value, t.dim_row, state, t.dim_row, t.right_state), t.dim_row, t.through, t.dim_row);
  if (job.normalize) denominators(job, t, c, state);
  float of_read[kMaxChunk], of_kept[kMaxChunk];
  add_through(t, c.rows, q, t.grad_q + c.in_segment * t.dim_row, job.log_decay ? of_read : nullptr);
  for (int i = 0; i < c.rows; ++i) {
    for (int j = 0; j < c.rows; j += kLanes) {
      const int at = i * kScoreRow + j;
      float* to = t.grad_scores + c.in_segment * kScoreRow + at;
      vf value = j <= i ? first_lanes(load(t.dp + at), i + 1 - j) : splat(0.0f);
      if (job.log_decay) value *= load(t.decays.between + at);
      store(to, first_head ? value : load(to) + value);
    }
  }
  transpose(t.value, t.dim, grad_state, t.dim_row, t.grad_state, t.value_row);
  value_grads<T>(grad, t, c);
  product<false>(c.rows, t.dim_row, t.factors(t.columns),
                 left(c.rows, t.columns, kept, t.column_row, t.left_columns), column_row, 1,
                 right(t.columns, t.dim_row, grad_state, t.dim_row, t.right_state), t.dim_row, t.through, t.dim_row);
  add_through(t, c.rows, k, t.grad_k + c.in_segment * t.dim_row, job.log_decay ? of_kept : nullptr);
  if (job.log_decay) {
    decay_grads(grad, t, c, of_read, of_kept, t.decays.total * dot(t.columns * t.dim_row, state, grad_state));
  }
  pass_back(job, t, c, grad_state);
}

template <class T, class F>
void head_grads(const GatedLinearAttentionGrad& grad, Tiles<F>& t, const Item& item, std::ptrdiff_t start, int rows,
                std::ptrdiff_t h, std::ptrdiff_t heads) {
  const auto& job = grad.forward;
  const int chunk = chunk_length(job), chunks = (rows + chunk - 1) / chunk;
  const auto segments = (job.length + job.segment - 1) / job.segment, head = item.group * heads + h;
  const auto size = static_cast<std::ptrdiff_t>(t.columns) * t.dim_row;
  const auto chunk_at = [&](int i) {
    const int from = i * chunk;
    return Chunk{rows - from < chunk ? rows - from : chunk, item.batch * job.length + start + from, head, from};
  };
  pack(t.columns, t.dim, job.checkpoints + ((item.batch * segments + start / job.segment) * job.heads + head) *
                                               t.columns * t.dim, t.dim, t.states, t.dim_row);
  for (int i = 0; i + 1 < chunks; ++i) {
    const Chunk c = chunk_at(i);
    load_values<T>(job, t, c);
    float* next = t.states + (i + 1) * size;
    std::memcpy(next, next - size, sizeof(float) * size);
    add_outer(t, c, job.log_decay ? t.decays.total : 1.0f, job.log_decay ? t.kept : t.v,
              right_of(t, t.k, t.right_k, c.in_segment), next);
  }
  for (int i = chunks - 1; i >= 0; --i) {
    chunk_grads<T>(grad, t, chunk_at(i), t.states + i * size, t.grad_states + h * size, h == 0);
  }
}

// What the heads of a group share: dQ and dK from the sum of their dP, then back through the feature map.
template <class T, class F>
void shared_grads(const GatedLinearAttentionGrad& grad, Tiles<F>& t, const Item& item, std::ptrdiff_t start, int rows) {
  const auto& job = grad.forward;
  const int chunk = chunk_length(job);
  for (int from = 0; from < rows; from += chunk) {
    const int count = rows - from < chunk ? rows - from : chunk;
    const float* scores = t.grad_scores + from * kScoreRow;
    const F* row_scores = left(count, count, scores, kScoreRow, t.left_scores);
    const F* column_scores = right(count, count, scores, kScoreRow, t.right_scores);
    const F *k = right_of(t, t.k, t.right_k, from), *q = right_of(t, t.q, t.right_q, from);
    for (int i = 0; i < count; i += kBlockRows) {
      const int block = count - i < kBlockRows ? count - i : kBlockRows, at = (from + i) * t.dim_row;
      product<true>(block, t.dim_row, t.factors(i + block), row_scores + i * inner<F>(kScoreRow), inner<F>(kScoreRow),
                    1, k, t.dim_row, t.grad_q + at, t.dim_row);
      product<true>(block, t.dim_row, t.factors(count - i), column_scores + t.factors(i) * kScoreRow + i, 1, kScoreRow,
                    q + t.right_at(i), t.dim_row, t.grad_k + at, t.dim_row);
    }
  }
  const auto at = ((item.batch * job.length + start) * job.groups + item.group) * t.dim;
  T *grad_q = static_cast<T*>(grad.grad_q) + at, *grad_k = static_cast<T*>(grad.grad_k) + at;
  for (int i = 0; i < rows; ++i, grad_q += job.groups * t.dim, grad_k += job.groups * t.dim) {
    for (int j = 0; j < t.dim; j += kLanes) {
      const int tile = i * t.dim_row + j;
      store_n(grad_q + j, load(t.grad_q + tile) * slope(job.map, load(t.q + tile)), t.dim - j);
      store_n(grad_k + j, load(t.grad_k + tile) * slope(job.map, load(t.k + tile)), t.dim - j);
    }
  }
}

template <class T, class F>
void run(const GatedLinearAttentionGrad& grad, Tiles<F>& t, const Item& item) {
  const auto& job = grad.forward;
  const auto heads = job.heads / job.groups;
  const int chunk = chunk_length(job);
  for (auto end = item.end; end > item.begin;) {
    const auto start = (end - 1) / job.segment * job.segment;
    const int rows = static_cast<int>(end - start);
    const auto token = item.batch * job.length + start;
    pack_mapped(job.map, rows, t.dim, static_cast<const T*>(job.q) + token * job.q_token + item.group * t.dim,
                job.q_token, t.q, t.dim_row);
    pack_mapped(job.map, rows, t.dim, static_cast<const T*>(job.k) + token * job.k_token + item.group * t.dim,
                job.k_token, t.k, t.dim_row);
    left(rows, t.dim_row, t.q, t.dim_row, t.left_q), left(rows, t.dim_row, t.k, t.dim_row, t.left_k);
    right(rows, t.dim_row, t.q, t.dim_row, t.right_q), right(rows, t.dim_row, t.k, t.dim_row, t.right_k);
    const int dim = t.factors(t.dim), row = t.factors(t.dim_row);
    for (int from = 0; from < rows; from += chunk) {
      const int count = rows - from < chunk ? rows - from : chunk;
      transpose(count, dim, left_of(t, t.k, t.left_k, from), row, t.k_transposed, kScoreRow);
      causal_scores(count, dim, left_of(t, t.q, t.left_q, from), row, t.k_transposed, t.scores + from * kScoreRow);
    }
    std::memset(t.grad_q, 0, sizeof(float) * rows * t.dim_row);
    std::memset(t.grad_k, 0, sizeof(float) * rows * t.dim_row);
    for (std::ptrdiff_t h = 0; h < heads; ++h) head_grads<T>(grad, t, item, start, rows, h, heads);
    shared_grads<T>(grad, t, item, start, rows);
    end = start;
  }
}

// The gradient that an item's outputs send to the state before it, added up from zero; its decays multiply up in total.
template <class T, class F>
void run_states(const GatedLinearAttentionGrad& grad, Tiles<F>& t, const Item& item, float* grad_states, float* total) {
  const auto& job = grad.forward;
  const auto heads = job.heads / job.groups, size = static_cast<std::ptrdiff_t>(t.columns) * t.dim_row;
  const int chunk = chunk_length(job);
  for (auto end = item.end; end > item.begin;) {
    const auto start = (end - 1) / chunk * chunk, token = item.batch * job.length + start;
    const int rows = static_cast<int>(end - start);
    pack_mapped(job.map, rows, t.dim, static_cast<const T*>(job.q) + token * job.q_token + item.group * t.dim,
                job.q_token, t.q, t.dim_row);
    right(rows, t.dim_row, t.q, t.dim_row, t.right_q);
    for (std::ptrdiff_t h = 0; h < heads; ++h) {
      const Chunk c{rows, token, item.group * heads + h, 0};
      load_grads<T>(grad, t, c);
      if (job.log_decay) {
        fill(t.decays, rows, job.log_decay + token * job.heads + c.head, job.heads);
        scale_rows(rows, t.column_row, t.decays.before, t.grad_y, t.column_row, t.read, t.column_row);
        total[h] *= t.decays.total;
      }
      pass_back(job, t, c, grad_states + h * size);
    }
    end = start;
  }
}

template <class F>
void load_state_grads(const GatedLinearAttentionGrad& grad, const Tiles<F>& t, const Item& item) {
  const auto& job = grad.forward;
  const auto heads = job.heads / job.groups;
  std::memset(t.grad_states, 0, sizeof(float) * heads * t.columns * t.dim_row);
  for (std::ptrdiff_t h = 0; h < heads; ++h) {
    const auto head = item.batch * job.heads + item.group * heads + h;
    float* to = t.grad_states + h * t.columns * t.dim_row;
    if (grad.grad_last) {
      transpose(t.dim, t.value, grad.grad_last + head * t.dim * t.value, t.value, to, t.dim_row);
    }
    if (job.normalize && grad.grad_last_norm) {
      std::memcpy(to + t.value * t.dim_row, grad.grad_last_norm + head * t.dim, sizeof(float) * t.dim);
    }
  }
}

template <class F>
void store_state_grads(const GatedLinearAttentionGrad& grad, const Tiles<F>& t, const Item& item) {
  const auto& job = grad.forward;
  const auto heads = job.heads / job.groups;
  for (std::ptrdiff_t h = 0; h < heads; ++h) {
    const auto head = item.batch * job.heads + item.group * heads + h;
    const float* from = t.grad_states + h * t.columns * t.dim_row;
    transpose(t.value, t.dim, from, t.dim_row, grad.grad_state + head * t.dim * t.value, t.value);
    if (job.normalize) {
      std::memcpy(grad.grad_norm + head * t.dim, from + t.value * t.dim_row, sizeof(float) * t.dim);
    }
  }
}

// Fewer groups than threads: pieces of whole segments, whose gradient of the last state is found before. With a
// normaliser that would take the denominators, so its groups are not cut.
std::ptrdiff_t piece_length(const GatedLinearAttention& job) {
  const auto groups = job.batch * job.groups;
  if (groups >= job.threads || job.normalize || job.length <= job.segment) return job.length;
  const auto wanted = (job.threads + groups - 1) / groups;
  return ((job.length + wanted - 1) / wanted + job.segment - 1) / job.segment * job.segment;
}

template <class T>
void backward(const GatedLinearAttentionGrad& grad) {
  using F = Factor<T>;
  const auto& job = grad.forward;
  const auto piece = piece_length(job), pieces = piece > 0 ? (job.length + piece - 1) / piece : 1;
  const auto groups = job.batch * job.groups, heads = job.heads / job.groups;
  std::size_t floats = 0;
  const Tiles<F> sizes = tiles<F>(job, nullptr, &floats);
  const Scratch scratch(job.threads, floats);
  // for every piece but the last: what later pieces send to the state after it; then every piece's decays
  const auto size = heads * sizes.columns * sizes.dim_row;
  const Scratch buffer(1, pieces > 1 ? pieces * groups * (size + heads) : 0);
  float *const sent = buffer.of(0), *const totals = sent + (pieces > 1 ? pieces * groups * size : 0);
  const auto item_at = [&](std::ptrdiff_t group, std::ptrdiff_t number) {
    const auto end = (number + 1) * piece;
    return Item{group / job.groups, group % job.groups, number * piece, end < job.length ? end : job.length};
  };
  if (pieces > 1) {
    parallel_for(groups * (pieces - 1), job.threads, [&](std::ptrdiff_t index, int thread) {
      Tiles<F> t = tiles<F>(job, scratch.of(thread), nullptr);
      const auto group = index / (pieces - 1), number = index % (pieces - 1) + 1;
      float *to = sent + ((number - 1) * groups + group) * size, *total = totals + (number * groups + group) * heads;
      std::memset(to, 0, sizeof(float) * size);
      for (std::ptrdiff_t h = 0; h < heads; ++h) total[h] = 1.0f;
      run_states<T>(grad, t, item_at(group, number), to, total);
    });
  }
  parallel_for(groups * pieces, job.threads, [&](std::ptrdiff_t index, int thread) {
    Tiles<F> t = tiles<F>(job, scratch.of(thread), nullptr);
    const auto group = index / pieces, number = pieces - 1 - index % pieces;
    const Item item = item_at(group, number);
    load_state_grads(grad, t, item);
    for (auto later = pieces - 1; later > number; --later) {
      const float *total = totals + (later * groups + group) * heads, *from = sent + ((later - 1) * groups + group) * size;
      for (std::ptrdiff_t i = 0; i < size; ++i) t.grad_states[i] = total[i / (size / heads)] * t.grad_states[i] + from[i];
    }
    run<T>(grad, t, item);
    if (item.begin == 0) store_state_grads(grad, t, item);
  });
}

}  // namespace

void gated_linear_attention_grad(const GatedLinearAttentionGrad& job) {
  if (job.forward.batch * job.forward.groups == 0) return;  // there is nothing to deal out
  job.forward.half ? backward<bf16>(job) : backward<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
