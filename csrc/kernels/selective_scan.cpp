#include "selective_scan.hpp"

#include "threads.hpp"
#include "tile.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

constexpr int kChunk = static_cast<int>(kScanChunk);
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;
// States of one vector of channels that stay in registers together.
#if defined(__AVX512F__)
constexpr int kBlock = 16;
#else
constexpr int kBlock = 4;
#endif

// Where a chunk of one group of channels lies.
struct Place {
  std::ptrdiff_t batch, token, channel;
  int tokens, channels;  // how many
  int row;               // channels, rounded up to whole vectors
};

template <class T>
LINOCUT_INLINE T* corner(const Strided& tensor, const Place& at) {
  return static_cast<T*>(tensor.data) + at.batch * tensor.batch + at.token * tensor.token + at.channel * tensor.channel;
}

// A chunk as a tile (tokens, row), padded with zeros.
template <class T>
void read(const Strided& tensor, const Place& at, float* tile) {
  const T* from = corner<T>(tensor, at);
  if (tensor.channel == 1) return pack(at.tokens, at.channels, from, tensor.token, tile, at.row);
  for (int c = 0; c < at.row; ++c) {
    for (int t = 0; t < at.tokens; ++t) {
      tile[t * at.row + c] = c < at.channels ? load_one(from + t * tensor.token + c * tensor.channel) : 0.0f;
    }
  }
}

template <class T>
void write(const float* tile, const Strided& tensor, const Place& at) {
  T* to = corner<T>(tensor, at);
  if (tensor.channel == 1) {
    for (int t = 0; t < at.tokens; ++t) {
      for (int c = 0; c < at.channels; c += kLanes) {
        store_n(to + t * tensor.token + c, load(tile + t * at.row + c), at.channels - c);
      }
    }
    return;
  }
  for (int c = 0; c < at.channels; ++c) {
    for (int t = 0; t < at.tokens; ++t) store_one(to + t * tensor.token + c * tensor.channel, tile[t * at.row + c]);
  }
}

// B or C of a chunk as a tile (tokens, states), not padded: its values are broadcast.
template <class T>
void read_states(const Strided& tensor, const Place& at, int states, float* tile) {
  const T* from = static_cast<const T*>(tensor.data) + at.batch * tensor.batch + at.token * tensor.token;
  for (int t = 0; t < at.tokens; ++t) {
    for (int n = 0; n < states; ++n) tile[t * states + n] = load_one(from + t * tensor.token + n * tensor.channel);
  }
}

// (channels, states) of the caller to (states, row), times a factor, and back.
void turn(const float* from, int channels, int states, float factor, float* to, int row) {
  for (int n = 0; n < states; ++n) {
    for (int c = 0; c < row; ++c) to[n * row + c] = c < channels ? from[c * states + n] * factor : 0.0f;
  }
}

void turn_back(const float* from, int row, float* to, int channels, int states) {
  for (int c = 0; c < channels; ++c) {
    for (int n = 0; n < states; ++n) to[c * states + n] = from[n * row + c];
  }
}

void fill_row(const float* from, int channels, float* to, int row) {
  for (int c = 0; c < row; ++c) to[c] = from && c < channels ? from[c] : 0.0f;
}

// What a thread works in. Tiles are (tokens, row) unless said otherwise.
struct Tiles {
  float *x, *delta, *input, *y;  // input is delta x
  float *B, *C;                  // (tokens, states)
  float *A, *h;                  // (states, row); A times log2(e)
  float *D, *bias;               // (row)

  static std::size_t floats(int row, int states) {
    return static_cast<std::size_t>(4 * kChunk * row + 2 * kChunk * states + 2 * states * row + 2 * row);
  }

  Tiles(float* at, int row, int states) {
    const int tile = kChunk * row;
    x = at;
    delta = x + tile;
    input = delta + tile;
    y = input + tile;
    A = y + tile;
    h = A + states * row;
    D = h + states * row;
    bias = D + row;
    B = bias + row;
    C = B + kChunk * states;
  }

