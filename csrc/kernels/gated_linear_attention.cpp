#include "gated_linear_attention.hpp"

#include <type_traits>

#include "chunk.hpp"
#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// A run of heads of one group over a run of tokens.
struct Item {
  std::ptrdiff_t batch, first_head, heads, begin, end;
};

// Tiles of floats; and of factors, what products take of them.
template <class F>
struct Tiles {
  float *q, *k, *scores, *decayed, *states, *norms;
  F *k_transposed, *v, *weighted, *left_q, *left_k, *right_k, *left_scores, *right_state;
  int dim_row, value_row;
  Decays decays;
  float normaliser[kMaxChunk];
};

// Lays the tiles out from `base`; without one it only counts.
template <class F>
Tiles<F> tiles(const GatedLinearAttention& job, float* base, std::size_t* floats) {
  Tiles<F> t{};
  t.dim_row = static_cast<int>(padded(job.dim));
  t.value_row = static_cast<int>(padded(job.value));
  std::size_t used = 0;
  const auto take = [&](auto*& tile, std::size_t count) {
    if (base) tile = reinterpret_cast<std::remove_reference_t<decltype(tile)>>(base + used);
    used += (count + 15) / 16 * 16;
  };
  const std::size_t d = t.dim_row, e = t.value_row, heads = job.heads / job.groups;
  take(t.q, kMaxChunk * d), take(t.k, kMaxChunk * d);
  take(t.scores, kMaxChunk * kMaxChunk), take(t.decayed, kMaxChunk * kMaxChunk);
  take(t.states, heads * job.dim * e), take(t.norms, heads * d);
  take(t.k_transposed, kMaxChunk * inner<F>(d));
  take(t.v, inner<F>(kMaxChunk) * e), take(t.weighted, inner<F>(kMaxChunk) * e);
  if (kIsPair<F>) {
    take(t.left_q, kMaxChunk * inner<F>(d)), take(t.left_k, kMaxChunk * inner<F>(d));
    take(t.right_k, inner<F>(kMaxChunk) * d), take(t.left_scores, kMaxChunk * inner<F>(kMaxChunk));
    take(t.right_state, inner<F>(job.dim) * e);
  }
  if (floats) *floats = used;
  return t;
}

// What the outputs of a chunk and a head are made of, as factors.
template <class F>
struct Reading {
  const F *q, *state, *scores, *v;
  const float* before;  // decays; absent for 1
  int rows, dim, value_row;
  std::ptrdiff_t q_row;
};

// Adds the part of scores · v on the diagonal: a later token must not touch an earlier one, not even as zero times NaN.
template <int Rows, int Vectors>
LINOCUT_INLINE void add_diagonal(vf (&sums)[Rows][Vectors], const float* scores, const float* v, int value_row) {
#pragma GCC unroll 12
  for (int s = 0; s < Rows; ++s) {
    vf values[Vectors];
    for (int j = 0; j < Vectors; ++j) values[j] = load(v + s * value_row + j * kLanes);
    for (int i = s; i < Rows; ++i) {
      const vf factor = splat(scores[i * kScoreRow + s]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] += factor * values[j];
    }
  }
}

#if defined(__AVX512BF16__)
template <int Rows, int Vectors>
LINOCUT_INLINE void add_diagonal(vf (&sums)[Rows][Vectors], const Pair* scores, const Pair* v, int value_row) {
#pragma GCC unroll 6
  for (int s = 0; s < Rows; s += 2) {
    vu values[Vectors];
    for (int j = 0; j < Vectors; ++j) values[j] = load_factors(v + s / 2 * value_row + j * kLanes);
    const vu alone = splat_factor(scores[s * inner<Pair>(kScoreRow) + s / 2]);
    for (int j = 0; j < Vectors; ++j) sums[s][j] = add_product(sums[s][j], alone, first_of(values[j]));
    for (int i = s + 1; i < Rows; ++i) {
      const vu factor = splat_factor(scores[i * inner<Pair>(kScoreRow) + s / 2]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] = add_product(sums[i][j], factor, values[j]);
    }
  }
}
#endif

