// Which taps of an axis meet which inputs, and the order of rows that keeps those needed again near.
#pragma once

#include "depthwise_conv.hpp"
#include "threads.hpp"

namespace linocut::LINOCUT_ISA {

LINOCUT_INLINE std::ptrdiff_t smaller(std::ptrdiff_t a, std::ptrdiff_t b) { return a < b ? a : b; }

LINOCUT_INLINE std::ptrdiff_t larger(std::ptrdiff_t a, std::ptrdiff_t b) { return a > b ? a : b; }

LINOCUT_INLINE std::ptrdiff_t magnitude(std::ptrdiff_t a) { return a < 0 ? -a : a; }

// Rounded down, and up; b is positive.
LINOCUT_INLINE std::ptrdiff_t floor_div(std::ptrdiff_t a, std::ptrdiff_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

LINOCUT_INLINE std::ptrdiff_t ceil_div(std::ptrdiff_t a, std::ptrdiff_t b) { return -floor_div(-a, b); }

LINOCUT_INLINE std::ptrdiff_t common_divisor(std::ptrdiff_t a, std::ptrdiff_t b) {
  while (b != 0) {
    const auto rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// Memory for whole numbers.
class Numbers {
 public:
  explicit Numbers(std::ptrdiff_t count) : memory_(1, static_cast<std::size_t>(2 * count)) {}
  std::ptrdiff_t* data() const { return reinterpret_cast<std::ptrdiff_t*>(memory_.of(0)); }

 private:
  Scratch memory_;
};

// For every output of an axis the taps that meet an input, and these inputs. Outputs come in an order: `step` apart as
// far as they go, then the next residue. With step 1 that is their own.
class Meetings {
 public:
  Meetings(const DepthwiseAxis& axis, std::ptrdiff_t step)
      : numbers_(2 * axis.out + 1 + 2 * axis.out * axis.taps),
        output(numbers_.data()),
        first(output + axis.out),
        tap(first + axis.out + 1),
        input(tap + axis.out * axis.taps) {
    std::ptrdiff_t place = 0;
    for (std::ptrdiff_t residue = 0; residue < step; ++residue) {
      for (auto o = residue; o < axis.out; o += step) {
        output[place] = o;
        first[place++] = count;
        for (std::ptrdiff_t k = 0; k < axis.taps; ++k) {
          const auto at = axis.out_step * o + axis.dilation * k - axis.offset;
          if (at < 0 || at % axis.in_step != 0 || at / axis.in_step >= axis.in) continue;
          tap[count] = k;
          input[count++] = at / axis.in_step;
        }
      }
    }
    first[axis.out] = count;
  }

 private:
  Numbers numbers_;

 public:
  std::ptrdiff_t *const output, *const first, *const tap, *const input;
  std::ptrdiff_t count = 0;  // of all meetings
};

// Outputs so many apart see the same inputs with other taps. Of a dilated filter's rows taken in that step only those of
// the taps need to be near at a time, not all that it spans.
LINOCUT_INLINE std::ptrdiff_t sharing_step(const DepthwiseAxis& axis) {
  const auto apart = magnitude(axis.dilation), step = apart / common_divisor(apart, axis.out_step);
  return axis.taps == 1 || step >= axis.out ? 1 : step;
}

}  // namespace linocut::LINOCUT_ISA
