// A plain recurrence. Three operations an entry of the state and token are more than the two of a chunk's products, but
// need no quotient of decays, which overflow when they are strong; and a tile of the state stays in registers while it
// walks over a chunk, so memory is touched once a chunk.
//
// Backward there are three such walks. With ḡ for a gradient and G_t for that of S_t,
//   q̄_t = S_t ȳ_t           forward again, the key channels in the lanes
//   k̄_t = G_t v_t           backward, the key channels in the lanes
//   v̄_t = G_tᵀ k_t          backward, the value channels in the lanes
// and the gradient of g_t is that of g_{t+1} plus q_t q̄_t - k_t k̄_t, begun at every end of a chunk from G and S, so
// that rounding does not pile up.
#include "channel_decay.hpp"

#include "threads.hpp"
#include "tile.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 8, kVectors = 2;  // 16 registers of state, and 32 in all
#else
constexpr int kRows = 4, kVectors = 2;  // 8 of 16
#endif

using Index = std::ptrdiff_t;

// What a token does to the state X: it fades, gains `in ⊗ lanes`, and is read as Σ weight X; in this order or another.
enum class Order { fade_gain_read, read_fade_gain, gain_read_fade };

// The tokens of a chunk. What belongs to the rows of the state lies in arrays of one row length, what belongs to its
// lanes in arrays of another; a negative step walks backward.
struct Walk {
  int tokens;
  Index row_step, lane_step;
  const float *in, *weight, *decay, *lanes;
  float* out;
};

// Walks a tile of the state, `Rows` by `Vectors`, over a chunk. ByRow says whether decays belong to rows or to lanes.
template <Order order, bool ByRow, int Rows, int Vectors>
LINOCUT_INLINE void walk_tile(const Walk& walk, Index row, Index lane, float* state, Index state_row) {
  vf x[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) x[i][j] = load(state + i * state_row + j * kLanes);
  }
  const float *in = walk.in + row, *weight = walk.weight + row, *lanes = walk.lanes + lane;
  const float* decay = walk.decay + (ByRow ? row : lane);
  float* out = walk.out + lane;
  for (int t = 0; t < walk.tokens; ++t) {
    vf gain[Vectors], fade[Vectors], read[Vectors];
    for (int j = 0; j < Vectors; ++j) {
      gain[j] = load(lanes + j * kLanes);
      read[j] = load(out + j * kLanes);
      if (!ByRow) fade[j] = load(decay + j * kLanes);
    }
    for (int i = 0; i < Rows; ++i) {
      for (int j = 0; j < Vectors; ++j) {
        const vf by = ByRow ? splat(decay[i]) : fade[j];
        if (order == Order::read_fade_gain) read[j] += weight[i] * x[i][j];
        if (order == Order::gain_read_fade) {
          x[i][j] += in[i] * gain[j];
        } else {
          const vf more = in[i] * gain[j];
          x[i][j] = by * x[i][j] + more;
        }
        if (order != Order::read_fade_gain) read[j] += weight[i] * x[i][j];
        if (order == Order::gain_read_fade) x[i][j] *= by;
      }
    }
    for (int j = 0; j < Vectors; ++j) store(out + j * kLanes, read[j]);
    in += walk.row_step;
    weight += walk.row_step;
    lanes += walk.lane_step;
    out += walk.lane_step;
    decay += ByRow ? walk.row_step : walk.lane_step;
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) store(state + i * state_row + j * kLanes, x[i][j]);
  }
}

// All tiles of a state of `rows` by `lanes`, both whole vectors, which are whole tiles of rows.
template <Order order, bool ByRow>
void walk_all(const Walk& walk, Index rows, Index lanes, float* state) {
  Index lane = 0;
  for (; lane + kVectors * kLanes <= lanes; lane += kVectors * kLanes) {
    for (Index row = 0; row < rows; row += kRows) {
      walk_tile<order, ByRow, kRows, kVectors>(walk, row, lane, state + row * lanes + lane, lanes);
    }
  }
  for (; lane < lanes; lane += kLanes) {
    for (Index row = 0; row < rows; row += kRows) {
      walk_tile<order, ByRow, kRows, 1>(walk, row, lane, state + row * lanes + lane, lanes);
    }
  }
}

// The same chunk from its last token to its first.
template <bool ByRow>
LINOCUT_INLINE Walk backward(const Walk& walk) {
  const Index rows = (walk.tokens - 1) * walk.row_step, lanes = (walk.tokens - 1) * walk.lane_step;
  return {walk.tokens,         -walk.row_step,
          -walk.lane_step,     walk.in + rows,
          walk.weight + rows,  walk.decay + (ByRow ? rows : lanes),
          walk.lanes + lanes,  walk.out + lanes};
}

