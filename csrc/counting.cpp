#include "counting.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "counting_loops.hpp"

namespace linocut {
namespace {

constexpr std::size_t kStrip = 8192;                       // pixels converted at a time, in the first-level cache
constexpr std::size_t kPass = std::size_t{1} << 31;        // pixels that counters of 32 bits are good for
constexpr std::size_t kSmallTable = std::size_t{1} << 16;  // a table of pairs that is always worth its memory
constexpr std::size_t kLargeTable = std::size_t{1} << 22;  // and the largest one

const void* at(const Labels& labels, std::size_t i) {
  return static_cast<const char*>(labels.data) + i * labels.bytes;
}

// Unsigned bytes are counted as they lie; everything else is converted.
bool is_byte(const Labels& labels) { return labels.bytes == 1 && !labels.is_signed; }

// Labels from here on are no class. Negative ones, read as unsigned, are far beyond any number of classes; of bytes
// only if the limit is not beyond the highest byte that is not negative.
unsigned limit(const Labels& labels, unsigned classes) {
  return labels.bytes == 1 && labels.is_signed ? std::min(classes, 128u) : classes;
}

// The two tables of pairs of bytes, and what of them are classes.
class ByteTable {
 public:
  ByteTable(Labels prediction, Labels target, unsigned classes, const std::vector<std::uint64_t>& ignored)
      : classes_(classes), rows_(limit(target, classes)), columns_(limit(prediction, classes)), tables_(2 * kBytePairs) {
    if (!is_byte(target)) {
      ignored_[kIgnoredByte] = true;
      skip_ = kIgnoredByte;
    } else if (!ignored.empty()) {
      for (const std::uint64_t value : ignored) ignored_[static_cast<std::uint8_t>(value)] = true;
      skip_ = static_cast<std::uint8_t>(ignored.front());
    }
  }

  void add(const std::uint8_t* prediction, const std::uint8_t* target, std::size_t n) {
    LINOCUT_CALL(count_bytes, BytePairs{prediction, target, n, skip_, tables_.data(), few_.data(), &try_few_});
    since_ += n;
  }

  bool is_full() const { return since_ >= kPass; }

  // Moves the counts to the table of classes; returns how many belong to no pair of classes.
  std::size_t collect(std::int64_t* table) {
    std::size_t outside = 0;
    for (unsigned t = 0; t < 256; ++t) {
      std::uint32_t* first = tables_.data() + 256 * t;
      std::uint32_t* second = first + kBytePairs;
      std::uint32_t any = 0;
      for (unsigned p = 0; p < 256; ++p) any |= first[p] | second[p];
      if ((any == 0 && t >= kFew) || ignored_[t]) continue;
      for (unsigned p = 0; p < 256; ++p) {
        std::uint64_t count = std::uint64_t{first[p]} + second[p];
        if (t < kFew && p < kFew) count += few_[kFew * t + p];
        if (t < rows_ && p < columns_) {
          table[t * classes_ + p] += static_cast<std::int64_t>(count);
        } else {
          outside += count;
        }
      }
    }
    std::fill(tables_.begin(), tables_.end(), 0);
    few_.fill(0);
    since_ = 0;
    return outside;
  }

 private:
  unsigned classes_, rows_, columns_;
  int skip_ = -1;
  std::size_t since_ = 0;
  bool try_few_ = true;
  std::array<bool, 256> ignored_{};
  std::array<std::uint64_t, kFew * kFew> few_{};
  std::vector<std::uint32_t> tables_;
};

std::uint64_t read(const Labels& labels, std::size_t i) {
  const auto as = [&](auto value) {
    std::memcpy(&value, at(labels, i), sizeof value);
    return static_cast<std::uint64_t>(value);
  };
  switch (labels.bytes) {
    case 1: return labels.is_signed ? as(std::int8_t{}) : as(std::uint8_t{});
    case 2: return labels.is_signed ? as(std::int16_t{}) : as(std::uint16_t{});
    case 4: return labels.is_signed ? as(std::int32_t{}) : as(std::uint32_t{});
    default: return as(std::uint64_t{});
  }
}

// Counts of pairs of any labels: open addressing, at most half full.
class PairTable {
 public:
  void add(std::uint64_t target, std::uint64_t prediction, std::int64_t count) {
    if (2 * size_ >= slots_.size()) grow();
    Slot& slot = find(target, prediction);
    size_ += slot.count == 0;
    slot = {target, prediction, slot.count + count};
  }

  std::vector<PairCount> ordered() const {
    std::vector<PairCount> pairs;
    pairs.reserve(size_);
    for (const Slot& slot : slots_) {
      if (slot.count == 0) continue;
      pairs.push_back({static_cast<std::int64_t>(slot.target), static_cast<std::int64_t>(slot.prediction), slot.count});
    }
    std::sort(pairs.begin(), pairs.end(), [](const PairCount& a, const PairCount& b) {
      return a.target != b.target ? a.target < b.target : a.prediction < b.prediction;
    });
    return pairs;
  }

 private:
  struct Slot {
    std::uint64_t target = 0, prediction = 0;
    std::int64_t count = 0;
  };

  Slot& find(std::uint64_t target, std::uint64_t prediction) {
    std::uint64_t hash = target * 0x9e3779b97f4a7c15u + prediction * 0xc2b2ae3d27d4eb4fu;
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
    std::size_t i = (hash ^ hash >> 32) & (slots_.size() - 1);
    while (slots_[i].count != 0 && (slots_[i].target != target || slots_[i].prediction != prediction)) {
      i = (i + 1) & (slots_.size() - 1);
    }
    return slots_[i];
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.count != 0) find(slot.target, slot.prediction) = slot;
    }
  }

