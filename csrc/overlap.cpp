#include "overlap.hpp"

#include <algorithm>
#include <vector>

namespace linocut {
namespace {

using CountCommon = std::int64_t (*)(const std::uint64_t*, const std::uint64_t*, std::size_t);

// The body is repeated for each instruction set, because the compiler chooses the instruction by the function's target.
#define LINOCUT_COUNT_COMMON(name, attributes)                                                            \
  attributes std::int64_t name(const std::uint64_t* a, const std::uint64_t* b, std::size_t words) {       \
    std::int64_t sum = 0;                                                                                 \
    for (std::size_t i = 0; i < words; ++i) sum += __builtin_popcountll(a[i] & b[i]);                     \
    return sum;                                                                                           \
  }

LINOCUT_COUNT_COMMON(count_common_portable, )
#if defined(__x86_64__)
LINOCUT_COUNT_COMMON(count_common_popcnt, __attribute__((target("popcnt"))))
LINOCUT_COUNT_COMMON(count_common_avx512, __attribute__((target("avx512f,avx512vpopcntdq"))))
#endif
#undef LINOCUT_COUNT_COMMON

CountCommon choose_count_common() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512vpopcntdq")) return count_common_avx512;
  if (__builtin_cpu_supports("popcnt")) return count_common_popcnt;
#endif
  return count_common_portable;
}

// The words [begin, end) outside which a mask is empty. Masks are flattened row by row, so this is its range of rows.
struct Span {
  std::size_t begin, end;
};

Span occupied(const std::uint64_t* row, std::size_t words) {
  Span span{0, words};
  while (span.begin < span.end && row[span.begin] == 0) ++span.begin;
  while (span.end > span.begin && row[span.end - 1] == 0) --span.end;
  return span;
}

}  // namespace

void pairwise_intersections(const std::uint64_t* packed, std::size_t n, std::size_t words, std::int64_t* out) {
  static const CountCommon count_common = choose_count_common();
  std::vector<Span> spans(n);
  for (std::size_t i = 0; i < n; ++i) spans[i] = occupied(packed + i * words, words);

  // Pairs are visited in square blocks, so that the masks of a block are read from memory once and stay in the cache.
  constexpr std::size_t block = 16;
  for (std::size_t i0 = 0; i0 < n; i0 += block) {
    for (std::size_t j0 = i0; j0 < n; j0 += block) {
      for (std::size_t i = i0; i < std::min(i0 + block, n); ++i) {
        for (std::size_t j = std::max(i, j0); j < std::min(j0 + block, n); ++j) {
          const std::size_t begin = std::max(spans[i].begin, spans[j].begin);
          const std::size_t end = std::min(spans[i].end, spans[j].end);
          const std::int64_t common =
              begin < end ? count_common(packed + i * words + begin, packed + j * words + begin, end - begin) : 0;
          out[i * n + j] = common;
          out[j * n + i] = common;
        }
      }
    }
  }
}

}  // namespace linocut
