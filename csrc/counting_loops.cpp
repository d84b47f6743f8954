#include "counting_loops.hpp"

#include "kernels/simd.hpp"

#if defined(__SSE4_1__) && !defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace linocut::LINOCUT_ISA {
namespace {

constexpr std::size_t kWide = 4 * kLanes;  // bytes of a vector
constexpr std::size_t kStep = 64;          // pixels looked at together
constexpr std::size_t kBlock = 8192;       // pixels of a decision; both maps of a block stay in the first-level cache

typedef std::uint8_t vb __attribute__((vector_size(kWide)));

LINOCUT_INLINE vb load_bytes(const std::uint8_t* p) {
  vb v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

LINOCUT_INLINE vb splat_byte(std::uint8_t x) { return vb{} + x; }

LINOCUT_INLINE bool is_zero(vb v) {
#if defined(__AVX512BW__)
  return _mm512_test_epi8_mask((__m512i)v, (__m512i)v) == 0;
#elif defined(__AVX2__)
  return _mm256_testz_si256((__m256i)v, (__m256i)v) != 0;
#elif defined(__SSE4_1__)
  return _mm_testz_si128((__m128i)v, (__m128i)v) != 0;
#else
  std::uint64_t words[kWide / 8], all = 0;
  __builtin_memcpy(words, &v, sizeof v);
  for (const std::uint64_t word : words) all |= word;
  return all == 0;
#endif
}

// acc + 1 where the two are equal
LINOCUT_INLINE vb add_equal(vb acc, vb a, vb b) {
#if defined(__AVX512BW__)
  return (vb)_mm512_mask_add_epi8((__m512i)acc, _mm512_cmpeq_epi8_mask((__m512i)a, (__m512i)b), (__m512i)acc,
                                  _mm512_set1_epi8(1));
#else
  return acc - (vb)(a == b);
#endif
}

// Counts a block if all its labels are below kFew where the target is not skipped, and says whether they are; if not,
// nothing is counted. Without a value to skip, one is taken that none of the labels counted here has.
LINOCUT_INLINE bool count_few(const std::uint8_t* prediction, const std::uint8_t* target, int skip, std::uint64_t* few) {
  const vb skipped = splat_byte(static_cast<std::uint8_t>(skip)), may_skip = splat_byte(skip < 0 ? 0 : 255);
  constexpr std::size_t kPart = 128 * kWide;  // a byte counts to 255
  std::uint32_t counts[kFew * kFew] = {};
  for (std::size_t from = 0; from < kBlock; from += kPart) {
    vb acc[kFew * kFew] = {}, beyond = {};
    for (std::size_t i = from; i < from + kPart && i < kBlock; i += kWide) {
      const vb t = load_bytes(target + i), p = load_bytes(prediction + i), twice = t + t;
      const vb is_skipped = (vb)(t == skipped) & may_skip;
      beyond |= (p | t) & ~is_skipped;
      const vb code = p | (twice + twice) | is_skipped;
#pragma GCC unroll 16
      for (unsigned k = 0; k < kFew * kFew; ++k) {
        acc[k] = add_equal(acc[k], code, splat_byte(static_cast<std::uint8_t>(k)));
      }
    }
    if (!is_zero(beyond & splat_byte(static_cast<std::uint8_t>(~(kFew - 1))))) return false;
    for (unsigned k = 0; k < kFew * kFew; ++k) {
      std::uint8_t bytes[kWide];
      __builtin_memcpy(bytes, &acc[k], sizeof bytes);
      for (const std::uint8_t byte : bytes) counts[k] += byte;
    }
  }
  for (unsigned k = 0; k < kFew * kFew; ++k) few[k] += counts[k];
  return true;
}

// Pixels in turns to two tables, so that equal neighbours do not wait for each other.
LINOCUT_INLINE void count_each(const std::uint8_t* prediction, const std::uint8_t* target, std::size_t n,
                               std::uint32_t* tables) {
  std::uint16_t pairs[kStep];
  for (std::size_t k = 0; k < n; ++k) pairs[k] = static_cast<std::uint16_t>(target[k] << 8 | prediction[k]);
  for (std::size_t k = 0; k < n; ++k) ++tables[(k & 1) * kBytePairs + pairs[k]];
}

LINOCUT_INLINE bool is_constant(const std::uint8_t* prediction, const std::uint8_t* target) {
  const vb p = splat_byte(prediction[0]), t = splat_byte(target[0]);
  vb differs = {};
  for (std::size_t i = 0; i < kStep; i += kWide) {
    differs |= (load_bytes(prediction + i) ^ p) | (load_bytes(target + i) ^ t);
  }
  return is_zero(differs);
}

}  // namespace

void count_bytes(const BytePairs& job) {
  std::size_t i = 0;
  while (i + kStep <= job.n) {
    const std::size_t end = i + kBlock <= job.n ? i + kBlock : job.n / kStep * kStep;
    if (end - i == kBlock && *job.try_few && count_few(job.prediction + i, job.target + i, job.skip, job.few)) {
      i = end;
      continue;
    }
    // In a map of many classes the blocks of few ones are counted as runs just as well.
    *job.try_few = *job.try_few && end - i < kBlock;
    for (; i < end; i += kStep) {
      const std::uint8_t* p = job.prediction + i;
      const std::uint8_t* t = job.target + i;
      if (is_constant(p, t)) {
        job.tables[t[0] << 8 | p[0]] += kStep;
      } else {
        count_each(p, t, kStep, job.tables);
      }
    }
  }
  count_each(job.prediction + i, job.target + i, job.n - i, job.tables);
}

namespace {

template <class T>
LINOCUT_INLINE void narrow_as(const Narrowing& job) {
  const T* labels = static_cast<const T*>(job.labels);
  // A limit beyond the type leaves every value a class.
  const std::uint64_t highest = T(-1);
  const T last = static_cast<T>(job.limit - 1 < highest ? job.limit - 1 : highest);
  for (std::size_t i = 0; i < job.n; ++i) {
    job.out[i] = labels[i] <= last ? static_cast<std::uint8_t>(labels[i]) : kOtherByte;
  }
  for (std::size_t k = 0; k < job.ignored_n; ++k) {
    const T ignored = static_cast<T>(job.ignored[k]);
    for (std::size_t i = 0; i < job.n; ++i) job.out[i] = labels[i] == ignored ? kIgnoredByte : job.out[i];
  }
}

template <class T>
LINOCUT_INLINE void range_as(const Range& job) {
  const T* labels = static_cast<const T*>(job.labels);
  T low = labels[0], high = labels[0];
  for (std::size_t i = 0; i < job.n; ++i) {
    low = labels[i] < low ? labels[i] : low;
    high = labels[i] > high ? labels[i] : high;
  }
  *job.low = static_cast<std::int64_t>(low);
  *job.high = static_cast<std::int64_t>(high);
}

template <class T>
LINOCUT_INLINE void encode_as(const Encoding& job) {
  const T* labels = static_cast<const T*>(job.labels);
  // Differences below 2^32 survive arithmetic modulo 2^32, so the labels' upper halves and signs may be dropped ...
  const std::uint32_t low = static_cast<std::uint32_t>(job.low);
  const std::uint32_t mask = sizeof(T) < 4 ? (std::uint32_t{1} << (8 * (sizeof(T) & 3))) - 1 : ~std::uint32_t{0};
  if (job.add) {
    for (std::size_t i = 0; i < job.n; ++i) {
      job.out[i] += ((static_cast<std::uint32_t>(labels[i]) - low) & mask) * job.scale;
    }
  } else {
    // ... if of narrow labels the difference is cut to their width again.
    for (std::size_t i = 0; i < job.n; ++i) {
      job.out[i] = ((static_cast<std::uint32_t>(labels[i]) - low) & mask) * job.scale;
    }
  }
}

}  // namespace

void narrow(const Narrowing& job) {
  switch (job.bytes) {
    case 1: return narrow_as<std::uint8_t>(job);
    case 2: return narrow_as<std::uint16_t>(job);
    case 4: return narrow_as<std::uint32_t>(job);
    default: return narrow_as<std::uint64_t>(job);
  }
}

void find_range(const Range& job) {
  switch (job.bytes) {
    case 1: return job.is_signed ? range_as<std::int8_t>(job) : range_as<std::uint8_t>(job);
    case 2: return job.is_signed ? range_as<std::int16_t>(job) : range_as<std::uint16_t>(job);
    case 4: return job.is_signed ? range_as<std::int32_t>(job) : range_as<std::uint32_t>(job);
    default: return range_as<std::int64_t>(job);
  }
}

void encode(const Encoding& job) {
  switch (job.bytes) {
    case 1: return encode_as<std::uint8_t>(job);
    case 2: return encode_as<std::uint16_t>(job);
    case 4: return encode_as<std::uint32_t>(job);
    default: return encode_as<std::uint64_t>(job);
  }
}

void count_codes(const Codes& job) {
  std::size_t i = 0;
  for (; i + kStep <= job.n; i += kStep) {
    const std::uint32_t* codes = job.codes + i;
    std::uint32_t differs = 0;
    for (std::size_t k = 0; k < kStep; ++k) differs |= codes[k] ^ codes[0];
    if (differs == 0) {
      job.table[codes[0]] += kStep;
    } else {
      for (std::size_t k = 0; k < kStep; ++k) ++job.table[codes[k]];
    }
  }
  for (; i < job.n; ++i) ++job.table[job.codes[i]];
}

}  // namespace linocut::LINOCUT_ISA