// Some lanes of one head of one sequence.
struct Part {
  Index sequence, head, first, width;
};

// How many parts the lanes of a head are dealt out in: one while that leaves work for every thread.
LINOCUT_INLINE Index parts_of(Index heads, Index lanes, int threads) {
  if (threads == 1 || heads == 0 || heads >= 2 * threads) return 1;
  const Index wanted = (2 * threads + heads - 1) / heads, vectors = (lanes + kLanes - 1) / kLanes;
  return wanted < vectors ? wanted : (vectors > 0 ? vectors : 1);
}

LINOCUT_INLINE Index part_width(Index lanes, Index parts) {
  return static_cast<Index>(padded(static_cast<std::size_t>((lanes + parts - 1) / parts)));
}

LINOCUT_INLINE Part part_of(Index index, const ChannelDecay& job, Index lanes, Index parts) {
  const Index width = part_width(lanes, parts), first = index % parts * width, left = lanes - first;
  return {index / parts / job.heads, index / parts % job.heads, first, left < width ? left : width};
}

// A call too small to be worth waking threads for: a decoder's step.
LINOCUT_INLINE int threads_for(const ChannelDecay& job) {
  const Index work = job.batch * job.length * job.heads * job.dim * job.value;
  return work < (1 << 17) ? 1 : job.threads;
}

LINOCUT_INLINE Index pad(Index n) { return static_cast<Index>(padded(static_cast<std::size_t>(n))); }

// Tokens [first, first + tokens) of a tensor whose rows hold `heads` heads of `size` channels.
template <class T>
LINOCUT_INLINE T* rows_of(T* data, const ChannelDecay& job, const Part& part, Index token, Index size) {
  return data + ((part.sequence * job.length + token) * job.heads + part.head) * size;
}

LINOCUT_INLINE void exp_all(float* x, Index n) {
  for (Index i = 0; i < n; i += kLanes) store(x + i, exp(load(x + i)));
}

LINOCUT_INLINE void fill(float* x, Index n, float value) {
  for (Index i = 0; i < n; i += kLanes) store(x + i, splat(value));
}

template <class T>
LINOCUT_INLINE void unpack(int rows, Index columns, const float* from, Index from_row, T* to, Index to_row) {
  for (int i = 0; i < rows; ++i) {
    for (Index j = 0; j < columns; j += kLanes) {
      store_n(to + i * to_row + j, load(from + i * from_row + j), static_cast<int>(columns - j));
    }
  }
}

LINOCUT_INLINE float dot(const float* a, const float* b, Index n) {
  vf total = vf{};
  for (Index i = 0; i < n; i += kLanes) total += load(a + i) * load(b + i);
  return sum(total);
}

// out[t] = Σ q_t u k_t · v_t: what the own token adds to an output; nothing without a bonus.
LINOCUT_INLINE void own_token(int tokens, const float* q, const float* k, const float* bonus, Index dim, const float* v,
                              float* out, Index value) {
  fill(out, tokens * value, 0.0f);
  if (!bonus) return;
  for (int t = 0; t < tokens; ++t) {
    vf total = vf{};
    for (Index i = 0; i < dim; i += kLanes) total += load(q + t * dim + i) * load(k + t * dim + i) * load(bonus + i);
    const float weight = sum(total);
    for (Index j = 0; j < value; j += kLanes) store(out + t * value + j, weight * load(v + t * value + j));
  }
}

// Copies a state of `rows` by `columns` into a padded tile; what is added is zero.
LINOCUT_INLINE void pack_state(Index rows, Index columns, const float* from, Index from_row, float* to, Index to_rows,
                               Index to_row) {
  pack(static_cast<int>(rows), static_cast<int>(columns), from, from_row, to, to_row);
  fill(to + rows * to_row, (to_rows - rows) * to_row, 0.0f);
}

// Copies the transpose of a state's rows [0, rows) into a padded tile of `columns` by `rows`.
LINOCUT_INLINE void pack_turned(Index rows, Index columns, const float* from, Index from_row, float* to, Index to_rows,
                                Index to_row) {
  fill(to, to_rows * to_row, 0.0f);
  transpose(static_cast<int>(rows), static_cast<int>(columns), from, from_row, to, to_row);
}