  template <class T>
  void begin(const SelectiveScan& job, const Place& at) {
    const int states = static_cast<int>(job.states);
    turn(job.A + at.channel * states, at.channels, states, kLog2E, A, at.row);
    turn(job.state + (at.batch * job.channels + at.channel) * states, at.channels, states, 1.0f, h, at.row);
    fill_row(job.D ? job.D + at.channel : nullptr, at.channels, D, at.row);
    fill_row(job.bias ? job.bias + at.channel : nullptr, at.channels, bias, at.row);
  }

  // A chunk's inputs; y is D x.
  template <class T>
  void load_chunk(const SelectiveScan& job, const Place& at) {
    read<T>(job.x, at, x);
    read<T>(job.delta, at, delta);
    read_states<T>(job.B, at, static_cast<int>(job.states), B);
    read_states<T>(job.C, at, static_cast<int>(job.states), C);
    for (int c = 0; c < at.row; c += kLanes) {
      const vf bias_c = load(bias + c), D_c = load(D + c);
      for (int i = c; i < at.tokens * at.row; i += at.row) {
        const vf raw = load(delta + i) + bias_c, step = job.softplus ? softplus(raw) : raw, x_t = load(x + i);
        store(delta + i, step);
        store(input + i, step * x_t);
        store(y + i, D_c * x_t);
      }
    }
  }
};

// Some states of one vector of channels through a chunk, adding to y.
template <int Block>
LINOCUT_INLINE void scan_block(const Tiles& tiles, int tokens, int row, int states, int c, int n) {
  vf h[Block];
  for (int i = 0; i < Block; ++i) h[i] = load(tiles.h + (n + i) * row + c);
  for (int t = 0; t < tokens; ++t) {
    const vf step = load(tiles.delta + t * row + c), input = load(tiles.input + t * row + c);
    const float *B = tiles.B + t * states + n, *C = tiles.C + t * states + n;
    vf y = load(tiles.y + t * row + c);
    for (int i = 0; i < Block; ++i) {
      h[i] = exp2(step * load(tiles.A + (n + i) * row + c)) * h[i] + input * B[i];
      y += h[i] * C[i];
    }
    store(tiles.y + t * row + c, y);
  }
  for (int i = 0; i < Block; ++i) store(tiles.h + (n + i) * row + c, h[i]);
}

void scan_chunk(const Tiles& tiles, int tokens, int row, int states) {
  for (int c = 0; c < row; c += kLanes) {
    int n = 0;
    for (; n + kBlock <= states; n += kBlock) scan_block<kBlock>(tiles, tokens, row, states, c, n);
    for (; n + 4 <= states; n += 4) scan_block<4>(tiles, tokens, row, states, c, n);
    for (; n < states; ++n) scan_block<1>(tiles, tokens, row, states, c, n);
  }
}

template <class T>
void forward(const SelectiveScan& job) {
  const int states = static_cast<int>(job.states);
  // as many channels as there are for a thread, up to what fits the second cache
  std::ptrdiff_t group = (job.batch * job.channels + job.threads - 1) / job.threads;
  group = static_cast<std::ptrdiff_t>(padded(group < 1 ? 1 : group > 128 ? 128 : group));
  const int row = static_cast<int>(group);
  const auto groups = (job.channels + group - 1) / group, chunks = (job.length + kChunk - 1) / kChunk;
  const Scratch scratch(job.threads, Tiles::floats(row, states));
  parallel_for(job.batch * groups, job.threads, [&](std::ptrdiff_t index, int thread) {
    Tiles tiles(scratch.of(thread), row, states);
    Place at{index / groups, 0, index % groups * group, 0, 0, row};
    at.channels = static_cast<int>(job.channels - at.channel < group ? job.channels - at.channel : group);
    tiles.begin<T>(job, at);
    for (std::ptrdiff_t chunk = 0; chunk < chunks; ++chunk) {
      at.token = chunk * kChunk;
      at.tokens = static_cast<int>(job.length - at.token < kChunk ? job.length - at.token : kChunk);
      if (job.checkpoints) {
        float* kept = job.checkpoints + (at.batch * chunks + chunk) * states * job.channels + at.channel;
        for (int n = 0; n < states; ++n) {
          for (int c = 0; c < at.channels; ++c) kept[n * job.channels + c] = tiles.h[n * row + c];
        }
      }
      tiles.load_chunk<T>(job, at);
      scan_chunk(tiles, at.tokens, row, states);
      if (job.z.data) {
        read<T>(job.z, at, tiles.x);
        for (int i = 0; i < at.tokens * row; i += kLanes) store(tiles.y + i, load(tiles.y + i) * silu(load(tiles.x + i)));
      }
      write<T>(tiles.y, job.y, at);
    }
    turn_back(tiles.h, row, job.last + (at.batch * job.channels + at.channel) * states, at.channels, states);
  });
}

