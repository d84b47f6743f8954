// In a chunk with the state S before it, the cumulative log decay G and D_ij = exp(G_i - G_j):
//
//   u_i = beta_i r_i,  r_i = v_i - exp(G_i) Sᵀ k_i - sum over j < i of D_ij (k_i · k_j) u_j
//   y_i = exp(G_i) Sᵀ q_i + sum over j <= i of D_ij (q_i · k_j) u_j
//   S' = exp(G_last) S + sum over j of exp(G_last - G_j) k_j u_jᵀ
//
// so r and u come from forward substitution (the WY form of a product of Householder-like maps), and all else are
// products of tiles. Only differences of G are exponentiated, none of them positive. The backward pass goes through
// segments from the last to the first: it runs the chunks of one forwards from the state kept before it, then all of
// them backwards.
#include "gated_delta_rule.hpp"

#include "threads.hpp"
#include "triangular.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

using std::ptrdiff_t;

constexpr int kChunk = 32;
constexpr double kForget = -200.0;  // exp of it is zero in single precision, and sums of it are no infinities

struct Shape {
  int dim, value, dim_row, value_row;  // rows of tiles are padded to whole vectors
  ptrdiff_t state;                     // floats of a state's tile

  explicit Shape(const GatedDeltaRule& job)
      : dim(static_cast<int>(job.dim)),
        value(static_cast<int>(job.value)),
        dim_row(static_cast<int>(padded(static_cast<std::size_t>(job.dim)))),
        value_row(static_cast<int>(padded(static_cast<std::size_t>(job.value)))),
        state(job.dim * value_row) {}
};

// Deals out a thread's scratch.
LINOCUT_INLINE float* take(float*& memory, ptrdiff_t floats) {
  float* part = memory;
  memory += (floats + 15) / 16 * 16;
  return part;
}

// What the chunk's tokens are on their own and what they write; rows of `scores` tiles are kChunk long.
struct Chunk {
  float *q, *k, *k_turned;         // (rows, dim), (rows, dim), (dim, rows)
  float *reads, *overlaps, *decay;  // D_ij q_i · k_j for j <= i, D_ij k_i · k_j for j < i, D_ij for j <= i
  float *r, *u;                    // (rows, value)
  float *beta, *since, *until;     // beta_i, exp(G_i), exp(G_last - G_i)

  static ptrdiff_t floats(const Shape& shape) {
    return kChunk * (3 * shape.dim_row + 3 * kChunk + 2 * shape.value_row + 3);
  }

  Chunk() = default;
  Chunk(const Shape& shape, float*& memory) {
    q = take(memory, kChunk * shape.dim_row);
    k = take(memory, kChunk * shape.dim_row);
    k_turned = take(memory, kChunk * shape.dim_row);
    reads = take(memory, kChunk * kChunk);
    overlaps = take(memory, kChunk * kChunk);
    decay = take(memory, kChunk * kChunk);
    r = take(memory, kChunk * shape.value_row);
    u = take(memory, kChunk * shape.value_row);
    beta = take(memory, kChunk);
    since = take(memory, kChunk);
    until = take(memory, kChunk);
  }
};

LINOCUT_INLINE void scale_row(float* row, int n, float factor) {
  for (int j = 0; j < n; j += kLanes) store(row + j, load(row + j) * factor);
}

LINOCUT_INLINE void clear(float* tile, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; ++i) tile[i] = 0;
}

LINOCUT_INLINE float dot_row(const float* a, const float* b, int n) {
  vf total = splat(0.0f);
  for (int j = 0; j < n; j += kLanes) total += load(a + j) * load(b + j);
  return sum(total);
}

LINOCUT_INLINE void load_state(const Shape& shape, const float* from, float* to) {
  pack(shape.dim, shape.value, from, shape.value, to, shape.value_row);
}

LINOCUT_INLINE void store_state(const Shape& shape, const float* from, float* to) {
  for (int i = 0; i < shape.dim; ++i) {
    for (int j = 0; j < shape.value; j += kLanes) {
      store_n(to + i * shape.value + j, load(from + i * shape.value_row + j), shape.value - j);
    }
  }
}

