// Pairwise intersections of many masks, each packed into 64-bit words.

#pragma once

#include <cstddef>
#include <cstdint>

namespace linocut {

// Writes the (n, n) symmetric table of popcount(a & b) over all pairs of rows of packed, a row-major (n, words) table.
void pairwise_intersections(const std::uint64_t* packed, std::size_t n, std::size_t words, std::int64_t* out);

}  // namespace linocut
