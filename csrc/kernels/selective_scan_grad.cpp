#include "selective_scan_layout.hpp"
#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

constexpr int kChunk = static_cast<int>(kScanChunk);
// States, and vectors of channels, that go back through a chunk together. The gradients of B and C are summed over the
// channels: over the vectors before anything is stored, and over the lanes as far as the states can share a vector.
constexpr int kBlock = 4, kVectors = 2;
constexpr int kTile = kChunk * kLanes;
static_assert(kBlock <= kLanes && kChunk % kLanes == 0 && kVectors <= 2);
// Groups of channels of one job at most, whose states stay in the second cache.
constexpr std::ptrdiff_t kMostGroups = 4;

// What a thread works in, for a group of channels. Tiles are of the vectors together.
struct Tiles {
  float *x, *step, *input, *grad_y;    // (vectors, tokens, lanes); input is delta x
  float *grad_step, *grad_input;       // likewise; of delta A over ln 2, of delta x
  float *slope, *y, *gate;             // likewise: softplus' of delta; without gate; y's weight in z's gradient
  float *decays, *before;              // (tokens, vectors, states together, lanes): exp(delta A); h, and after the last
  float *sums_B, *sums_C;              // (blocks of states, tokens, lanes)
  float *A, *grad_h, *grad_A;          // (vectors of the group, states, lanes); A times log2(e), grad_A over log2(e)
  float *grad_D, *grad_bias;           // (vectors of the group, lanes)
  float *B, *C;                        // (tokens, states)
  float *copy;                         // (tokens, lanes), four times

  static constexpr std::size_t kOfVectors = kVectors * kTile, kKept = (kChunk + 1) * kVectors * kBlock * kLanes;

  static std::size_t sums(std::size_t states) { return (states / kBlock + states % kBlock) * kTile; }

  static std::size_t floats(std::size_t group, std::size_t states) {
    return 9 * kOfVectors + 2 * kKept + 2 * sums(states) + 3 * group * states + 2 * group +
           2 * padded(kChunk * states) + 4 * kTile;
  }

  Tiles(float* at, std::size_t group, std::size_t states) {
    const auto take = [&at](std::size_t size) {
      float* taken = at;
      at += size;
      return taken;
    };
    float** const of_vectors[] = {&x, &step, &input, &grad_y, &grad_step, &grad_input, &slope, &y, &gate};
    for (float** each : of_vectors) *each = take(kOfVectors);
    decays = take(kKept);
    before = take(kKept);
    sums_B = take(sums(states));
    sums_C = take(sums(states));
    float** const of_states[] = {&A, &grad_h, &grad_A};
    for (float** each : of_states) *each = take(group * states);
    grad_D = take(group);
    grad_bias = take(group);
    B = take(padded(kChunk * states));
    C = take(padded(kChunk * states));
    copy = take(4 * kTile);
  }
};

// A chunk of some vectors of channels.
struct Piece {
  Place at;              // of the first vector, or of any one of them
  int vector, states;    // its number in the group
  bool first;            // whether the sums over channels begin with it
  const float *B, *C;    // (tokens, states)
  const float* before[kVectors];  // the kept states of each vector
};

// Adds neighbouring lanes of N vectors until they share one: lanes i kLanes / N and on are of vector i.
template <int N>
LINOCUT_INLINE vf fold(vf (&vectors)[N]) {
  const vi even = 2 * lane_numbers(), odd = even + 1;
  for (int count = N / 2; count > 0; count /= 2) {
    for (int i = 0; i < count; ++i) {
      const vf low = vectors[2 * i], high = vectors[2 * i + 1];
      vectors[i] = permute(low, high, even) + permute(low, high, odd);
    }
  }
  return vectors[0];
}