// The decays of a chunk. The cumulative sum is kept in two floats: after a token that forgets almost everything the
// differences of what follows are as exact as before it.
LINOCUT_INLINE void decays(const Chunk& chunk, int rows, const float* log_decay, const float* beta, ptrdiff_t step) {
  alignas(64) float high[kChunk] = {}, low[kChunk] = {}, lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<float>(i);
  double total = 0;
  for (int i = 0; i < rows; ++i) {
    const double x = log_decay[i * step];
    total += x < kForget ? kForget : x;
    high[i] = static_cast<float>(total);
    low[i] = static_cast<float>(total - high[i]);
    chunk.beta[i] = beta[i * step];
  }
  const vf lane = load(lanes), zero = splat(0.0f);
  for (int j = 0; j < rows; j += kLanes) {
    store(chunk.since + j, exp(load(high + j)));
    store(chunk.until + j, exp((high[rows - 1] - load(high + j)) + (low[rows - 1] - load(low + j))));
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j <= i; j += kLanes) {
      const vf column = lane + static_cast<float>(j);
      const auto before = column < static_cast<float>(i), seen = column <= static_cast<float>(i);
      const vf gap = (high[i] - load(high + j)) + (low[i] - load(low + j));
      const vf factor = seen ? exp(seen ? gap : zero) : zero;
      const ptrdiff_t at = i * kChunk + j;
      store(chunk.decay + at, factor);
      store(chunk.reads + at, seen ? factor * load(chunk.reads + at) : zero);
      store(chunk.overlaps + at, before ? factor * load(chunk.overlaps + at) : zero);
    }
  }
}

// Where the tokens of a chunk lie in the tensors.
struct Place {
  ptrdiff_t keys, values, scalars;

  Place(const GatedDeltaRule& job, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t t) {
    const ptrdiff_t token = batch * job.length + t;
    keys = (token * job.groups + head / (job.heads / job.groups)) * job.dim;
    values = (token * job.heads + head) * job.value;
    scalars = token * job.heads + head;
  }
};

// a · bᵀ from b turned, as far as the diagonal.
LINOCUT_INLINE void scores(int rows, int dim, const float* a, ptrdiff_t a_row, const float* b_turned, float* result) {
  constexpr int kStep = 16;
  for (int i = 0; i < rows; i += kStep) {
    const int some = rows - i < kStep ? rows - i : kStep;
    const int columns = static_cast<int>(padded(static_cast<std::size_t>(i + some)));
    product<false>(some, columns, dim, a + i * a_row, a_row, 1, b_turned, kChunk, result + i * kChunk, kChunk);
  }
}

// Rows of the next chunk, asked for while this one is worked on: those of one head lie too far apart for the processor
// to see them coming.
class Ahead {
 public:
  Ahead(const void* first, ptrdiff_t step, ptrdiff_t bytes, int rows)
      : first_(static_cast<const char*>(first)), step_(step), bytes_(bytes), rows_(rows) {}

  // The rows that fall to part `from` up to part `to` of `parts`.
  LINOCUT_INLINE void fetch(int from, int to, int parts) const {
    for (int row = rows_ * from / parts; row < rows_ * to / parts; ++row) {
      for (ptrdiff_t at = 0; at < bytes_; at += 64) __builtin_prefetch(first_ + row * step_ + at);
    }
  }

 private:
  const char* first_;
  ptrdiff_t step_, bytes_;
  int rows_;
};