// What the backward pass works in besides.
struct GradTiles {
  float *sigmoid, *grad_y, *gate_slope;      // (tokens, row): softplus' of delta, y's gradient, that of z by y
  float *grad_delta, *grad_input;            // (tokens, row)
  float *decays, *before;                    // (tokens, states together, lanes): exp(delta A), h before the token
  float *sums_B, *sums_C;                    // (tokens, states, lanes), over vectors of channels
  float *grad_h, *grad_A;                    // (states, row), grad_A over log2(e)
  float *grad_D, *grad_bias;                 // (row)

  static constexpr int kStates = 4;

  static std::size_t sums(int states) { return padded(kChunk * states) * kLanes; }

  static std::size_t floats(int row, int states) {
    return static_cast<std::size_t>(5 * kChunk * row + (2 * kChunk + 1) * kStates * kLanes + 2 * states * row + 2 * row) +
           2 * sums(states);
  }

  GradTiles(float* at, int row, int states) {
    const int tile = kChunk * row;
    sigmoid = at;
    grad_y = sigmoid + tile;
    gate_slope = grad_y + tile;
    grad_delta = gate_slope + tile;
    grad_input = grad_delta + tile;
    decays = grad_input + tile;
    before = decays + kChunk * kStates * kLanes;
    sums_B = before + (kChunk + 1) * kStates * kLanes;
    sums_C = sums_B + sums(states);
    grad_h = sums_C + sums(states);
    grad_A = grad_h + states * row;
    grad_D = grad_A + states * row;
    grad_bias = grad_D + row;
  }

  // A chunk's gradients as they come, through the gate.
  template <class T>
  void load_chunk(const SelectiveScanGrad& grad, const Place& at, const Tiles& tiles) {
    const SelectiveScan& job = grad.forward;
    const int size = at.tokens * at.row;
    if (job.softplus) {
      read<T>(job.delta, at, sigmoid);
      for (int c = 0; c < at.row; c += kLanes) {
        const vf bias = load(tiles.bias + c);
        for (int i = c; i < size; i += at.row) store(sigmoid + i, linocut::LINOCUT_ISA::sigmoid(load(sigmoid + i) + bias));
      }
    }
    read<T>(grad.grad_y, at, grad_y);
    if (job.z.data) {
      read<T>(job.z, at, gate_slope);
      for (int i = 0; i < size; i += kLanes) {
        const vf z = load(gate_slope + i), open = linocut::LINOCUT_ISA::sigmoid(z), g = load(grad_y + i);
        store(grad_y + i, g * z * open);
        store(gate_slope + i, g * open * (1.0f + z * (1.0f - open)));
      }
    }
    for (int i = 0; i < size; i += kLanes) {
      store(grad_delta + i, splat(0.0f));
      store(grad_input + i, splat(0.0f));
    }
  }