template <class T>
void forward_part(const ChannelDecay& job, const Part& part, float* memory) {
  const Index dim = pad(job.dim), value = pad(part.width), chunk = kChannelDecayChunk;
  float *q = memory, *k = q + chunk * dim, *decay = k + chunk * dim, *v = decay + chunk * dim, *y = v + chunk * value;
  float *state = y + chunk * value, *bonus = state + dim * value;
  const Index corner = (part.sequence * job.heads + part.head) * job.dim * job.value + part.first;
  pack_state(job.dim, part.width, job.state + corner, job.value, state, dim, value);
  if (job.bonus) pack(1, static_cast<int>(job.dim), job.bonus + part.head * job.dim, job.dim, bonus, dim);
  const Index keys = job.heads * job.dim, values = job.heads * job.value;
  const int columns = static_cast<int>(job.dim), width = static_cast<int>(part.width);
  for (Index t = 0; t < job.length; t += chunk) {
    const int tokens = static_cast<int>(job.length - t < chunk ? job.length - t : chunk);
    pack(tokens, columns, rows_of(static_cast<const T*>(job.q), job, part, t, job.dim), keys, q, dim);
    pack(tokens, columns, rows_of(static_cast<const T*>(job.k), job, part, t, job.dim), keys, k, dim);
    pack(tokens, columns, rows_of(job.log_decay, job, part, t, job.dim), keys, decay, dim);
    pack(tokens, width, rows_of(static_cast<const T*>(job.v), job, part, t, job.value) + part.first, values, v, value);
    exp_all(decay, tokens * dim);
    own_token(tokens, q, k, job.bonus ? bonus : nullptr, dim, v, y, value);
    const Walk walk{tokens, dim, value, k, q, decay, v, y};
    if (job.bonus) {
      walk_all<Order::read_fade_gain, true>(walk, dim, value, state);
    } else {
      walk_all<Order::fade_gain_read, true>(walk, dim, value, state);
    }
    unpack(tokens, part.width, y, value, rows_of(static_cast<T*>(job.y), job, part, t, job.value) + part.first, values);
  }
  unpack(columns, part.width, state, value, job.last + corner, job.value);
}

template <class T>
void forward(const ChannelDecay& job) {
  const int threads = threads_for(job);
  const Index heads = job.batch * job.heads, parts = parts_of(heads, job.value, threads);
  const Index dim = pad(job.dim), value = part_width(job.value, parts);
  const Index floats = kChannelDecayChunk * (3 * dim + 2 * value) + dim * value + dim;
  const Scratch scratch(threads, static_cast<std::size_t>(floats));
  parallel_for(heads * parts, threads, [&](Index index, int thread) {
    const Part part = part_of(index, job, job.value, parts);
    if (part.width > 0) forward_part<T>(job, part, scratch.of(thread));
  });
}

// The gradient of v, and that of the first state, for some of the value channels.
template <class T>
void backward_values(const ChannelDecayGrad& grad, const Part& part, float* memory) {
  const ChannelDecay& job = grad.forward;
  const Index dim = pad(job.dim), value = pad(part.width), chunk = kChannelDecayChunk;
  float *q = memory, *k = q + chunk * dim, *decay = k + chunk * dim, *y = decay + chunk * dim, *v = y + chunk * value;
  float *state = v + chunk * value, *bonus = state + dim * value;
  const Index corner = (part.sequence * job.heads + part.head) * job.dim * job.value + part.first;
  pack_state(job.dim, part.width, grad.grad_last + corner, job.value, state, dim, value);
  if (job.bonus) pack(1, static_cast<int>(job.dim), job.bonus + part.head * job.dim, job.dim, bonus, dim);
  const Index keys = job.heads * job.dim, values = job.heads * job.value;
  const int columns = static_cast<int>(job.dim), width = static_cast<int>(part.width);
  for (Index t = (job.length - 1) / chunk * chunk; t >= 0 && job.length > 0; t -= chunk) {
    const int tokens = static_cast<int>(job.length - t < chunk ? job.length - t : chunk);
    pack(tokens, columns, rows_of(static_cast<const T*>(job.q), job, part, t, job.dim), keys, q, dim);
    pack(tokens, columns, rows_of(static_cast<const T*>(job.k), job, part, t, job.dim), keys, k, dim);
    pack(tokens, columns, rows_of(job.log_decay, job, part, t, job.dim), keys, decay, dim);
    pack(tokens, width, rows_of(static_cast<const T*>(grad.grad_y), job, part, t, job.value) + part.first, values, y,
         value);
    exp_all(decay, tokens * dim);
    own_token(tokens, q, k, job.bonus ? bonus : nullptr, dim, y, v, value);
    const Walk walk = backward<true>({tokens, dim, value, q, k, decay, y, v});
    if (job.bonus) {
      walk_all<Order::read_fade_gain, true>(walk, dim, value, state);
    } else {
      walk_all<Order::gain_read_fade, true>(walk, dim, value, state);
    }
    unpack(tokens, part.width, v, value, rows_of(static_cast<T*>(grad.grad_v), job, part, t, job.value) + part.first,
           values);
  }
  unpack(columns, part.width, state, value, grad.grad_state + corner, job.value);
}

