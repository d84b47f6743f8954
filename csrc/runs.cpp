#include "runs.hpp"

#include <algorithm>

namespace linocut {

namespace {

std::int64_t overlap(const std::int64_t* a, const std::int64_t* a_end, const std::int64_t* b,
                     const std::int64_t* b_end) {
  std::int64_t total = 0;
  while (a != a_end && b != b_end) {
    const std::int64_t from = std::max(a[0], b[0]), to = std::min(a[1], b[1]);
    total += std::max<std::int64_t>(to - from, 0);
    // without branches: which list goes on is a coin's toss
    const bool a_first = a[1] <= b[1];
    a += a_first ? 2 : 0;
    b += a_first ? 0 : 2;
  }
  return total;
}

}  // namespace

void shared_pixels(const std::int64_t* bounds_a, const std::int64_t* offsets_a, const std::int64_t* bounds_b,
                   const std::int64_t* offsets_b, const std::int64_t* rows, const std::int64_t* columns, std::size_t n,
                   std::int64_t* shared) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t r = rows[i], c = columns[i];
    shared[i] = overlap(bounds_a + offsets_a[r], bounds_a + offsets_a[r + 1], bounds_b + offsets_b[c],
                        bounds_b + offsets_b[c + 1]);
  }
}

}  // namespace linocut
