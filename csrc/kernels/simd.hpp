// Vectors of floats as wide as the instruction set has them, through the vector extension of GCC and Clang, and the few
// functions that recurrences need: exp and what is made of it. Included only by kernel files, in the build's namespace.
//
//   vf              kLanes floats; + - * / and comparisons work lane by lane
//   load, store     from and to float or bf16 at any address; load_n, store_n for the first n lanes, the rest zero
//   sum, sums       over the lanes of one vector; of as many vectors as there are lanes, as a vector
//   exp             within 2 ulp, exactly 1 at 0, 0 below -87.3, infinity above 88.7, NaN stays NaN
//   exp2            the same to the base 2 and cheaper, for decays: it need not reach 0 or infinity, only 2^-126, 2^126
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define LINOCUT_INLINE inline __attribute__((always_inline))
#define LINOCUT_LAMBDA __attribute__((always_inline))

namespace linocut {

// The upper half of a float; converted, never computed with.
struct bf16 {
  std::uint16_t bits;
};

namespace LINOCUT_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t vi __attribute__((vector_size(kLanes * 4)));
typedef std::uint32_t vu __attribute__((vector_size(kLanes * 4)));
typedef std::uint16_t vh __attribute__((vector_size(kLanes * 2)));

// Rounds n up to whole vectors.
LINOCUT_INLINE std::size_t padded(std::size_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

LINOCUT_INLINE vf splat(float x) { return vf{} + x; }

LINOCUT_INLINE vf load(const float* p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

LINOCUT_INLINE void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }

LINOCUT_INLINE vf load(const bf16* p) {
  vh half;
  __builtin_memcpy(&half, p, sizeof half);
  return (vf)(__builtin_convertvector(half, vu) << 16);
}

// To the nearest, ties to even; a NaN stays one.
LINOCUT_INLINE void store(bf16* p, vf v) {
#if defined(__AVX512BF16__)
  // denormal numbers become zero
  const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
#else
  const vu bits = (vu)v;
  const vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const vu quiet = (bits >> 16) | 0x40u;
  const vh half = __builtin_convertvector((v == v) ? rounded : quiet, vh);
#endif
  __builtin_memcpy(p, &half, sizeof half);
}

LINOCUT_INLINE float load_one(const float* p) { return *p; }

LINOCUT_INLINE float load_one(const bf16* p) {
  const std::uint32_t bits = std::uint32_t{p->bits} << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

LINOCUT_INLINE void store_one(float* p, float x) { *p = x; }

LINOCUT_INLINE void store_one(bf16* p, float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  p->bits = x == x ? static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)
                   : static_cast<std::uint16_t>((bits >> 16) | 0x40u);
}

// Lane i of the result is lane from[i] of v, and of a, b one after the other.
#if defined(__clang__)
LINOCUT_INLINE vf permute(vf v, vi from) {
  vf result;
  for (int i = 0; i < kLanes; ++i) result[i] = v[from[i]];
  return result;
}
LINOCUT_INLINE vf permute(vf a, vf b, vi from) {
  vf result;
  for (int i = 0; i < kLanes; ++i) result[i] = from[i] < kLanes ? a[from[i]] : b[from[i] - kLanes];
  return result;
}
#else
LINOCUT_INLINE vf permute(vf v, vi from) { return __builtin_shuffle(v, from); }
LINOCUT_INLINE vf permute(vf a, vf b, vi from) { return __builtin_shuffle(a, b, from); }
#endif

template <class T>
LINOCUT_INLINE vf load_n(const T* p, int n) {
  if (n >= kLanes) return load(p);
  float values[kLanes] = {};
  for (int i = 0; i < n; ++i) values[i] = load_one(p + i);
  return load(values);
}

template <class T>
LINOCUT_INLINE void store_n(T* p, vf v, int n) {
  if (n >= kLanes) return store(p, v);
  float values[kLanes];
  store(values, v);
  for (int i = 0; i < n; ++i) store_one(p + i, values[i]);
}

#if defined(__AVX512F__)

// The first n lanes; none for n <= 0.
LINOCUT_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>(n > 0 ? (1u << n) - 1 : 0u); }

// What the mask leaves out is not touched.
LINOCUT_INLINE vf load_n(const float* p, int n) {
  return n >= kLanes ? load(p) : (vf)_mm512_maskz_loadu_ps(first_lanes(n), p);
}

LINOCUT_INLINE void store_n(float* p, vf v, int n) {
  if (n >= kLanes) return store(p, v);
  _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v);
}