// Inputs and gradients of one vector of channels, through the gate and the softplus.
template <class T>
void load_vector(const SelectiveScanGrad& grad, const Place& at, const Tiles& tiles, int tile) {
  const SelectiveScan& job = grad.forward;
  const bool gated = job.z.data;
  const vf D = job.D ? load_n(job.D + at.channel, at.channels) : splat(0.0f);
  const vf bias = job.bias ? load_n(job.bias + at.channel, at.channels) : splat(0.0f);
  const Reader<T> x(job.x, at, tiles.copy), delta(job.delta, at, tiles.copy + kTile);
  const Reader<T> grad_y(grad.grad_y, at, tiles.copy + 2 * kTile), z(gated ? job.z : job.x, at, tiles.copy + 3 * kTile);
  const Writer<T> grad_x(grad.grad_x, at, nullptr), grad_delta(grad.grad_delta, at, nullptr);
  for (int t = 0; t < at.tokens; ++t) {
    const auto i = tile + t * kLanes;
    x.prefetch(t, -kChunk);
    delta.prefetch(t, -kChunk);
    grad_y.prefetch(t, -kChunk);
    grad_x.prefetch(t, -kChunk);
    grad_delta.prefetch(t, -kChunk);
    const vf raw = delta(t) + bias, step = job.softplus ? softplus(raw) : raw, x_t = x(t);
    vf of_y = grad_y(t);
    if (gated) {
      const vf z_t = z(t), open = sigmoid(z_t);
      store(tiles.gate + i, of_y * open * (1.0f + z_t * (1.0f - open)));
      store(tiles.y + i, D * x_t);
      of_y *= z_t * open;
    }
    if (job.softplus) store(tiles.slope + i, sigmoid(raw));
    store(tiles.x + i, x_t);
    store(tiles.step + i, step);
    store(tiles.input + i, step * x_t);
    store(tiles.grad_y + i, of_y);
    store(tiles.grad_step + i, splat(0.0f));
    store(tiles.grad_input + i, splat(0.0f));
  }
}

// From the gradients of delta A and delta x to those of delta and x, and to memory.
template <class T>
void store_vector(const SelectiveScanGrad& grad, const Place& at, const Tiles& tiles, int tile, int vector) {
  const SelectiveScan& job = grad.forward;
  const bool gated = job.z.data;
  const vf D = job.D ? load_n(job.D + at.channel, at.channels) : splat(0.0f);
  vf sum_D = load(tiles.grad_D + vector * kLanes), sum_bias = load(tiles.grad_bias + vector * kLanes);
  const Writer<T> grad_x(grad.grad_x, at, tiles.copy), grad_delta(grad.grad_delta, at, tiles.copy + kTile);
  const Writer<T> grad_z(gated ? grad.grad_z : grad.grad_x, at, tiles.copy + 2 * kTile);
  for (int t = 0; t < at.tokens; ++t) {
    const auto i = tile + t * kLanes;
    const vf of_input = load(tiles.grad_input + i), of_y = load(tiles.grad_y + i), x = load(tiles.x + i);
    vf of_delta = load(tiles.grad_step + i) * kLn2 + of_input * x;
    if (job.softplus) of_delta *= load(tiles.slope + i);
    grad_delta(t, of_delta);
    grad_x(t, of_input * load(tiles.step + i) + of_y * D);
    if (gated) grad_z(t, load(tiles.gate + i) * load(tiles.y + i));
    sum_bias += of_delta;
    sum_D += of_y * x;
  }
  grad_x.finish();
  grad_delta.finish();
  if (gated) grad_z.finish();
  store(tiles.grad_D + vector * kLanes, sum_D);
  store(tiles.grad_bias + vector * kLanes, sum_bias);
}