// Rows `first`, an even number, and following of q S, times their decay, plus the causal part of scores · v, in
// registers.
template <int Rows, int Vectors, class F, class Write>
LINOCUT_INLINE void read_block(const Reading<F>& r, int first, int column, const Write& write) {
  vf sums[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) sums[i][j] = splat(0.0f);
  }
  const auto add = [&](const F* row, const F* factors, std::ptrdiff_t stride) LINOCUT_LAMBDA {
    decltype(load_factors(row)) values[Vectors];
    for (int j = 0; j < Vectors; ++j) values[j] = load_factors(row + column + j * kLanes);
    for (int i = 0; i < Rows; ++i) {
      const auto factor = splat_factor(factors[i * stride]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] = add_product(sums[i][j], factor, values[j]);
    }
  };
  const int dim = static_cast<int>(inner<F>(r.dim)), earlier = static_cast<int>(inner<F>(first));
  const F* q = r.q + first * r.q_row;
  for (int p = 0; p < dim; ++p) add(r.state + p * r.value_row, q + p, r.q_row);
  if (r.before) {
    for (int i = 0; i < Rows; ++i) {
      for (int j = 0; j < Vectors; ++j) sums[i][j] *= r.before[first + i];
    }
  }
  const F* scores = r.scores + first * inner<F>(kScoreRow);
  for (int s = 0; s < earlier; ++s) add(r.v + s * r.value_row, scores + s, inner<F>(kScoreRow));
  add_diagonal(sums, scores + earlier, r.v + earlier * r.value_row + column, r.value_row);
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) write(first + i, column + j * kLanes, sums[i][j]);
  }
}

template <int Vectors, class F, class Write>
LINOCUT_INLINE void read_columns(const Reading<F>& r, int column, const Write& write) {
  int i = 0;
  for (; i + kTileRows <= r.rows; i += kTileRows) read_block<kTileRows, Vectors>(r, i, column, write);
  for (; i + 2 <= r.rows; i += 2) read_block<2, Vectors>(r, i, column, write);
  for (; i < r.rows; ++i) read_block<1, Vectors>(r, i, column, write);
}

template <class F, class Write>
LINOCUT_INLINE void read_all(const Reading<F>& r, const Write& write) {
  int j = 0;
  for (; j + kTileVectors * kLanes <= r.value_row; j += kTileVectors * kLanes) read_columns<kTileVectors>(r, j, write);
  for (; j + 2 * kLanes <= r.value_row; j += 2 * kLanes) read_columns<2>(r, j, write);
  for (; j < r.value_row; j += kLanes) read_columns<1>(r, j, write);
}

// One over q_tᵀ z_t for every token of the chunk.
template <class F>
LINOCUT_INLINE void normalisers(Tiles<F>& t, int rows, const float* norm, const float* before, const float* scores) {
  for (int i = 0; i < rows; ++i) {
    vf total = splat(0.0f);
    for (int j = 0; j < t.dim_row; j += kLanes) total += load(t.q + i * t.dim_row + j) * load(norm + j);
    if (before) total *= before[i];
    int j = 0;
    for (; j + kLanes <= i + 1; j += kLanes) total += load(scores + i * kScoreRow + j);
    if (j <= i) total += first_lanes(load(scores + i * kScoreRow + j), i + 1 - j);
    const float value = sum(total);
    t.normaliser[i] = 1.0f / (value < kSmallest ? kSmallest : value);
  }
}

template <class T, class F>
void write_outputs(const GatedLinearAttention& job, const Tiles<F>& t, const Reading<F>& r, std::ptrdiff_t batch,
                   std::ptrdiff_t head, std::ptrdiff_t start) {
  T* y = static_cast<T*>(job.y) + ((batch * job.length + start) * job.heads + head) * job.value;
  const auto y_token = job.heads * job.value;
  const int value = static_cast<int>(job.value);
  if (job.normalize) {
    read_all(r, [&](int i, int j, vf sums) LINOCUT_LAMBDA {
      store_n(y + i * y_token + j, sums * t.normaliser[i], value - j);
    });
  } else if (job.skip) {
    const T* v = static_cast<const T*>(job.v) + (batch * job.length + start) * job.v_token + head * job.value;
    const float skip = job.skip[head];
    read_all(r, [&](int i, int j, vf sums) LINOCUT_LAMBDA {
      store_n(y + i * y_token + j, sums + skip * load_n(v + i * job.v_token + j, value - j), value - j);
    });
  } else {
    read_all(r, [&](int i, int j, vf sums) LINOCUT_LAMBDA { store_n(y + i * y_token + j, sums, value - j); });
  }
}