#endif

// Asks for n entries to be brought near, to be read or written.
template <class T>
LINOCUT_INLINE void fetch(const T* p, std::ptrdiff_t n) {
  for (std::ptrdiff_t i = 0; i < n; i += 64 / static_cast<std::ptrdiff_t>(sizeof(T))) __builtin_prefetch(p + i, 0, 2);
}
template <class T>
LINOCUT_INLINE void fetch_to_write(const T* p, std::ptrdiff_t n) {
  for (std::ptrdiff_t i = 0; i < n; i += 64 / static_cast<std::ptrdiff_t>(sizeof(T))) __builtin_prefetch(p + i, 1, 2);
}

// Lane i is i.
LINOCUT_INLINE vi lane_numbers() {
  vi lanes = {};
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes;
}

// The first n lanes of v, zero in the others, whatever is there.
LINOCUT_INLINE vf first_lanes(vf v, int n) { return lane_numbers() < vi{} + n ? v : splat(0.0f); }

// By halves: log2(kLanes) additions.
LINOCUT_INLINE float sum(vf v) {
  const vi lanes = lane_numbers();
  for (int half = kLanes / 2; half > 0; half /= 2) v += permute(v, lanes ^ half);
  return v[0];
}

// The sums of kLanes vectors that lie one after another.
LINOCUT_INLINE vf sums(const float* vectors) {
  vf level[kLanes];
  for (int i = 0; i < kLanes; ++i) level[i] = load(vectors + i * kLanes);
  const vi even = 2 * lane_numbers(), odd = even + 1;
  for (int count = kLanes / 2; count > 0; count /= 2) {
    for (int i = 0; i < count; ++i) {
      level[i] = permute(level[2 * i], level[2 * i + 1], even) + permute(level[2 * i], level[2 * i + 1], odd);
    }
  }
  return level[0];
}

LINOCUT_INLINE vf max(vf a, vf b) { return a > b ? a : b; }

LINOCUT_INLINE float max(float a, float b) { return a > b ? a : b; }

// exp(r) for |r| <= ln 2 / 2. No constant term but the last: exp(0) is exactly 1, so a decay of 1 never loses anything.
LINOCUT_INLINE vf exp_near_zero(vf r) {
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * (r * r) + r + 1.0f;
}

// 2^r for |r| <= 1/2, likewise.
LINOCUT_INLINE vf exp2_near_zero(vf r) {
  vf p = splat(1.5353361960e-4f);
  p = p * r + 1.3398875017e-3f;
  p = p * r + 9.6184369177e-3f;
  p = p * r + 5.5503323674e-2f;
  p = p * r + 2.4022647738e-1f;
  p = p * r + 6.9314718246e-1f;
  return p * r + 1.0f;
}

#if defined(__AVX512F__)

// The forms with a mask, here of all lanes, spare GCC 12 its warnings about the others.
constexpr __mmask16 kAllLanes = 0xffff;