// Some states of one vector of channels forward again through a chunk, keeping what the way back needs; and y, which
// only a gate needs.
template <int Block, int Vectors, bool Gated>
LINOCUT_INLINE void recompute(const Tiles& tiles, const Piece& piece, int v, int n) {
  constexpr int kRow = Vectors * Block * kLanes;
  const float* A = tiles.A + ((piece.vector + v) * piece.states + n) * kLanes;
  float *decays = tiles.decays + v * Block * kLanes, *before = tiles.before + v * Block * kLanes;
  vf h[Block];
  for (int i = 0; i < Block; ++i) h[i] = load(piece.before[v] + (n + i) * kScanBlock);
  for (int t = 0; t < piece.at.tokens; ++t) {
    const auto at = v * kTile + t * kLanes;
    const vf step = load(tiles.step + at), input = load(tiles.input + at);
    const float *B = piece.B + t * piece.states + n, *C = piece.C + t * piece.states + n;
    vf y = splat(0.0f);
    for (int i = 0; i < Block; ++i) {
      const vf decay = exp2(step * load(A + i * kLanes));
      store(decays + t * kRow + i * kLanes, decay);
      store(before + t * kRow + i * kLanes, h[i]);
      h[i] = decay * h[i] + input * B[i];
      if (Gated) y += h[i] * C[i];
    }
    if (Gated) store(tiles.y + at, load(tiles.y + at) + y);
  }
  for (int i = 0; i < Block; ++i) store(before + piece.at.tokens * kRow + i * kLanes, h[i]);
}

// The same states of one vector back through one token; what they add to the gradients of B and C.
template <int Block>
LINOCUT_INLINE void step_back(const Tiles& tiles, const Piece& piece, int n, int t, int v, int row, vf (&g)[Block],
                              vf (&grad_A)[Block], vf (&h)[Block], vf (&of_B)[Block], vf (&of_C)[Block]) {
  const auto at = v * kTile + t * kLanes, kept = t * row + v * Block * kLanes;
  const float *B = piece.B + t * piece.states + n, *C = piece.C + t * piece.states + n;
  const float* A = tiles.A + ((piece.vector + v) * piece.states + n) * kLanes;
  const vf step = load(tiles.step + at), input = load(tiles.input + at), of_y = load(tiles.grad_y + at);
  vf of_step = load(tiles.grad_step + at), of_input = load(tiles.grad_input + at);
  for (int i = 0; i < Block; ++i) {
    g[i] += of_y * C[i];
    of_B[i] += g[i] * input;
    of_C[i] += of_y * h[i];
    of_input += g[i] * B[i];
    g[i] *= load(tiles.decays + kept + i * kLanes);
    h[i] = load(tiles.before + kept + i * kLanes);
    const vf of_product = g[i] * h[i];
    of_step += of_product * load(A + i * kLanes);
    grad_A[i] += of_product * step;
  }
  store(tiles.grad_step + at, of_step);
  store(tiles.grad_input + at, of_input);
}

// The same states of all vectors back through the chunk.
template <int Block, int Vectors>
LINOCUT_INLINE void go_back(const Tiles& tiles, const Piece& piece, int n, float* sums_B, float* sums_C) {
  constexpr int kRow = Vectors * Block * kLanes;
  const auto of_states = [&](float* tile, int v) LINOCUT_LAMBDA {
    return tile + ((piece.vector + v) * piece.states + n) * kLanes;
  };
  vf g[Vectors][Block], grad_A[Vectors][Block], h[Vectors][Block];
  for (int v = 0; v < Vectors; ++v) {
    for (int i = 0; i < Block; ++i) {
      g[v][i] = load(of_states(tiles.grad_h, v) + i * kLanes);
      grad_A[v][i] = load(of_states(tiles.grad_A, v) + i * kLanes);
      h[v][i] = load(tiles.before + piece.at.tokens * kRow + (v * Block + i) * kLanes);
    }
  }
  for (int t = piece.at.tokens - 1; t >= 0; --t) {
    vf of_B[Block] = {}, of_C[Block] = {};
    // one by one, not in a loop: arrays stay in registers only where all their indices are constants early
    step_back<Block>(tiles, piece, n, t, 0, kRow, g[0], grad_A[0], h[0], of_B, of_C);
    if (Vectors > 1) {
      constexpr int v = Vectors - 1;
      step_back<Block>(tiles, piece, n, t, v, kRow, g[v], grad_A[v], h[v], of_B, of_C);
    }
    const vf sum_B = fold<Block>(of_B), sum_C = fold<Block>(of_C);
    store(sums_B + t * kLanes, piece.first ? sum_B : load(sums_B + t * kLanes) + sum_B);
    store(sums_C + t * kLanes, piece.first ? sum_C : load(sums_C + t * kLanes) + sum_C);
  }
  for (int v = 0; v < Vectors; ++v) {
    for (int i = 0; i < Block; ++i) {
      store(of_states(tiles.grad_h, v) + i * kLanes, g[v][i]);
      store(of_states(tiles.grad_A, v) + i * kLanes, grad_A[v][i]);
    }
  }
}

