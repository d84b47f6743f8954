#include "selective_scan.hpp"

#include "selective_scan_layout.hpp"
#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// Tokens that one vector of channels takes before the next vector's turn: what they read stays near.
constexpr int kSteps = 16;
static_assert(kScanChunk % kSteps == 0);
// Channels of one job at most, whose states stay in the second cache.
constexpr std::ptrdiff_t kMostChannels = 512;
// States whose exponentials are worked out side by side.
#if defined(__AVX512F__)
constexpr int kBlock = 8;
#else
constexpr int kBlock = 2;
#endif

// What a thread works in: rates (times log2(e)), states, skips and biases of its channels; copies of what does not lie
// channel by channel.
struct Tiles {
  float *A, *h;                  // (vectors, states, lanes)
  float *B, *C;                  // (steps, states)
  float *x, *delta, *z, *y;      // (steps, lanes)

  static std::size_t floats(std::size_t group, std::size_t states) {
    return 2 * group * states + 2 * padded(kSteps * states) + 4 * kSteps * kLanes;
  }

  Tiles(float* at, std::size_t group, std::size_t states) {
    A = at;
    h = A + group * states;
    x = h + group * states;
    delta = x + kSteps * kLanes;
    z = delta + kSteps * kLanes;
    y = z + kSteps * kLanes;
    B = y + kSteps * kLanes;
    C = B + padded(kSteps * states);
  }
};

// Some states of one vector of channels through one token, adding to two parts of y.
template <int Block>
LINOCUT_INLINE void advance(vf step, vf input, const float* A, const float* B, const float* C, float* h, vf& even,
                            vf& odd) {
  vf decay[Block];
  for (int i = 0; i < Block; ++i) decay[i] = exp2(step * load(A + i * kLanes));
  for (int i = 0; i < Block; ++i) {
    const vf after = decay[i] * load(h + i * kLanes) + input * B[i];
    store(h + i * kLanes, after);
    if (i % 2 == 0) {
      even += after * C[i];
    } else {
      odd += after * C[i];
    }
  }
}

// One vector of channels through some tokens. States wait in the nearest cache, not in registers: they are fewer than
// the exponentials' steps, and so a token is one pass from its inputs to its output.
template <class T, bool Softplus, bool Gate>
void scan(const SelectiveScan& job, const Place& at, const Tiles& tiles, const float* A, const float* B, const float* C,
          float* h) {
  const int states = static_cast<int>(job.states);
  const vf D = job.D ? load_n(job.D + at.channel, at.channels) : splat(0.0f);
  const vf bias = job.bias ? load_n(job.bias + at.channel, at.channels) : splat(0.0f);
  const Reader<T> x(job.x, at, tiles.x), delta(job.delta, at, tiles.delta), z(Gate ? job.z : job.x, at, tiles.z);
  const Writer<T> y(job.y, at, tiles.y);
  for (int t = 0; t < at.tokens; ++t) {
    x.prefetch(t, kSteps);
    delta.prefetch(t, kSteps);
    y.prefetch(t, kSteps);
    const vf raw = delta(t) + bias, step = Softplus ? softplus(raw) : raw, x_t = x(t), input = step * x_t;
    const float *B_t = B + t * states, *C_t = C + t * states;
    vf even = D * x_t, odd = splat(0.0f);
    int n = 0;
    for (; n + kBlock <= states; n += kBlock) {
      advance<kBlock>(step, input, A + n * kLanes, B_t + n, C_t + n, h + n * kLanes, even, odd);
    }
    for (; n < states; ++n) advance<1>(step, input, A + n * kLanes, B_t + n, C_t + n, h + n * kLanes, even, odd);
    if (Gate) z.prefetch(t, kSteps);
    y(t, Gate ? (even + odd) * silu(z(t)) : even + odd);
  }
  y.finish();
}

template <class T>
void scan(const SelectiveScan& job, const Place& at, const Tiles& tiles, const float* A, const float* B, const float* C,
          float* h) {
  const bool gate = job.z.data;
  if (job.softplus) {
    return gate ? scan<T, true, true>(job, at, tiles, A, B, C, h) : scan<T, true, false>(job, at, tiles, A, B, C, h);
  }
  return gate ? scan<T, false, true>(job, at, tiles, A, B, C, h) : scan<T, false, false>(job, at, tiles, A, B, C, h);
}

// The states before a chunk, for training.
void keep(const SelectiveScan& job, const Place& at, const float* h) {
  float* to = checkpoint(job, at.batch, at.token / kScanChunk, at.channel);
  const auto next = checkpoint(job, at.batch, at.token / kScanChunk + 1, at.channel) - to;
  for (std::ptrdiff_t n = 0; n < job.states; ++n) {
    __builtin_prefetch(to + next + n * kScanBlock, 1, 2);
    store(to + n * kScanBlock, load(h + n * kLanes));
  }
}

// Some channels of one sequence, from end to end.
template <class T>
void forward(const SelectiveScan& job, std::ptrdiff_t batch, std::ptrdiff_t channel, int channels, const Tiles& tiles) {
  const int states = static_cast<int>(job.states);
  const auto of_states = (batch * job.channels + channel) * states;
  turn(job.A + channel * states, channels, states, kLog2E, tiles.A);
  turn(job.state + of_states, channels, states, 1.0f, tiles.h);
  Place at{batch, 0, 0, 0, 0};
  for (; at.token < job.length; at.token += kSteps) {
    at.tokens = static_cast<int>(job.length - at.token < kSteps ? job.length - at.token : kSteps);
    const float *B = states_of<T>(job.B, at, states, tiles.B), *C = states_of<T>(job.C, at, states, tiles.C);
    for (int c = 0; c < channels; c += kLanes) {
      at.channel = channel + c;
      at.channels = channels - c < kLanes ? channels - c : kLanes;
      float* h = tiles.h + c * states;
      if (job.checkpoints && at.token % kScanChunk == 0) keep(job, at, h);
      scan<T>(job, at, tiles, tiles.A + c * states, B, C, h);
    }
  }
  turn_back(tiles.h, channels, states, job.last + of_states);
}

template <class T>
void forward(const SelectiveScan& job) {
  std::ptrdiff_t group = (job.batch * job.channels + job.threads - 1) / job.threads;
  group = group < 1 ? 1 : group > kMostChannels ? kMostChannels : group;
  group = static_cast<std::ptrdiff_t>(padded(static_cast<std::size_t>(group < job.channels ? group : job.channels)));
  if (group == 0) return;
  const auto groups = (job.channels + group - 1) / group;
  const auto width = static_cast<std::size_t>(group), states = static_cast<std::size_t>(job.states);
  const Scratch scratch(job.threads, Tiles::floats(width, states));
  parallel_for(job.batch * groups, job.threads, [&](std::ptrdiff_t index, int thread) {
    const auto channel = index % groups * group;
    const auto channels = static_cast<int>(job.channels - channel < group ? job.channels - channel : group);
    forward<T>(job, index / groups, channel, channels, Tiles(scratch.of(thread), width, states));
  });
}

}  // namespace

void selective_scan(const SelectiveScan& job) { job.half ? forward<bf16>(job) : forward<float>(job); }

}  // namespace linocut::LINOCUT_ISA