template <bool Accumulate>
LINOCUT_INLINE void product_and_fetch(int m, int n, int k, const float* a, ptrdiff_t a_row, ptrdiff_t a_col,
                                      const float* b, ptrdiff_t b_row, float* c, ptrdiff_t c_row, const Ahead& ahead) {
  for (int i = 0; i < m; i += kTileRows) {
    const int some = m - i < kTileRows ? m - i : kTileRows;
    product<Accumulate>(some, n, k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
    ahead.fetch(i, i + some, m);
  }
}

// Everything up to u, given the state before the chunk.
template <class T>
void write(const GatedDeltaRule& job, const Shape& shape, const Chunk& chunk, const Place& place, int rows,
           const float* state, const Ahead& ahead) {
  const ptrdiff_t key_step = job.groups * job.dim, value_step = job.heads * job.value;
  pack(rows, shape.dim, static_cast<const T*>(job.q) + place.keys, key_step, chunk.q, shape.dim_row);
  pack(rows, shape.dim, static_cast<const T*>(job.k) + place.keys, key_step, chunk.k, shape.dim_row);
  transpose(rows, shape.dim, chunk.k, shape.dim_row, chunk.k_turned, kChunk);
  scores(rows, shape.dim, chunk.q, shape.dim_row, chunk.k_turned, chunk.reads);
  scores(rows, shape.dim, chunk.k, shape.dim_row, chunk.k_turned, chunk.overlaps);
  decays(chunk, rows, job.log_decay + place.scalars, job.beta + place.scalars, job.heads);
  product_and_fetch<false>(rows, shape.value_row, shape.dim, chunk.k, shape.dim_row, 1, state, shape.value_row,
                           chunk.r, shape.value_row, ahead);
  const T* v = static_cast<const T*>(job.v) + place.values;
  for (int i = 0; i < rows; ++i, v += value_step) {
    float* r = chunk.r + i * shape.value_row;
    for (int j = 0; j < shape.value_row; j += kLanes) {
      const int left = shape.value - j;
      store(r + j, load_n(v + j, left) - chunk.since[i] * load(r + j));
    }
  }
  lower_solve(rows, shape.value_row, chunk.overlaps, kChunk, 1, chunk.beta, 1, chunk.r, chunk.u, shape.value_row);
}

// The outputs of a chunk.
template <class T>
void read(const GatedDeltaRule& job, const Shape& shape, const Chunk& chunk, const Place& place, int rows,
          const float* state, float* out, const Ahead& ahead) {
  const int row = shape.value_row;
  product_and_fetch<false>(rows, row, shape.dim, chunk.q, shape.dim_row, 1, state, row, out, row, ahead);
  for (int i = 0; i < rows; ++i) scale_row(out + i * row, row, chunk.since[i]);
  lower_product(rows, row, chunk.reads, kChunk, 1, chunk.u, row, out, row);
  T* y = static_cast<T*>(job.y) + place.values;
  for (int i = 0; i < rows; ++i, y += job.heads * job.value) {
    for (int j = 0; j < shape.value; j += kLanes) store_n(y + j, load(out + i * row + j), shape.value - j);
  }
}

// The state after a chunk, perhaps in place of the one before. Leaves k_turned scaled.
void advance(const Shape& shape, const Chunk& chunk, int rows, const float* state, float* after, const Ahead& ahead) {
  const float all = chunk.since[rows - 1];
  for (ptrdiff_t i = 0; i < shape.state; i += kLanes) store(after + i, load(state + i) * all);
  for (int i = 0; i < shape.dim; ++i) {
    for (int j = 0; j < rows; j += kLanes) {
      float* at = chunk.k_turned + i * kChunk + j;
      store(at, load(at) * load(chunk.until + j));
    }
  }
  product_and_fetch<true>(shape.dim, shape.value_row, rows, chunk.k_turned, kChunk, 1, chunk.u, shape.value_row, after,
                          shape.value_row, ahead);
}

LINOCUT_INLINE int rows_from(ptrdiff_t start, ptrdiff_t end) {
  return static_cast<int>(end - start < kChunk ? end - start : kChunk);
}

// What the chunk after the one at t reads.
template <class T>
struct Next {
  Ahead q, k, v;

  Next(const GatedDeltaRule& job, const Place& place, ptrdiff_t t)
      : q(rows(job, job.q, place.keys, job.groups * job.dim, job.dim, t)),
        k(rows(job, job.k, place.keys, job.groups * job.dim, job.dim, t)),
        v(rows(job, job.v, place.values, job.heads * job.value, job.value, t)) {}

  static Ahead rows(const GatedDeltaRule& job, const void* tensor, ptrdiff_t place, ptrdiff_t step, ptrdiff_t width,
                    ptrdiff_t t) {
    const ptrdiff_t size = sizeof(T), count = t + kChunk < job.length ? rows_from(t + kChunk, job.length) : 0;
    return {static_cast<const T*>(tensor) + place + (count ? kChunk * step : 0), step * size, width * size, static_cast<int>(count)};
  }
};

template <class T>
void forward(const GatedDeltaRule& job) {
  const Shape shape(job);
  const ptrdiff_t pieces = (job.length + job.segment - 1) / job.segment, size = job.dim * job.value;
  const Scratch scratch(job.threads,
                        static_cast<std::size_t>(Chunk::floats(shape) + kChunk * shape.value_row + shape.state + 64));
  parallel_for(job.batch * job.heads, job.threads, [&](ptrdiff_t index, int thread) {
    const ptrdiff_t batch = index / job.heads, head = index % job.heads;
    float* memory = scratch.of(thread);
    const Chunk chunk(shape, memory);
    float *out = take(memory, kChunk * shape.value_row), *state = take(memory, shape.state);
    load_state(shape, job.state + index * size, state);
    for (ptrdiff_t t = 0; t < job.length; t += kChunk) {
      if (job.kept && t % job.segment == 0) {
        store_state(shape, state, job.kept + ((batch * pieces + t / job.segment) * job.heads + head) * size);
      }
      const Place place(job, batch, head, t);
      const int rows = rows_from(t, job.length);
      const Next<T> next(job, place, t);
      write<T>(job, shape, chunk, place, rows, state, next.k);
      read<T>(job, shape, chunk, place, rows, state, out, next.q);
      advance(shape, chunk, rows, state, state, next.v);
    }
    store_state(shape, state, job.last + index * size);
  });
}

// Tiles of the backward pass; rows of keys are dim_row long, of values value_row.
struct Grads {
  float *y, *z;                        // of the outputs and, below, of r, (2 rows, value); of beta u, (rows, value)
  float *reads, *overlaps;             // of the scores, (rows, kChunk)
  float *u_turned;                     // (value, kChunk)
  float *state_turned, *after_turned;  // (value, dim)
  float *q, *earlier;                  // of q and, below, of k as the later one of a pair; of k as the earlier one
  float *all_q, *all_k;                // sums over the heads of a group, (segment, dim)
  float *after;                        // of the state after the chunk, (heads of the group, dim, value)

  static ptrdiff_t floats(const Shape& shape, ptrdiff_t segment, ptrdiff_t heads) {
    return kChunk * (3 * shape.value_row + 2 * kChunk + shape.value + 3 * shape.dim_row) +
           2 * shape.value * shape.dim_row + 2 * segment * shape.dim_row + heads * shape.state + 3 * 16;
  }

  Grads(const Shape& shape, ptrdiff_t segment, ptrdiff_t heads, float*& memory) {
    y = take(memory, 2 * kChunk * shape.value_row);
    z = take(memory, kChunk * shape.value_row);
    reads = take(memory, kChunk * kChunk);
    overlaps = take(memory, kChunk * kChunk);
    u_turned = take(memory, kChunk * shape.value);
    state_turned = take(memory, shape.value * shape.dim_row);
    after_turned = take(memory, shape.value * shape.dim_row);
    q = take(memory, 2 * kChunk * shape.dim_row);
    earlier = take(memory, kChunk * shape.dim_row);
    all_q = take(memory, segment * shape.dim_row);
    all_k = take(memory, segment * shape.dim_row);
    after = take(memory, heads * shape.state);
    // transposing leaves the padding of rows as it is
    clear(state_turned, shape.value * shape.dim_row);
    clear(after_turned, shape.value * shape.dim_row);
  }
};

// c += aᵀ b for a lower triangular a.
LINOCUT_INLINE void upper_product(int m, int n, const float* a, const float* b, float* c, ptrdiff_t row) {
  const ptrdiff_t end = m - 1;
  lower_product(m, n, a + end * kChunk + end, -1, -kChunk, b + end * row, -row, c + end * row, -row);
}

// From the gradients of the outputs and of the state after the chunk: those of r, in grads.y below the outputs', and with
// them of beta and v.
template <class T>
void solve_back(const GatedDeltaRuleGrad& job, const Shape& shape, const Chunk& chunk, const Grads& grads,
                const Place& place, int rows, const float* after) {
  const int row = shape.value_row;
  const ptrdiff_t step = job.forward.heads * job.forward.value, end = rows - 1;
  float *x = grads.y + rows * row, *z = grads.z;
  if (job.grad_y) {
    pack(rows, shape.value, static_cast<const T*>(job.grad_y) + place.values, step, grads.y, row);
  } else {
    clear(grads.y, rows * row);
  }
  product<false>(rows, row, shape.dim, chunk.k, shape.dim_row, 1, after, row, z, row);
  for (int i = 0; i < rows; ++i) scale_row(z + i * row, row, chunk.until[i]);
  upper_product(rows, row, chunk.reads, grads.y, z, row);
  lower_solve(rows, row, chunk.overlaps + end * kChunk + end, -1, -kChunk, chunk.beta + end, -1, z + end * row,
              x + end * row, -row);
  T* grad_v = static_cast<T*>(job.grad_v) + place.values;
  for (int i = 0; i < rows; ++i, grad_v += step) {
    job.grad_beta[place.scalars + i * job.forward.heads] = dot_row(z + i * row, chunk.r + i * row, row);
    for (int j = 0; j < row; j += kLanes) store_n(grad_v + j, load(x + i * row + j), shape.value - j);
  }
}

// Gradients of D_ij q_i · k_j and D_ij k_i · k_j, times D_ij: of the products alone.
LINOCUT_INLINE void scores_back(const Shape& shape, const Chunk& chunk, const Grads& grads, int rows) {
  const int row = shape.value_row;
  transpose(rows, shape.value, chunk.u, row, grads.u_turned, kChunk);
  scores(rows, shape.value, grads.y, row, grads.u_turned, grads.reads);
  scores(rows, shape.value, grads.y + rows * row, row, grads.u_turned, grads.overlaps);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j <= i; j += kLanes) {
      const ptrdiff_t at = i * kChunk + j;
      const vf factor = load(chunk.decay + at);
      store(grads.reads + at, load(grads.reads + at) * factor);
      store(grads.overlaps + at, -load(grads.overlaps + at) * factor);
    }
    grads.overlaps[i * kChunk + i] = 0;
  }
}

