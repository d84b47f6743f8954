// The loops over pixels of counting.cpp, once for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/isa.hpp"

namespace linocut {

constexpr std::uint8_t kIgnoredByte = 254;
constexpr std::uint8_t kOtherByte = 255;
constexpr std::size_t kBytePairs = 65536;
constexpr unsigned kFew = 4;  // labels below this are counted by comparing, sixteen pairs at once

// Pairs of bytes. The pixel (target t, prediction p) counts in cell 256 t + p of one of the two tables, or, where both
// are below kFew, perhaps in cell kFew t + p of few. Pixels with t == skip may be left out; skip < 0 skips none.
// try_few goes from piece to piece of a map: whether all labels so far were below kFew.
struct BytePairs {
  const std::uint8_t* prediction;
  const std::uint8_t* target;
  std::size_t n;
  int skip;
  std::uint32_t* tables;
  std::uint64_t* few;
  bool* try_few;
};

// Labels of an unsigned type to bytes: ignored values to kIgnoredByte, others from limit on to kOtherByte.
struct Narrowing {
  const void* labels;
  unsigned bytes;
  std::size_t n;
  std::uint64_t limit;
  const std::uint64_t* ignored;
  std::size_t ignored_n;
  std::uint8_t* out;
};

// The least and the highest of n >= 1 labels.
struct Range {
  const void* labels;
  unsigned bytes;
  bool is_signed;
  std::size_t n;
  std::int64_t* low;
  std::int64_t* high;
};

// out = (label - low) · scale, or added to what out holds; all fit into 32 bits.
struct Encoding {
  const void* labels;
  unsigned bytes;
  std::size_t n;
  std::int64_t low;
  std::uint32_t scale;
  bool add;
  std::uint32_t* out;
};

// Adds 1 to the table's cell of each code.
struct Codes {
  const std::uint32_t* codes;
  std::size_t n;
  std::uint32_t* table;
};

LINOCUT_EACH_ISA(
  void count_bytes(const BytePairs& job);
  void narrow(const Narrowing& job);
  void find_range(const Range& job);
  void encode(const Encoding& job);
  void count_codes(const Codes& job);
)

}  // namespace linocut