  // From the gradients of delta A and delta x to those of delta and x; all of a chunk to memory.
  template <class T>
  void store_chunk(const SelectiveScanGrad& grad, const Place& at, const Tiles& tiles) {
    const SelectiveScan& job = grad.forward;
    for (int c = 0; c < at.row; c += kLanes) {
      const vf D = load(tiles.D + c);
      vf sum_D = load(grad_D + c), sum_bias = load(grad_bias + c);
      for (int i = c; i < at.tokens * at.row; i += at.row) {
        const vf of_input = load(grad_input + i), of_y = load(grad_y + i), x = load(tiles.x + i);
        vf of_delta = load(grad_delta + i) * kLn2 + of_input * x;
        if (job.softplus) of_delta *= load(sigmoid + i);
        store(grad_delta + i, of_delta);
        store(grad_input + i, of_input * load(tiles.delta + i) + of_y * D);
        sum_bias += of_delta;
        sum_D += of_y * x;
      }
      store(grad_D + c, sum_D);
      store(grad_bias + c, sum_bias);
    }
    write<T>(grad_input, grad.grad_x, at);
    write<T>(grad_delta, grad.grad_delta, at);
    if (job.z.data) {
      for (int i = 0; i < at.tokens * at.row; i += kLanes) {
        store(gate_slope + i, load(gate_slope + i) * load(tiles.y + i));
      }
      write<T>(gate_slope, grad.grad_z, at);
    }
  }
};

// Some states of one vector of channels: forward again through the chunk, then back.
template <int Block, bool First>
LINOCUT_INLINE void grad_block(const Tiles& tiles, const GradTiles& grads, int tokens, int row, int states, int c, int n) {
  vf h[Block], A[Block];
  for (int i = 0; i < Block; ++i) {
    h[i] = load(tiles.h + (n + i) * row + c);
    A[i] = load(tiles.A + (n + i) * row + c);
  }
  for (int t = 0; t < tokens; ++t) {
    const vf step = load(tiles.delta + t * row + c), input = load(tiles.input + t * row + c);
    const float *B = tiles.B + t * states + n, *C = tiles.C + t * states + n;
    float *decays = grads.decays + t * Block * kLanes, *before = grads.before + t * Block * kLanes;
    vf y = load(tiles.y + t * row + c);
    for (int i = 0; i < Block; ++i) {
      const vf decay = exp2(step * A[i]);
      store(decays + i * kLanes, decay);
      store(before + i * kLanes, h[i]);
      h[i] = decay * h[i] + input * B[i];
      y += h[i] * C[i];
    }
    store(tiles.y + t * row + c, y);
  }
  vf g[Block], grad_A[Block];
  for (int i = 0; i < Block; ++i) {
    g[i] = load(grads.grad_h + (n + i) * row + c);
    grad_A[i] = load(grads.grad_A + (n + i) * row + c);
  }
  for (int t = tokens - 1; t >= 0; --t) {
    const vf step = load(tiles.delta + t * row + c), input = load(tiles.input + t * row + c);
    const vf of_y = load(grads.grad_y + t * row + c);
    const float *B = tiles.B + t * states + n, *C = tiles.C + t * states + n;
    const float *decays = grads.decays + t * Block * kLanes, *before = grads.before + t * Block * kLanes;
    float *sums_B = grads.sums_B + (t * states + n) * kLanes, *sums_C = grads.sums_C + (t * states + n) * kLanes;
    vf of_step = load(grads.grad_delta + t * row + c), of_input = load(grads.grad_input + t * row + c);
    for (int i = 0; i < Block; ++i) {
      g[i] += of_y * C[i];
      const vf of_B = g[i] * input, of_C = of_y * h[i];
      store(sums_B + i * kLanes, First ? of_B : load(sums_B + i * kLanes) + of_B);
      store(sums_C + i * kLanes, First ? of_C : load(sums_C + i * kLanes) + of_C);
      of_input += g[i] * B[i];
      g[i] *= load(decays + i * kLanes);
      h[i] = load(before + i * kLanes);
      const vf of_product = g[i] * h[i];
      of_step += of_product * A[i];
      grad_A[i] += of_product * step;
    }
    store(grads.grad_delta + t * row + c, of_step);
    store(grads.grad_input + t * row + c, of_input);
  }
  for (int i = 0; i < Block; ++i) {
    store(grads.grad_h + (n + i) * row + c, g[i]);
    store(grads.grad_A + (n + i) * row + c, grad_A[i]);
  }
}