// One chunk backwards. `after` holds the gradient of the state after it, then of the one before it.
template <class T>
void chunk_back(const GatedDeltaRuleGrad& job, const Shape& shape, const Chunk& chunk, const Grads& grads,
                const Place& place, int rows, const float* state, const float* next, float* after, float* all_q,
                float* all_k) {
  const int row = shape.value_row, keys = shape.dim_row;
  float *x = grads.y + rows * row, *later = grads.q + rows * keys;
  solve_back<T>(job, shape, chunk, grads, place, rows, after);
  scores_back(shape, chunk, grads, rows);
  for (int i = 0; i < rows; ++i) {
    scale_row(grads.y + i * row, row, chunk.since[i]);
    scale_row(x + i * row, row, -chunk.since[i]);
  }
  transpose(shape.dim, shape.value, state, row, grads.state_turned, keys);
  product<false>(2 * rows, keys, shape.value, grads.y, row, 1, grads.state_turned, keys, grads.q, keys);
  lower_product(rows, keys, grads.reads, kChunk, 1, chunk.k, keys, grads.q, keys);
  lower_product(rows, keys, grads.overlaps, kChunk, 1, chunk.k, keys, later, keys);
  transpose(shape.dim, shape.value, after, row, grads.after_turned, keys);
  product<false>(rows, keys, shape.value, chunk.u, row, 1, grads.after_turned, keys, grads.earlier, keys);
  for (int i = 0; i < rows; ++i) scale_row(grads.earlier + i * keys, keys, chunk.until[i]);
  upper_product(rows, keys, grads.reads, chunk.q, grads.earlier, keys);
  upper_product(rows, keys, grads.overlaps, chunk.k, grads.earlier, keys);

  // what G_i multiplies, counted from the end; the state after the chunk grows with G of its last token
  float total = dot_row(after, next, static_cast<int>(shape.state));
  for (int i = rows - 1; i >= 0; --i) {
    vf sums = splat(0.0f);
    for (ptrdiff_t j = i * keys; j < (i + 1) * keys; j += kLanes) {
      const vf q = load(grads.q + j), ahead = load(later + j), behind = load(grads.earlier + j);
      sums += load(chunk.q + j) * q + load(chunk.k + j) * (ahead - behind);
      store(all_q + j, load(all_q + j) + q);
      store(all_k + j, load(all_k + j) + ahead + behind);
    }
    total += sum(sums);
    job.grad_log_decay[place.scalars + i * job.forward.heads] = total;
  }
  product_onto(shape.dim, row, rows, chunk.since[rows - 1], chunk.q, 1, keys, grads.y, row, after, row);
  product<true>(shape.dim, row, rows, chunk.k, 1, keys, x, row, after, row);
}