template <class F>
void save_checkpoint(const GatedLinearAttention& job, const Tiles<F>& t, const Item& item, std::ptrdiff_t start) {
  const auto segments = (job.length + job.segment - 1) / job.segment;
  const auto size = (job.value + job.normalize) * job.dim;
  for (std::ptrdiff_t h = 0; h < item.heads; ++h) {
    float* to = job.checkpoints +
                ((item.batch * segments + start / job.segment) * job.heads + item.first_head + h) * size;
    transpose(static_cast<int>(job.dim), static_cast<int>(job.value), t.states + h * job.dim * t.value_row, t.value_row,
              to, job.dim);
    if (job.normalize) std::memcpy(to + job.value * job.dim, t.norms + h * t.dim_row, sizeof(float) * job.dim);
  }
}

template <class F>
LINOCUT_INLINE void add_keys(const Tiles<F>& t, int rows, float decay, const float* after, float* norm) {
  for (int j = 0; j < t.dim_row; j += kLanes) {
    vf total = decay * load(norm + j);
    for (int i = 0; i < rows; ++i) total += (after ? after[i] : 1.0f) * load(t.k + i * t.dim_row + j);
    store(norm + j, total);
  }
}

// Rows of v times their weight, and those as they stay in the state.
template <class T>
LINOCUT_INLINE void load_values(const Tiles<float>& t, int rows, int value, const T* v, std::ptrdiff_t v_token,
                                const float* weight, std::ptrdiff_t heads, const float* after) {
  pack_weighted(rows, value, v, v_token, weight, heads, t.v, t.value_row);
  if (after) scale_rows(rows, t.value_row, after, t.v, t.value_row, t.weighted, t.value_row);
}

#if defined(__AVX512BF16__)
template <class T>
LINOCUT_INLINE void load_values(const Tiles<Pair>& t, int rows, int value, const T* v, std::ptrdiff_t v_token,
                                const float* weight, std::ptrdiff_t heads, const float* after) {
  pack_weighted(rows, value, v, v_token, weight, heads, t.v, t.value_row);
  if (!after) return;
  float kept[kMaxChunk];
  for (int i = 0; i < rows; ++i) kept[i] = weight ? weight[i * heads] * after[i] : after[i];
  pack_weighted(rows, value, v, v_token, kept, 1, t.weighted, t.value_row);
}
#endif

// Runs an item from the states in its tiles and leaves the states after it there. Without outputs it only does the
// latter, and multiplies up every head's decay in `total`.
template <class T, class F>
void run(const GatedLinearAttention& job, Tiles<F>& t, const Item& item, float* total) {
  const int dim = static_cast<int>(job.dim), value = static_cast<int>(job.value), chunk = chunk_length(job);
  const int q_row = static_cast<int>(inner<F>(t.dim_row));
  const auto group = item.first_head * job.groups / job.heads;
  const bool outputs = total == nullptr;
  for (std::ptrdiff_t start = item.begin; start < item.end; start += chunk) {
    const int rows = static_cast<int>(item.end - start < chunk ? item.end - start : chunk);
    const int next = static_cast<int>(item.end - start - rows < chunk ? item.end - start - rows : chunk);
    if (outputs && job.checkpoints && start % job.segment == 0) save_checkpoint(job, t, item, start);
    const auto token = item.batch * job.length + start;
    const T* q = static_cast<const T*>(job.q) + token * job.q_token + group * dim;
    const T* k = static_cast<const T*>(job.k) + token * job.k_token + group * dim;
    pack_mapped(job.map, rows, dim, k, job.k_token, t.k, t.dim_row);
    prefetch_rows(next, dim, k + rows * job.k_token, job.k_token);
    const F* keys = right(rows, t.dim_row, t.k, t.dim_row, t.right_k);
    const F* queries = nullptr;
    if (outputs) {
      pack_mapped(job.map, rows, dim, q, job.q_token, t.q, t.dim_row);
      prefetch_rows(next, dim, q + rows * job.q_token, job.q_token);
      queries = left(rows, t.dim_row, t.q, t.dim_row, t.left_q);
      const int factors = static_cast<int>(inner<F>(dim));
      transpose(rows, factors, left(rows, t.dim_row, t.k, t.dim_row, t.left_k), q_row, t.k_transposed, kScoreRow);
      causal_scores(rows, factors, queries, q_row, t.k_transposed, t.scores);
    }
    for (std::ptrdiff_t h = 0; h < item.heads; ++h) {
      const auto head = item.first_head + h;
      float *state = t.states + h * job.dim * t.value_row, *norm = t.norms + h * t.dim_row;
      const T* v = static_cast<const T*>(job.v) + token * job.v_token + head * value;
      const float *before = nullptr, *after = nullptr, *scores = t.scores;
      float decay = 1.0f;
      if (job.log_decay) {
        fill(t.decays, rows, job.log_decay + token * job.heads + head, job.heads);
        before = t.decays.before, after = t.decays.after, decay = t.decays.total, scores = t.decayed;
        for (int i = 0; i < rows && outputs; ++i) {
          for (int j = 0; j <= i; j += kLanes) {
            const int at = i * kScoreRow + j;
            store(t.decayed + at, load(t.scores + at) * load(t.decays.between + at));
          }
        }
      }
      load_values(t, rows, value, v, job.v_token, job.weight ? job.weight + token * job.heads + head : nullptr,
                  job.heads, after);
      prefetch_rows(next, value, v + rows * job.v_token, job.v_token);
      if (outputs) {
        if (job.normalize) normalisers(t, rows, norm, before, scores);
        const Reading<F> reading{queries, right(dim, t.value_row, state, t.value_row, t.right_state),
                                 left_scores(rows, scores, t.left_scores), t.v, before, rows, dim, t.value_row, q_row};
        write_outputs<T>(job, t, reading, item.batch, head, start);
      } else {
        total[head] *= decay;
      }
      product_onto(dim, t.value_row, static_cast<int>(inner<F>(rows)), decay, keys, 1, t.dim_row,
                   after ? t.weighted : t.v, t.value_row, state, t.value_row);
      if (job.normalize) add_keys(t, rows, decay, after, norm);
    }
  }
}

