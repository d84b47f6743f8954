#include "rle.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace linocut {
namespace {

constexpr unsigned kGroupBits = 5;
constexpr unsigned kMaxGroups = 13;  // 13 * 5 = 65 bits hold any int64
constexpr std::uint64_t kGroupMask = 0x1f;
constexpr std::uint64_t kSignBit = 0x10;
constexpr std::uint64_t kMoreBit = 0x20;
constexpr char kFirstChar = 48;
constexpr char kLastChar = 48 + 63;

// Calls flip(r, c) wherever a pixel differs from the one before it in column order, but walks the mask row by row:
// neighbouring rows are compared eight pixels at a time, and most words are equal.
template <class Flip>
void for_each_flip(const std::uint8_t* mask, std::size_t h, std::size_t w, Flip&& flip) {
  const std::uint8_t* last = mask + (h - 1) * w;
  for (std::size_t c = 0; c < w; ++c) {
    const std::uint8_t before = c == 0 ? 0 : last[c - 1];
    if (mask[c] != before) flip(std::size_t{0}, c);
  }
  for (std::size_t r = 1; r < h; ++r) {
    const std::uint8_t* above = mask + (r - 1) * w;
    const std::uint8_t* here = mask + r * w;
    std::size_t c = 0;
    for (; c + 8 <= w; c += 8) {
      std::uint64_t a, b;
      std::memcpy(&a, above + c, 8);
      std::memcpy(&b, here + c, 8);
      if (a == b) continue;
      for (std::size_t k = c; k < c + 8; ++k) {
        if (above[k] != here[k]) flip(r, k);
      }
    }
    for (; c < w; ++c) {
      if (above[c] != here[c]) flip(r, c);
    }
  }
}

[[noreturn]] void reject(const char* what, std::size_t at) {
  throw std::invalid_argument(std::string(what) + " at character " + std::to_string(at));
}

std::int64_t checked_add(std::int64_t a, std::int64_t b, std::size_t at) {
  constexpr std::int64_t high = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t low = std::numeric_limits<std::int64_t>::min();
  if ((b > 0 && a > high - b) || (b < 0 && a < low - b)) reject("a run overflows 64 bits", at);
  return a + b;
}

}  // namespace

std::vector<std::int64_t> mask_to_counts(const std::uint8_t* mask, std::size_t h, std::size_t w) {
  if (h == 0 || w == 0) return {0};
  // Two passes: how many flips each column has, then the flips themselves, already in column order.
  std::vector<std::size_t> start(w + 1, 0);
  for_each_flip(mask, h, w, [&](std::size_t, std::size_t c) { ++start[c + 1]; });
  for (std::size_t c = 0; c < w; ++c) start[c + 1] += start[c];
  const std::size_t n = start[w];
  std::vector<std::int64_t> counts(n + 1);
  for_each_flip(mask, h, w, [&](std::size_t r, std::size_t c) {
    counts[start[c]++] = static_cast<std::int64_t>(c * h + r);
  });
  counts[n] = static_cast<std::int64_t>(h * w);
  for (std::size_t i = n; i > 0; --i) counts[i] -= counts[i - 1];
  return counts;
}

void counts_to_mask(const std::int64_t* counts, std::size_t n, std::uint8_t* mask, std::size_t h, std::size_t w) {
  if (h == 0 || w == 0) return;
  std::memset(mask, 0, h * w);
  // Below the first row a 1 means "differs from the pixel above"; the first row holds values. A running exclusive
  // or down the rows then gives the mask, at the speed of memory.
  std::size_t position = 0, column = 0;
  std::uint8_t value = 0;
  for (std::size_t i = 0; i + 1 < n; ++i) {
    position += static_cast<std::size_t>(counts[i]);
    for (; column < w && column * h < position; ++column) mask[column] = value;
    value ^= 1;
    if (position < h * w && position % h != 0) mask[(position % h) * w + position / h] ^= 1;
  }
  for (; column < w; ++column) mask[column] = value;
  for (std::size_t r = 1; r < h; ++r) {
    const std::uint8_t* above = mask + (r - 1) * w;
    std::uint8_t* here = mask + r * w;
    for (std::size_t c = 0; c < w; ++c) here[c] ^= above[c];
  }
}

std::string counts_to_string(const std::int64_t* counts, std::size_t n) {
  std::string text;
  text.reserve(2 * n);
  for (std::size_t i = 0; i < n; ++i) {
    // Unsigned, so that a difference of extreme values wraps instead of being undefined.
    std::uint64_t x = static_cast<std::uint64_t>(counts[i]);
    if (i > 2) x -= static_cast<std::uint64_t>(counts[i - 2]);
    for (bool more = true; more;) {
      std::uint64_t group = x & kGroupMask;
      const bool negative = (x >> 63) != 0;
      x >>= kGroupBits;
      if (negative) x |= ~(~std::uint64_t{0} >> kGroupBits);
      more = x != ((group & kSignBit) ? ~std::uint64_t{0} : 0);
      if (more) group |= kMoreBit;
      text.push_back(static_cast<char>(group + kFirstChar));
    }
  }
  return text;
}

std::vector<std::int64_t> string_to_counts(std::string_view text) {
  std::vector<std::int64_t> counts;
  std::uint64_t value = 0;
  unsigned groups = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] < kFirstChar || text[at] > kLastChar) reject("not a run-length character", at);
    if (groups == kMaxGroups) reject("a run has more than 13 characters", at);
    const std::uint64_t code = static_cast<std::uint64_t>(text[at] - kFirstChar);
    value |= (code & kGroupMask) << (kGroupBits * groups);
    ++groups;
    if (code & kMoreBit) continue;
    // The 13th group reaches past bit 63: what lies beyond must repeat the sign.
    if (groups == kMaxGroups && (code >> 4 & 1) != (code >> 3 & 1)) reject("a run overflows 64 bits", at);
    if ((code & kSignBit) && groups < kMaxGroups) value |= ~std::uint64_t{0} << (kGroupBits * groups);
    std::int64_t count;
    std::memcpy(&count, &value, sizeof count);
    if (counts.size() > 2) count = checked_add(count, counts[counts.size() - 2], at);
    counts.push_back(count);
    value = 0;
    groups = 0;
  }
  if (groups != 0) reject("the text ends inside a run", text.size());
  return counts;
}

}  // namespace linocut