// The backward pass of one segment, from the states kept before it.
template <class T>
void segment_back(const GatedDeltaRuleGrad& grad, const Shape& shape, const Grads& grads, float* chunks, float* states,
                  ptrdiff_t batch, ptrdiff_t group, ptrdiff_t start) {
  const GatedDeltaRule& job = grad.forward;
  const ptrdiff_t pieces = (job.length + job.segment - 1) / job.segment, shared = job.heads / job.groups;
  const ptrdiff_t end = start + job.segment < job.length ? start + job.segment : job.length;
  clear(grads.all_q, job.segment * shape.dim_row);
  clear(grads.all_k, job.segment * shape.dim_row);
  for (ptrdiff_t rank = 0; rank < shared; ++rank) {
    const ptrdiff_t head = group * shared + rank;
    load_state(shape, job.kept + ((batch * pieces + start / job.segment) * job.heads + head) * job.dim * job.value,
               states);
    ptrdiff_t count = 0;
    for (ptrdiff_t t = start; t < end; t += kChunk, ++count) {
      const Place place(job, batch, head, t);
      const Next<T> next(job, place, t);
      float* memory = chunks + count * Chunk::floats(shape);
      const Chunk chunk(shape, memory);
      float* state = states + count * shape.state;
      write<T>(job, shape, chunk, place, rows_from(t, end), state, next.k);
      advance(shape, chunk, rows_from(t, end), state, state + shape.state, next.v);
    }
    for (ptrdiff_t index = count - 1; index >= 0; --index) {
      const ptrdiff_t t = start + index * kChunk, first = index * kChunk * shape.dim_row;
      float* memory = chunks + index * Chunk::floats(shape);
      const float* state = states + index * shape.state;
      chunk_back<T>(grad, shape, Chunk(shape, memory), grads, Place(job, batch, head, t), rows_from(t, end), state,
                    state + shape.state, grads.after + rank * shape.state, grads.all_q + first, grads.all_k + first);
    }
  }
  const ptrdiff_t first = Place(job, batch, group * shared, start).keys, step = job.groups * job.dim;
  for (ptrdiff_t i = 0; i < end - start; ++i) {
    for (int j = 0; j < shape.dim; j += kLanes) {
      store_n(static_cast<T*>(grad.grad_q) + first + i * step + j, load(grads.all_q + i * shape.dim_row + j),
              shape.dim - j);
      store_n(static_cast<T*>(grad.grad_k) + first + i * step + j, load(grads.all_k + i * shape.dim_row + j),
              shape.dim - j);
    }
  }
}

