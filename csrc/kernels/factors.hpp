// What products multiply. Of float inputs that is float. Of bf16 inputs, on machines that multiply these, it is pairs of
// bf16 that stand one after the other along the inner dimension of the product, which is summed up in float: half the
// instructions, and half the bytes. A kernel names Factor<T> and lays its tiles out by the functions below, which for
// float leave them where they are.
//
//   inner<F>(k)         how many factors k numbers of the inner dimension make
//   left(…)             a tile as the left side of a product: the pairs lie along its rows
//   right(…)            a tile as the right side: a row of pairs for two of its rows. Its transpose is a left side too.
//   add_product         sum + a b
//
// The processor takes denormal numbers for zero here, and rounds sums to the nearest whatever it is set to.
#pragma once

#include "simd.hpp"

namespace linocut::LINOCUT_ISA {

struct Pair {
  bf16 first, second;
};

#if defined(__AVX512BF16__)
template <class T>
struct FactorOf {
  using type = float;
};
template <>
struct FactorOf<bf16> {
  using type = Pair;
};
template <class T>
using Factor = typename FactorOf<T>::type;
#else
template <class T>
using Factor = float;
#endif

template <class F>
constexpr bool kIsPair = false;
template <>
inline constexpr bool kIsPair<Pair> = true;

template <class F>
LINOCUT_INLINE constexpr std::ptrdiff_t inner(std::ptrdiff_t k) {
  return kIsPair<F> ? (k + 1) / 2 : k;
}

LINOCUT_INLINE vf splat_factor(float a) { return splat(a); }

LINOCUT_INLINE vf load_factors(const float* a) { return load(a); }

LINOCUT_INLINE vf add_product(vf sum, vf a, vf b) { return sum + a * b; }

LINOCUT_INLINE const float* left(int, int, const float* tile, std::ptrdiff_t, float*) { return tile; }

LINOCUT_INLINE const float* right(int, int, const float* tile, std::ptrdiff_t, float*) { return tile; }

#if defined(__AVX512BF16__)

LINOCUT_INLINE vu splat_factor(Pair a) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &a, sizeof bits);
  return vu{} + bits;
}

LINOCUT_INLINE vu load_factors(const Pair* a) {
  vu v;
  __builtin_memcpy(&v, a, sizeof v);
  return v;
}

LINOCUT_INLINE vf add_product(vf sum, vu a, vu b) {
  return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

// The pairs of two rows.
LINOCUT_INLINE vu paired(vf first, vf second) {
  typedef std::uint16_t vw __attribute__((vector_size(kLanes * 4)));
  vw from;
  for (int i = 0; i < 2 * kLanes; ++i) from[i] = i / 2 + i % 2 * kLanes;
  return (vu)_mm512_permutexvar_epi16((__m512i)from, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}

// The same with nothing for the second.
LINOCUT_INLINE vu first_of(vu pairs) { return pairs & 0xffffu; }

LINOCUT_INLINE void store(Pair* to, vu pairs) { __builtin_memcpy(to, &pairs, sizeof pairs); }

// Both read whole vectors: `row` and `columns` rounded up to them. Rows of the result are `row` numbers long: row / 2
// pairs on the left, row pairs on the right.
LINOCUT_INLINE const Pair* left(int rows, int columns, const float* tile, std::ptrdiff_t row, Pair* to) {
  bf16* halves = &to->first;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; j += kLanes) store(halves + i * row + j, load(tile + i * row + j));
  }
  return to;
}

LINOCUT_INLINE const Pair* right(int rows, int columns, const float* tile, std::ptrdiff_t row, Pair* to) {
  for (int i = 0; i < rows; i += 2) {
    for (int j = 0; j < columns; j += kLanes) {
      const vf second = i + 1 < rows ? load(tile + (i + 1) * row + j) : splat(0.0f);
      store(to + i / 2 * row + j, paired(load(tile + i * row + j), second));
    }
  }
  return to;
}

#endif

}  // namespace linocut::LINOCUT_ISA
