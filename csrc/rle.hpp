// COCO run-length encoding: the four steps between a mask and its compressed string.
//
// A mask of height h and width w is read column by column, and the lengths of its runs are listed, background first:
// a mask that starts with foreground starts with a run of length 0. The string form writes each run as its difference
// from the run two places before (the first three as they are), in groups of five bits, low bits first; bit 5 of a
// group says that more follow, and 48 is added so that each group is a printable character.
// Format: Lin et al., "Microsoft COCO", ECCV 2014, and the reference behaviour of pycocotools.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace linocut {

// Runs of a row-major mask (h, w) of bytes that are 0 or 1. An empty mask has the one run 0.
std::vector<std::int64_t> mask_to_counts(const std::uint8_t* mask, std::size_t h, std::size_t w);

// Fills a row-major mask (h, w). The caller has checked that no run is negative and that they add up to h * w.
void counts_to_mask(const std::int64_t* counts, std::size_t n, std::uint8_t* mask, std::size_t h, std::size_t w);

// The compressed string of runs; any int64 values are written faithfully.
std::string counts_to_string(const std::int64_t* counts, std::size_t n);

// The runs of a compressed string. Throws std::invalid_argument with the place of the mistake if the text is not one.
std::vector<std::int64_t> string_to_counts(std::string_view text);

}  // namespace linocut