// A decay so strong that what passes it is below the rounding of what does not: no gradient flows through it, which
// keeps the rounding of the tokens behind it from the sum.
constexpr float kForgets = 1.0f / (1 << 24);

// A chunk's tensors for some of the key channels, and its whole values.
struct KeySide {
  float *q, *k, *decay, *out, *v, *y, *dots;
};

template <class T>
LINOCUT_INLINE int load_keys(const ChannelDecayGrad& grad, const Part& part, Index t, const KeySide& side, Index dim,
                             Index value) {
  const ChannelDecay& job = grad.forward;
  const Index keys = job.heads * job.dim, values = job.heads * job.value;
  const int tokens = static_cast<int>(job.length - t < kChannelDecayChunk ? job.length - t : kChannelDecayChunk);
  const int width = static_cast<int>(part.width), columns = static_cast<int>(job.value);
  pack(tokens, width, rows_of(static_cast<const T*>(job.q), job, part, t, job.dim) + part.first, keys, side.q, dim);
  pack(tokens, width, rows_of(static_cast<const T*>(job.k), job, part, t, job.dim) + part.first, keys, side.k, dim);
  pack(tokens, width, rows_of(job.log_decay, job, part, t, job.dim) + part.first, keys, side.decay, dim);
  pack(tokens, columns, rows_of(static_cast<const T*>(job.v), job, part, t, job.value), values, side.v, value);
  pack(tokens, columns, rows_of(static_cast<const T*>(grad.grad_y), job, part, t, job.value), values, side.y, value);
  exp_all(side.decay, tokens * dim);
  fill(side.out, tokens * dim, 0.0f);
  for (int i = 0; i < tokens; ++i) side.dots[i] = job.bonus ? dot(side.v + i * value, side.y + i * value, value) : 0.0f;
  return tokens;
}