// Some states there and back; n numbers the first, block the sums they share.
template <int Block, int Vectors>
void of_states(const SelectiveScan& job, const Tiles& tiles, const Piece& piece, int n, int block) {
  for (int v = 0; v < Vectors; ++v) {
    job.z.data ? recompute<Block, Vectors, true>(tiles, piece, v, n)
               : recompute<Block, Vectors, false>(tiles, piece, v, n);
  }
  go_back<Block, Vectors>(tiles, piece, n, tiles.sums_B + block * kTile, tiles.sums_C + block * kTile);
}

template <class T, int Vectors>
void of_vectors(const SelectiveScanGrad& grad, const Tiles& tiles, const Piece& piece) {
  const auto each = [&](auto&& run) LINOCUT_LAMBDA {
    for (int v = 0; v < Vectors; ++v) {
      Place at = piece.at;
      at.channel += v * kLanes;
      at.channels = at.channels - v * kLanes < kLanes ? at.channels - v * kLanes : kLanes;
      run(at, v);
    }
  };
  each([&](const Place& at, int v) { load_vector<T>(grad, at, tiles, v * kTile); });
  int n = 0, block = 0;
  for (; n + kBlock <= piece.states; n += kBlock) of_states<kBlock, Vectors>(grad.forward, tiles, piece, n, block++);
  for (; n < piece.states; ++n) of_states<1, Vectors>(grad.forward, tiles, piece, n, block++);
  each([&](const Place& at, int v) { store_vector<T>(grad, at, tiles, v * kTile, piece.vector + v); });
}

// What is left of the sums over lanes, for the states of one block.
template <int Block>
void finish_sums(const float* sums, int tokens, int states, float* to) {
  constexpr int kTogether = kLanes / Block;
  for (int t = 0; t < tokens; t += kTogether) {
    vf rows[kTogether];
    for (int i = 0; i < kTogether; ++i) rows[i] = load(sums + (t + i) * kLanes);
    float done[kLanes];
    store(done, fold<kTogether>(rows));
    for (int i = 0; i < kTogether && t + i < tokens; ++i) {
      for (int j = 0; j < Block; ++j) to[(t + i) * states + j] = done[i * Block + j];
    }
  }
}

void finish_sums(const float* sums, int tokens, int states, float* to) {
  int n = 0;
  for (; n + kBlock <= states; n += kBlock, sums += kTile) finish_sums<kBlock>(sums, tokens, states, to + n);
  for (; n < states; ++n, sums += kTile) finish_sums<1>(sums, tokens, states, to + n);
}

// A chunk of one group of channels, the gradients of B and C summed over them.
template <class T>
void of_group(const SelectiveScanGrad& grad, const Tiles& tiles, Piece piece, std::ptrdiff_t group) {
  const SelectiveScan& job = grad.forward;
  Place& at = piece.at;
  const auto chunk = at.token / kChunk;
  piece.first = true;
  while (at.channels > 0) {
    const int together = at.channels <= (kVectors - 1) * kLanes ? 1 : kVectors;
    for (int v = 0; v < together; ++v) {
      piece.before[v] = checkpoint(job, at.batch, chunk, at.channel + v * kLanes);
      const float* next = checkpoint(job, at.batch, chunk > 0 ? chunk - 1 : 0, at.channel + v * kLanes);
      for (int n = 0; n < piece.states; ++n) __builtin_prefetch(next + n * kScanBlock, 0, 2);
    }
    together == 1 ? of_vectors<T, 1>(grad, tiles, piece) : of_vectors<T, kVectors>(grad, tiles, piece);
    piece.first = false;
    piece.vector += together;
    at.channel += together * kLanes;
    at.channels -= together * kLanes;
  }
  const auto to = (group * job.length + at.token) * piece.states;
  finish_sums(tiles.sums_B, at.tokens, piece.states, grad.grad_B + to);
  finish_sums(tiles.sums_C, at.tokens, piece.states, grad.grad_C + to);
}