// The states of an item's heads: into its tiles from where they are dense, and back.
template <class F>
void load_states(const GatedLinearAttention& job, const Tiles<F>& t, const Item& item, const float* state,
                 const float* norm) {
  for (std::ptrdiff_t h = 0; h < item.heads; ++h) {
    const auto head = item.batch * job.heads + item.first_head + h;
    float *to = t.states + h * job.dim * t.value_row, *to_norm = t.norms + h * t.dim_row;
    const int dim = static_cast<int>(job.dim), value = static_cast<int>(job.value);
    if (state) {
      pack(dim, value, state + head * dim * value, value, to, t.value_row);
    } else {
      std::memset(to, 0, sizeof(float) * job.dim * t.value_row);
    }
    std::memset(to_norm, 0, sizeof(float) * t.dim_row);
    if (norm) pack(1, dim, norm + head * dim, dim, to_norm, t.dim_row);
  }
}

template <class F>
void store_states(const GatedLinearAttention& job, const Tiles<F>& t, const Item& item, float* state, float* norm) {
  for (std::ptrdiff_t h = 0; h < item.heads; ++h) {
    const auto head = item.batch * job.heads + item.first_head + h;
    const float* from = t.states + h * job.dim * t.value_row;
    for (std::ptrdiff_t i = 0; i < job.dim; ++i) {
      std::memcpy(state + (head * job.dim + i) * job.value, from + i * t.value_row, sizeof(float) * job.value);
    }
    if (norm) std::memcpy(norm + head * job.dim, t.norms + h * t.dim_row, sizeof(float) * job.dim);
  }
}

// Pieces begin where checkpoints may be.
constexpr std::ptrdiff_t kPieceMultiple = 256;

// Products of a call below which it stays on one thread.
constexpr std::ptrdiff_t kWorthThreads = 1 << 18;

// How the work is dealt out: heads of a group apart first, since their scores are cheap to make twice; then pieces of
// the sequence, whose states must be found before.
struct Plan {
  std::ptrdiff_t parts, pieces, piece_length;
};

Plan plan(const GatedLinearAttention& job) {
  const std::ptrdiff_t heads = job.heads / job.groups, groups = job.batch * job.groups;
  Plan p{1, 1, job.length};
  while (p.parts < heads && groups * p.parts < job.threads) ++p.parts;
  if (groups * p.parts < job.threads) {
    const auto wanted = (job.threads + groups * p.parts - 1) / (groups * p.parts);
    p.piece_length = ((job.length + wanted - 1) / wanted + kPieceMultiple - 1) / kPieceMultiple * kPieceMultiple;
    p.pieces = p.piece_length > 0 ? (job.length + p.piece_length - 1) / p.piece_length : 1;
  }
  return p;
}

