// What the two passes of the selective scan share: vectors of channels over some tokens, from tensors of any layout.
#pragma once

#include "selective_scan.hpp"
#include "tile.hpp"

namespace linocut::LINOCUT_ISA {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// Some tokens of one vector of channels, or of fewer channels at the end.
struct Place {
  std::ptrdiff_t batch, token, channel;
  int tokens, channels;
};

template <class T>
LINOCUT_INLINE T* corner(const Strided& tensor, const Place& at) {
  return static_cast<T*>(tensor.data) + at.batch * tensor.batch + at.token * tensor.token + at.channel * tensor.channel;
}

// A float tile (tokens, lanes) of values that do not lie channel by channel; zero beyond the channels.
template <class T>
void gather(const T* from, std::ptrdiff_t token, std::ptrdiff_t channel, int tokens, int channels, float* tile) {
  for (int c = 0; c < kLanes; ++c) {
    for (int t = 0; t < tokens; ++t) {
      tile[t * kLanes + c] = c < channels ? load_one(from + t * token + c * channel) : 0.0f;
    }
  }
}

template <class T>
void scatter(const float* tile, T* to, std::ptrdiff_t token, std::ptrdiff_t channel, int tokens, int channels) {
  for (int c = 0; c < channels; ++c) {
    for (int t = 0; t < tokens; ++t) store_one(to + t * token + c * channel, tile[t * kLanes + c]);
  }
}

// Reads a place token by token, where it lies or from a copy.
template <class T>
class Reader {
 public:
  Reader(const Strided& tensor, const Place& at, float* copy)
      : from_(corner<T>(tensor, at)), token_(tensor.token), channels_(at.channels), copy_(nullptr) {
    if (tensor.channel == 1) return;
    copy_ = copy;
    if (sizeof(T) == sizeof(float) && token_ == 1 && channels_ == kLanes) {
      transpose(kLanes, at.tokens, reinterpret_cast<const float*>(from_), tensor.channel, copy, kLanes);
    } else {
      gather(from_, token_, tensor.channel, at.tokens, channels_, copy);
    }
  }

  LINOCUT_INLINE vf operator()(int t) const {
    return copy_ ? load(copy_ + t * kLanes) : load_n(from_ + t * token_, channels_);
  }

  // The second cache is asked for what the place `tokens` further on holds, which may be beyond the end.
  LINOCUT_INLINE void prefetch(int t, int tokens) const { __builtin_prefetch(from_ + (t + tokens) * token_, 0, 2); }

 private:
  const T* from_;
  std::ptrdiff_t token_;
  int channels_;
  float* copy_;
};

template <class T>
class Writer {
 public:
  Writer(const Strided& tensor, const Place& at, float* copy)
      : to_(corner<T>(tensor, at)), token_(tensor.token), channel_(tensor.channel), at_(at), copy_(copy) {}

  LINOCUT_INLINE void operator()(int t, vf value) const {
    channel_ == 1 ? store_n(to_ + t * token_, value, at_.channels) : store(copy_ + t * kLanes, value);
  }

  LINOCUT_INLINE void prefetch(int t, int tokens) const { __builtin_prefetch(to_ + (t + tokens) * token_, 1, 2); }

  // After the last token.
  void finish() const {
    if (channel_ != 1) scatter(copy_, to_, token_, channel_, at_.tokens, at_.channels);
  }

 private:
  T* to_;
  std::ptrdiff_t token_, channel_;
  const Place& at_;
  float* copy_;
};

// B or C of some tokens as floats (tokens, states), where they lie or in the copy.
template <class T>
const float* states_of(const Strided& tensor, const Place& at, int states, float* copy) {
  const T* from = static_cast<const T*>(tensor.data) + at.batch * tensor.batch + at.token * tensor.token;
  if (sizeof(T) == sizeof(float) && tensor.channel == 1 && tensor.token == states) {
    return reinterpret_cast<const float*>(from);
  }
  for (int t = 0; t < at.tokens; ++t) {
    for (int n = 0; n < states; ++n) copy[t * states + n] = load_one(from + t * tensor.token + n * tensor.channel);
  }
  return copy;
}

// The kept states of one vector of channels before a chunk; from state to state kScanBlock further on.
inline float* checkpoint(const SelectiveScan& job, std::ptrdiff_t batch, std::ptrdiff_t chunk, std::ptrdiff_t channel) {
  const auto chunks = (job.length + kScanChunk - 1) / kScanChunk, blocks = (job.channels + kScanBlock - 1) / kScanBlock;
  const auto block = (batch * chunks + chunk) * blocks + channel / kScanBlock;
  return job.checkpoints + block * job.states * kScanBlock + channel % kScanBlock;
}

// (channels, states) of the caller to vectors of channels (vectors, states, lanes), times a factor, and back.
inline void turn(const float* from, int channels, int states, float factor, float* to) {
  for (int c = 0; c < channels; ++c) {
    for (int n = 0; n < states; ++n) to[(c / kLanes * states + n) * kLanes + c % kLanes] = from[c * states + n] * factor;
  }
  for (int c = channels; c % kLanes; ++c) {
    for (int n = 0; n < states; ++n) to[(c / kLanes * states + n) * kLanes + c % kLanes] = 0.0f;
  }
}

inline void turn_back(const float* from, int channels, int states, float* to) {
  for (int c = 0; c < channels; ++c) {
    for (int n = 0; n < states; ++n) to[c * states + n] = from[(c / kLanes * states + n) * kLanes + c % kLanes];
  }
}

}  // namespace linocut::LINOCUT_ISA
