// Counting which labels of two maps lie on each other.
//
// Both functions take flat maps of any integer type. count_classes serves few classes: labels become bytes, a pair of
// bytes is an index of 16 bits, and a table of all 65,536 pairs is counted without a branch; what is no class lands in
// cells that are looked at afterwards. count_pairs serves any labels: a table if their ranges are small, hashing if not.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace linocut {

// A flat map of integers of 1, 2, 4 or 8 bytes.
struct Labels {
  const void* data;
  unsigned bytes;
  bool is_signed;
};

// So many classes leave two byte values free: for ignored targets, and for everything that is no class.
constexpr unsigned kMostByteClasses = 254;

// Adds the pairs of classes of n pixels to a table of classes × classes, row = target. Pixels whose target is one of
// the ignored values, taken modulo 2^bits of the target's type, are left out. Returns how many of the others are no
// pair of classes; the table lacks these. Classes are at most kMostByteClasses.
std::size_t count_classes(Labels prediction, Labels target, std::size_t n, unsigned classes,
                          const std::vector<std::uint64_t>& ignored, std::int64_t* table);

struct PairCount {
  std::int64_t target, prediction, count;
};

// The pairs that occur among n >= 1 pixels, ordered by target and then prediction. Unsigned labels of 8 bytes are read
// as signed ones.
std::vector<PairCount> count_pairs(Labels prediction, Labels target, std::size_t n);

}  // namespace linocut