  std::vector<Slot> slots_ = std::vector<Slot>(1024);
  std::size_t size_ = 0;
};

std::vector<PairCount> count_by_hashing(const Labels& prediction, const Labels& target, std::size_t n) {
  PairTable table;
  std::uint64_t t = read(target, 0), p = read(prediction, 0);
  std::int64_t run = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t next_t = read(target, i), next_p = read(prediction, i);
    if (next_t == t && next_p == p) {
      ++run;
      continue;
    }
    table.add(t, p, run);
    t = next_t;
    p = next_p;
    run = 1;
  }
  table.add(t, p, run);
  return table.ordered();
}

struct Bounds {
  std::int64_t low, high;

  // How many labels lie between them; all 2^64 are 0.
  std::uint64_t size() const { return static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) + 1; }
};

Bounds bounds(const Labels& labels, std::size_t n) {
  Bounds found;
  LINOCUT_CALL(find_range, Range{labels.data, labels.bytes, labels.is_signed, n, &found.low, &found.high});
  return found;
}

std::vector<PairCount> count_in_table(const Labels& prediction, const Labels& target, std::size_t n, Bounds columns,
                                      Bounds rows) {
  const std::uint32_t wide = static_cast<std::uint32_t>(columns.size());
  std::vector<std::uint32_t> table(rows.size() * columns.size()), codes(kStrip);
  std::vector<std::int64_t> totals(n > kPass ? table.size() : 0);
  for (std::size_t i = 0; i < n; i += kStrip) {
    const std::size_t length = std::min(kStrip, n - i);
    LINOCUT_CALL(encode, Encoding{at(target, i), target.bytes, length, rows.low, wide, false, codes.data()});
    LINOCUT_CALL(encode, Encoding{at(prediction, i), prediction.bytes, length, columns.low, 1, true, codes.data()});
    LINOCUT_CALL(count_codes, Codes{codes.data(), length, table.data()});
    if ((i + kStrip) % kPass == 0 && !totals.empty()) {
      std::transform(totals.begin(), totals.end(), table.begin(), totals.begin(), std::plus<>());
      std::fill(table.begin(), table.end(), 0);
    }
  }
  std::vector<PairCount> pairs;
  for (std::size_t code = 0; code < table.size(); ++code) {
    const std::int64_t count = table[code] + (totals.empty() ? 0 : totals[code]);
    if (count == 0) continue;
    pairs.push_back({rows.low + static_cast<std::int64_t>(code / wide),
                     columns.low + static_cast<std::int64_t>(code % wide), count});
  }
  return pairs;
}

std::vector<PairCount> count_bytes_of(const Labels& prediction, const Labels& target, std::size_t n) {
  ByteTable counts(prediction, target, 256, {});
  std::vector<std::int64_t> table(kBytePairs);
  for (std::size_t i = 0; i < n; i += kPass) {
    counts.add(static_cast<const std::uint8_t*>(at(prediction, i)), static_cast<const std::uint8_t*>(at(target, i)),
               std::min(kPass, n - i));
    counts.collect(table.data());
  }
  std::vector<PairCount> pairs;
  for (std::int64_t pair = 0; pair < std::int64_t{kBytePairs}; ++pair) {
    if (table[pair] != 0) pairs.push_back({pair / 256, pair % 256, table[pair]});
  }
  return pairs;
}

}  // namespace

std::size_t count_classes(Labels prediction, Labels target, std::size_t n, unsigned classes,
                          const std::vector<std::uint64_t>& ignored, std::int64_t* table) {
  ByteTable counts(prediction, target, classes, ignored);
  std::vector<std::uint8_t> narrowed(2 * kStrip);
  const auto bytes_of = [&](const Labels& l, std::size_t from, std::size_t length, std::uint8_t* out,
                            std::size_t ignored_n) {
    if (is_byte(l)) return static_cast<const std::uint8_t*>(at(l, from));
    LINOCUT_CALL(narrow, Narrowing{at(l, from), l.bytes, length, limit(l, classes), ignored.data(), ignored_n, out});
    return static_cast<const std::uint8_t*>(out);
  };
  const std::size_t step = is_byte(prediction) && is_byte(target) ? kPass : kStrip;
  std::size_t outside = 0;
  for (std::size_t i = 0; i < n; i += step) {
    const std::size_t length = std::min(step, n - i);
    const std::uint8_t* p = bytes_of(prediction, i, length, narrowed.data(), 0);
    const std::uint8_t* t = bytes_of(target, i, length, narrowed.data() + kStrip, ignored.size());
    counts.add(p, t, length);
    if (counts.is_full()) outside += counts.collect(table);
  }
  return outside + counts.collect(table);
}

std::vector<PairCount> count_pairs(Labels prediction, Labels target, std::size_t n) {
  if (is_byte(prediction) && is_byte(target)) return count_bytes_of(prediction, target, n);
  const Bounds columns = bounds(prediction, n), rows = bounds(target, n);
  const std::uint64_t most = std::min(std::max(kSmallTable, n), kLargeTable);
  // the quotient instead of the product, which could overflow
  const bool fits = columns.size() != 0 && rows.size() != 0 && rows.size() <= most / columns.size();
  return fits ? count_in_table(prediction, target, n, columns, rows) : count_by_hashing(prediction, target, n);
}

}  // namespace linocut