// Some groups of channels of one sequence, from end to beginning, all of them through a chunk before the chunk before
// it: rows of memory are read from end to end.
template <class T>
void backward(const SelectiveScanGrad& grad, std::ptrdiff_t batch, std::ptrdiff_t first, std::ptrdiff_t count,
              const Tiles& tiles) {
  const SelectiveScan& job = grad.forward;
  const int states = static_cast<int>(job.states);
  const auto group = scan_group(job.channels), groups = (job.channels + group - 1) / group, start = first * group;
  const auto channels = static_cast<int>(job.channels - start < count * group ? job.channels - start : count * group);
  const int vectors = (static_cast<int>(group) + kLanes - 1) / kLanes;
  const auto own = (batch * job.channels + start) * states;
  const auto each = [&](auto&& run) LINOCUT_LAMBDA {
    for (int c = 0; c < channels; c += static_cast<int>(group)) {
      run(c, channels - c < group ? channels - c : static_cast<int>(group), c / static_cast<int>(group));
    }
  };
  each([&](int c, int width, int i) {
    const auto at = i * vectors * states * kLanes;
    turn(job.A + (start + c) * states, width, states, kLog2E, tiles.A + at);
    turn(grad.grad_last + own + c * states, width, states, 1.0f, tiles.grad_h + at);
  });
  for (int i = 0; i < count * vectors * states * kLanes; ++i) tiles.grad_A[i] = 0;
  for (int i = 0; i < count * vectors * kLanes; ++i) tiles.grad_D[i] = tiles.grad_bias[i] = 0;
  for (auto token = (job.length - 1) / kChunk * kChunk; token >= 0 && job.length > 0; token -= kChunk) {
    Place at{batch, token, start, 0, channels};
    at.tokens = static_cast<int>(job.length - token < kChunk ? job.length - token : kChunk);
    const float *B = states_of<T>(job.B, at, states, tiles.B), *C = states_of<T>(job.C, at, states, tiles.C);
    each([&](int c, int width, int i) {
      const Place of_group_at{batch, token, start + c, at.tokens, width};
      of_group<T>(grad, tiles, {of_group_at, i * vectors, states, true, B, C, {}}, batch * groups + first + i);
    });
  }
  each([&](int c, int width, int i) {
    const auto at = i * vectors * states * kLanes;
    turn_back(tiles.grad_h + at, width, states, grad.grad_state + own + c * states);
    turn_back(tiles.grad_A + at, width, states, grad.grad_A + own + c * states);
    for (int k = 0; k < width; ++k) {
      grad.grad_D[batch * job.channels + start + c + k] = tiles.grad_D[i * vectors * kLanes + k];
      grad.grad_bias[batch * job.channels + start + c + k] = tiles.grad_bias[i * vectors * kLanes + k];
    }
  });
}

template <class T>
void backward(const SelectiveScanGrad& grad) {
  const SelectiveScan& job = grad.forward;
  const auto group = scan_group(job.channels);
  if (group == 0) return;
  const auto groups = (job.channels + group - 1) / group;
  auto together = (job.batch * groups + job.threads - 1) / job.threads;
  together = together < 1 ? 1 : together > kMostGroups ? kMostGroups : together;
  together = together < groups ? together : groups;
  const auto jobs = (groups + together - 1) / together;
  const auto width = padded(static_cast<std::size_t>(group)) * static_cast<std::size_t>(together);
  const auto states = static_cast<std::size_t>(job.states);
  const Scratch scratch(job.threads, Tiles::floats(width, states));
  parallel_for(job.batch * jobs, job.threads, [&](std::ptrdiff_t index, int thread) {
    const auto first = index % jobs * together;
    const auto count = groups - first < together ? groups - first : together;
    backward<T>(grad, index / jobs, first, count, Tiles(scratch.of(thread), width, states));
  });
}

}  // namespace

void selective_scan_grad(const SelectiveScanGrad& job) {
  job.forward.half ? backward<bf16>(job) : backward<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