Item item_of(const GatedLinearAttention& job, const Plan& p, std::ptrdiff_t index, std::ptrdiff_t pieces) {
  const auto heads = job.heads / job.groups;
  const auto piece = index % pieces, part = index / pieces % p.parts, group = index / pieces / p.parts;
  const auto first = heads * part / p.parts, last = heads * (part + 1) / p.parts;
  const auto begin = piece * p.piece_length, end = begin + p.piece_length;
  return {group / job.groups, group % job.groups * heads + first, last - first, begin,
          end < job.length ? end : job.length};
}

// Turns what every piece adds to a state of zero into the state before the next one, from the first to the last.
void chain_pieces(const GatedLinearAttention& job, const Plan& p, float* start, std::ptrdiff_t size,
                  std::ptrdiff_t state_size, std::ptrdiff_t norm_size) {
  const auto per_head = job.dim * job.value;
  for (std::ptrdiff_t piece = 1; piece < p.pieces; ++piece) {
    float* to = start + piece * size;
    const float *state = piece > 1 ? to - size : job.state, *norm = piece > 1 ? to - size + state_size : job.norm;
    const float* total = to + state_size + norm_size;
    for (std::ptrdiff_t i = 0; i < state_size && state; ++i) to[i] += total[i / per_head] * state[i];
    for (std::ptrdiff_t i = 0; i < norm_size && norm; ++i) to[state_size + i] += total[i / job.dim] * norm[i];
  }
}

template <class T>
void forward(const GatedLinearAttention& job) {
  using F = Factor<T>;
  const Plan p = plan(job);
  const auto groups = job.batch * job.groups * p.parts, all = job.batch * job.heads;
  std::size_t floats = 0;
  tiles<F>(job, nullptr, &floats);
  const Scratch scratch(job.threads, floats);
  // for every piece: the states before it, and the decay over it
  const auto state_size = all * job.dim * job.value, norm_size = job.normalize ? all * job.dim : 0;
  const auto size = state_size + norm_size + all;
  const Scratch starts(1, p.pieces > 1 ? p.pieces * size : 0);
  float* const start = starts.of(0);
  if (p.pieces > 1) {
    parallel_for(groups * (p.pieces - 1), job.threads, [&](std::ptrdiff_t index, int thread) {
      Tiles<F> t = tiles<F>(job, scratch.of(thread), nullptr);
      const Item item = item_of(job, p, index, p.pieces - 1);
      float* to = start + (item.begin / p.piece_length + 1) * size;
      float* total = to + state_size + norm_size + item.batch * job.heads;
      for (std::ptrdiff_t h = 0; h < item.heads; ++h) total[item.first_head + h] = 1.0f;
      load_states(job, t, item, nullptr, nullptr);
      run<T>(job, t, item, total);
      store_states(job, t, item, to, job.normalize ? to + state_size : nullptr);
    });
    chain_pieces(job, p, start, size, state_size, norm_size);
  }
  parallel_for(groups * p.pieces, job.threads, [&](std::ptrdiff_t index, int thread) {
    Tiles<F> t = tiles<F>(job, scratch.of(thread), nullptr);
    const Item item = item_of(job, p, index, p.pieces);
    const float* from = start + item.begin / (p.piece_length ? p.piece_length : 1) * size;
    const bool first = item.begin == 0;
    load_states(job, t, item, first ? job.state : from, first ? job.norm : job.normalize ? from + state_size : nullptr);
    run<T>(job, t, item, nullptr);
    if (item.end == job.length) store_states(job, t, item, job.last, job.normalize ? job.last_norm : nullptr);
  });
}

}  // namespace

void gated_linear_attention(const GatedLinearAttention& job) {
  if (job.batch * job.groups == 0) return;  // there is nothing to deal out
  GatedLinearAttention alone = job;
  // a decoder's step is over before a second thread has woken up
  if (job.batch * job.length * job.heads * job.dim * job.value < kWorthThreads) alone.threads = 1;
  job.half ? forward<bf16>(alone) : forward<float>(alone);
}

}  // namespace linocut::LINOCUT_ISA