// The gradients of q, k, the decays and the bonus, for some of the key channels.
template <class T>
void backward_keys(const ChannelDecayGrad& grad, const Part& part, float* memory) {
  const ChannelDecay& job = grad.forward;
  const Index dim = pad(part.width), value = pad(job.value), chunk = kChannelDecayChunk;
  KeySide side;
  side.q = memory;
  side.k = side.q + chunk * dim;
  side.decay = side.k + chunk * dim;
  side.out = side.decay + chunk * dim;
  side.v = side.out + chunk * dim;
  side.y = side.v + chunk * value;
  side.dots = side.y + chunk * value;
  float *state = side.dots + chunk, *change = state + dim * value, *bonus = change + dim * value;
  float *flow = bonus + dim, *grad_bonus = flow + dim;
  const Index head = part.sequence * job.heads + part.head, keys = job.heads * job.dim;
  const Index corner = (head * job.dim + part.first) * job.value;
  const Index pieces = job.length > 0 ? (job.length - 1) / chunk : 0;
  const Index kept = head * pieces * job.value * job.dim + part.first;
  fill(grad_bonus, dim, 0.0f);
  fill(bonus, dim, 0.0f);
  if (job.bonus) pack(1, static_cast<int>(part.width), job.bonus + part.head * job.dim + part.first, 0, bonus, dim);
  pack_turned(part.width, job.value, job.state + corner, job.value, state, value, dim);
  for (Index piece = 0; piece <= pieces && job.length > 0; ++piece) {
    const Index t = piece * chunk;
    const int tokens = load_keys<T>(grad, part, t, side, dim, value);
    const Walk walk{tokens, value, dim, side.v, side.y, side.decay, side.k, side.out};
    if (job.bonus) {
      walk_all<Order::read_fade_gain, false>(walk, value, dim, state);
    } else {
      walk_all<Order::fade_gain_read, false>(walk, value, dim, state);
    }
    T* grad_q = rows_of(static_cast<T*>(grad.grad_q), job, part, t, job.dim) + part.first;
    // q q̄ waits where the gradient of the decays will be
    float* grad_decay = rows_of(grad.grad_log_decay, job, part, t, job.dim) + part.first;
    for (int i = 0; i < tokens; ++i) {
      for (Index c = 0; c < part.width; c += kLanes) {
        const int left = static_cast<int>(part.width - c);
        const vf out = load(side.out + i * dim + c);
        store_n(grad_decay + i * keys + c, load(side.q + i * dim + c) * out, left);
        store_n(grad_q + i * keys + c, out + load(bonus + c) * load(side.k + i * dim + c) * side.dots[i], left);
      }
    }
    if (piece < pieces) {
      unpack(static_cast<int>(job.value), part.width, state, dim, grad.chunks + kept + piece * job.value * job.dim,
             job.dim);
    }
  }
  pack_turned(part.width, job.value, grad.grad_last + corner, job.value, change, value, dim);
  for (Index piece = pieces; piece >= 0 && job.length > 0; --piece) {
    const Index t = piece * chunk;
    if (piece < pieces) {
      pack(static_cast<int>(job.value), static_cast<int>(part.width), grad.chunks + kept + piece * job.value * job.dim,
           job.dim, state, dim);
    }
    for (Index c = 0; c < dim; c += kLanes) {
      vf total = vf{};
      for (Index row = 0; row < job.value; ++row) total += load(state + row * dim + c) * load(change + row * dim + c);
      store(flow + c, total);
    }
    const int tokens = load_keys<T>(grad, part, t, side, dim, value);
    const Walk walk = backward<false>({tokens, value, dim, side.y, side.v, side.decay, side.q, side.out});
    if (job.bonus) {
      walk_all<Order::read_fade_gain, false>(walk, value, dim, change);
    } else {
      walk_all<Order::gain_read_fade, false>(walk, value, dim, change);
    }
    T* grad_k = rows_of(static_cast<T*>(grad.grad_k), job, part, t, job.dim) + part.first;
    float* grad_decay = rows_of(grad.grad_log_decay, job, part, t, job.dim) + part.first;
    for (int i = tokens - 1; i >= 0; --i) {
      for (Index c = 0; c < part.width; c += kLanes) {
        const int left = static_cast<int>(part.width - c);
        const vf out = load(side.out + i * dim + c), q = load(side.q + i * dim + c), k = load(side.k + i * dim + c);
        const vf gained = load_n(grad_decay + i * keys + c, left), flowed = load(flow + c) - k * out;
        const auto forgets = load(side.decay + i * dim + c) < splat(kForgets);
        const vf through = forgets ? splat(0.0f) : (job.bonus ? flowed : flowed + gained);
        store_n(grad_decay + i * keys + c, through, left);
        store(flow + c, job.bonus ? through + gained : through);
        store_n(grad_k + i * keys + c, out + load(bonus + c) * q * side.dots[i], left);
        store(grad_bonus + c, load(grad_bonus + c) + q * k * side.dots[i]);
      }
    }
  }
  if (grad.grad_bonus) {
    unpack(1, part.width, grad_bonus, dim, grad.grad_bonus + head * job.dim + part.first, 0);
  }
}

template <class T>
void backward_all(const ChannelDecayGrad& grad) {
  const ChannelDecay& job = grad.forward;
  const int threads = threads_for(job);
  const Index heads = job.batch * job.heads;
  const Index key_parts = parts_of(heads, job.dim, threads), value_parts = parts_of(heads, job.value, threads);
  const Index dim = pad(job.dim), value = pad(job.value), chunk = kChannelDecayChunk;
  const Index floats = chunk * (4 * dim + 2 * value + 1) + 2 * dim * value + 3 * dim;
  const Scratch scratch(threads, static_cast<std::size_t>(floats));
  // the larger tasks first
  parallel_for(heads * (key_parts + value_parts), threads, [&](Index index, int thread) {
    const bool keys = index < heads * key_parts;
    const Part part = keys ? part_of(index, job, job.dim, key_parts)
                           : part_of(index - heads * key_parts, job, job.value, value_parts);
    if (part.width <= 0) return;
    keys ? backward_keys<T>(grad, part, scratch.of(thread)) : backward_values<T>(grad, part, scratch.of(thread));
  });
}

}  // namespace

void channel_decay(const ChannelDecay& job) { job.half ? forward<bf16>(job) : forward<float>(job); }

void channel_decay_grad(const ChannelDecayGrad& job) {
  job.forward.half ? backward_all<bf16>(job) : backward_all<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