template <class T>
void backward(const GatedDeltaRuleGrad& grad) {
  const GatedDeltaRule& job = grad.forward;
  const Shape shape(job);
  const ptrdiff_t count = job.segment / kChunk, shared = job.heads / job.groups, size = job.dim * job.value;
  const Scratch scratch(job.threads,
                        static_cast<std::size_t>(count * Chunk::floats(shape) + (count + 1) * shape.state + 32 +
                                                 Grads::floats(shape, job.segment, shared)));
  parallel_for(job.batch * job.groups, job.threads, [&](ptrdiff_t index, int thread) {
    const ptrdiff_t batch = index / job.groups, group = index % job.groups;
    float* memory = scratch.of(thread);
    float *chunks = take(memory, count * Chunk::floats(shape)), *states = take(memory, (count + 1) * shape.state);
    const Grads grads(shape, job.segment, shared, memory);
    const ptrdiff_t first = (batch * job.heads + group * shared) * size;
    for (ptrdiff_t rank = 0; rank < shared; ++rank) {
      if (grad.grad_last) load_state(shape, grad.grad_last + first + rank * size, grads.after + rank * shape.state);
    }
    if (!grad.grad_last) clear(grads.after, shared * shape.state);
    for (ptrdiff_t start = (job.length - 1) / job.segment * job.segment; start >= 0 && job.length; start -= job.segment) {
      segment_back<T>(grad, shape, grads, chunks, states, batch, group, start);
    }
    for (ptrdiff_t rank = 0; rank < shared; ++rank) {
      store_state(shape, grads.after + rank * shape.state, grad.grad_state + first + rank * size);
    }
  });
}

}  // namespace

void gated_delta_rule(const GatedDeltaRule& job) { job.half ? forward<bf16>(job) : forward<float>(job); }

void gated_delta_rule_grad(const GatedDeltaRuleGrad& job) {
  job.forward.half ? backward<bf16>(job) : backward<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
