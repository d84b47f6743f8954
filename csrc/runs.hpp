// Overlaps of masks given as runs: what average precision is read off.
//
// A mask is a list of bounds, for each run the place of its first pixel and the place after its last, ascending. Many
// masks lie one after the other in one array; offsets say where each begins.

#pragma once

#include <cstddef>
#include <cstdint>

namespace linocut {

// The pixels shared by the pairs (rows[i], columns[i]) of masks of a and b. The caller has checked that offsets and
// places are in range and that bounds ascend.
void shared_pixels(const std::int64_t* bounds_a, const std::int64_t* offsets_a, const std::int64_t* bounds_b,
                   const std::int64_t* offsets_b, const std::int64_t* rows, const std::int64_t* columns, std::size_t n,
                   std::int64_t* shared);

}  // namespace linocut