LINOCUT_INLINE vf round(vf x) {
  return (vf)_mm512_mask_roundscale_ps((__m512)x, kAllLanes, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

LINOCUT_INLINE vf exp(vf x) {
  // the smaller of two, the second if one is a NaN
  const vf inside = (vf)_mm512_mask_min_ps((__m512)x, kAllLanes, (__m512)splat(89.0f), (__m512)x);
  const vf n = round(inside * 1.44269504f);
  const vf r = inside - n * 0.693145752f - n * 1.42860677e-6f;
  // zero below, but not for a NaN, which is not less than anything
  const __mmask16 keep = _mm512_cmp_ps_mask((__m512)x, (__m512)splat(-87.33f), _CMP_NLT_UQ);
  return (vf)_mm512_maskz_scalef_ps(keep, (__m512)exp_near_zero(r), (__m512)n);
}

LINOCUT_INLINE vf exp_negative(vf x) { return exp(x); }

LINOCUT_INLINE vf exp2(vf x) {
  const vf n = round(x);
  return (vf)_mm512_mask_scalef_ps((__m512)x, kAllLanes, (__m512)exp2_near_zero(x - n), (__m512)n);
}

#else

LINOCUT_INLINE vf exp(vf x) {
  const vf low = splat(-87.33f), high = splat(88.72f);
  const vf inside = x < low ? low : (x > high ? high : x);
  // x = n ln 2 + r; the large constant rounds to a whole number
  const vf shift = splat(12582912.0f);
  const vf n = (inside * 1.44269504f + shift) - shift;
  const vf r = inside - n * 0.693145752f - n * 1.42860677e-6f;
  // two factors, since 2^128 is not a float; a NaN makes any n, and the polynomial is NaN
  const vi whole = __builtin_convertvector(n, vi);
  const vi half = whole >> 1;
  const vf scale_a = (vf)((half + 127) << 23), scale_b = (vf)((whole - half + 127) << 23);
  const vf y = exp_near_zero(r) * scale_a * scale_b;
  return x < low ? splat(0.0f) : (x > high ? splat(__builtin_inff()) : y);
}

// exp(x) where x <= 0, in fewer steps.
LINOCUT_INLINE vf exp_negative(vf x) {
  const vf low = splat(-87.33f), shift = splat(12582912.0f);
  const vf inside = x < low ? low : x;
  const vf n = (inside * 1.44269504f + shift) - shift;
  const vf r = inside - n * 0.693145752f - n * 1.42860677e-6f;
  const vf y = exp_near_zero(r) * (vf)((__builtin_convertvector(n, vi) + 127) << 23);
  return x < low ? splat(0.0f) : y;
}

LINOCUT_INLINE vf exp2(vf x) {
  const vf low = splat(-126.0f), high = splat(126.0f);
  const vf inside = x < low ? low : (x > high ? high : x);
  // the large constant rounds, and leaves the biased exponent in the lowest bits
  const vf shift = splat(12582912.0f + 127.0f);
  const vf moved = inside + shift;
  return exp2_near_zero(inside - (moved - shift)) * (vf)((vi)moved << 23);
}

#endif

LINOCUT_INLINE float exp(float x) { return exp(splat(x))[0]; }

// log(1 + u) for u in [0, 1]: the series of atanh in u / (2 + u).
LINOCUT_INLINE vf log1p_unit(vf u) {
  const vf s = u / (u + 2.0f), z = s * s;
  vf p = splat(2.0f / 15.0f);
  p = p * z + 2.0f / 13.0f;
  p = p * z + 2.0f / 11.0f;
  p = p * z + 2.0f / 9.0f;
  p = p * z + 2.0f / 7.0f;
  p = p * z + 2.0f / 5.0f;
  p = p * z + 2.0f / 3.0f;
  return s * (p * z + 2.0f);
}

// log(1 + exp(x)) without overflow.
LINOCUT_INLINE vf softplus(vf x) {
  const vf zero = splat(0.0f);
  const vf size = x < zero ? -x : x;
  return (x < zero ? zero : x) + log1p_unit(exp(-size));
}

LINOCUT_INLINE vf sigmoid(vf x) { return 1.0f / (exp(-x) + 1.0f); }

LINOCUT_INLINE vf silu(vf x) { return x * sigmoid(x); }

}  // namespace LINOCUT_ISA
}  // namespace linocut