template <bool First>
void grad_chunk(const Tiles& tiles, const GradTiles& grads, int tokens, int row, int states, int c) {
  int n = 0;
  for (; n + GradTiles::kStates <= states; n += GradTiles::kStates) {
    grad_block<GradTiles::kStates, First>(tiles, grads, tokens, row, states, c, n);
  }
  for (; n < states; ++n) grad_block<1, First>(tiles, grads, tokens, row, states, c, n);
}

template <class T>
void backward(const SelectiveScanGrad& grad) {
  const SelectiveScan& job = grad.forward;
  const int states = static_cast<int>(job.states);
  const auto group = scan_group(job.channels);
  const int row = static_cast<int>(padded(group));
  const auto groups = (job.channels + group - 1) / group, chunks = (job.length + kChunk - 1) / kChunk;
  const auto own = (Tiles::floats(row, states) + kLanes - 1) / kLanes * kLanes;
  const Scratch scratch(job.threads, own + GradTiles::floats(row, states));
  parallel_for(job.batch * groups, job.threads, [&](std::ptrdiff_t index, int thread) {
    Tiles tiles(scratch.of(thread), row, states);
    GradTiles grads(scratch.of(thread) + own, row, states);
    Place at{index / groups, 0, index % groups * group, 0, 0, row};
    at.channels = static_cast<int>(job.channels - at.channel < group ? job.channels - at.channel : group);
    const auto of_states = (at.batch * job.channels + at.channel) * states;
    tiles.begin<T>(job, at);
    turn(grad.grad_last + of_states, at.channels, states, 1.0f, grads.grad_h, row);
    for (int i = 0; i < states * row; ++i) grads.grad_A[i] = 0;
    for (int c = 0; c < row; ++c) grads.grad_D[c] = grads.grad_bias[c] = 0;
    for (auto chunk = chunks - 1; chunk >= 0; --chunk) {
      at.token = chunk * kChunk;
      at.tokens = static_cast<int>(job.length - at.token < kChunk ? job.length - at.token : kChunk);
      const float* kept = job.checkpoints + (at.batch * chunks + chunk) * states * job.channels + at.channel;
      pack(states, at.channels, kept, job.channels, tiles.h, row);
      tiles.load_chunk<T>(job, at);
      grads.load_chunk<T>(grad, at, tiles);
      grad_chunk<true>(tiles, grads, at.tokens, row, states, 0);
      for (int c = kLanes; c < row; c += kLanes) grad_chunk<false>(tiles, grads, at.tokens, row, states, c);
      grads.store_chunk<T>(grad, at, tiles);
      const auto of_B = (index * job.length + at.token) * states;
      for (int i = 0; i < at.tokens * states; i += kLanes) {
        store_n(grad.grad_B + of_B + i, sums(grads.sums_B + i * kLanes), at.tokens * states - i);
        store_n(grad.grad_C + of_B + i, sums(grads.sums_C + i * kLanes), at.tokens * states - i);
      }
    }
    turn_back(grads.grad_h, row, grad.grad_state + of_states, at.channels, states);
    turn_back(grads.grad_A, row, grad.grad_A + of_states, at.channels, states);
    for (int c = 0; c < at.channels; ++c) {
      grad.grad_D[at.batch * job.channels + at.channel + c] = grads.grad_D[c];
      grad.grad_bias[at.batch * job.channels + at.channel + c] = grads.grad_bias[c];
    }
  });
}

}  // namespace

void selective_scan(const SelectiveScan& job) { job.half ? forward<bf16>(job) : forward<float>(job); }

void selective_scan_grad(const SelectiveScanGrad& job) {
  job.forward.half ? backward<bf16>(job) : backward<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
