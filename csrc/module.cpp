// The Python face of the native core. Arrays are checked in Python, by the callers in src/linocut/data; here they are
// only taken as they are. Every kernel runs without the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "rle.hpp"

namespace nb = nanobind;

namespace {

// Raised by one whenever a function's arguments or meaning change; src/linocut/native.py holds the same number.
constexpr int kInterface = 1;

template <class T, class Shape>
using Input = nb::ndarray<const T, Shape, nb::c_contig, nb::device::cpu>;
using Line = nb::shape<-1>;
using Table = nb::shape<-1, -1>;

template <class T, class Shape>
using Output = nb::ndarray<nb::numpy, T, Shape>;

// Hands memory over to NumPy, which frees it with the array.
template <class T, class Shape>
Output<T, Shape> give(std::unique_ptr<T[]> data, std::initializer_list<std::size_t> shape) {
  nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Output<T, Shape>(data.release(), shape, owner);
}

Output<std::int64_t, Line> give_line(const std::vector<std::int64_t>& values) {
  auto data = std::make_unique<std::int64_t[]>(values.size());
  std::copy(values.begin(), values.end(), data.get());
  return give<std::int64_t, Line>(std::move(data), {values.size()});
}

Output<std::int64_t, Line> mask_to_counts(Input<std::uint8_t, Table> mask) {
  std::vector<std::int64_t> counts;
  {
    nb::gil_scoped_release release;
    counts = linocut::mask_to_counts(mask.data(), mask.shape(0), mask.shape(1));
  }
  return give_line(counts);
}

Output<std::uint8_t, Table> counts_to_mask(Input<std::int64_t, Line> counts, std::size_t h, std::size_t w) {
  std::unique_ptr<std::uint8_t[]> mask;
  {
    nb::gil_scoped_release release;
    mask.reset(new std::uint8_t[h * w]);
    linocut::counts_to_mask(counts.data(), counts.shape(0), mask.get(), h, w);
  }
  return give<std::uint8_t, Table>(std::move(mask), {h, w});
}

nb::str counts_to_string(Input<std::int64_t, Line> counts) {
  std::string text;
  {
    nb::gil_scoped_release release;
    text = linocut::counts_to_string(counts.data(), counts.shape(0));
  }
  return nb::str(text.data(), text.size());
}

Output<std::int64_t, Line> string_to_counts(std::string_view text) {
  std::vector<std::int64_t> counts;
  {
    nb::gil_scoped_release release;
    counts = linocut::string_to_counts(text);
  }
  return give_line(counts);
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Kernels of Linocut. Use the functions of linocut.data, which check what they are given.";
  m.attr("interface") = kInterface;
  m.def("mask_to_counts", &mask_to_counts);
  m.def("counts_to_mask", &counts_to_mask);
  m.def("counts_to_string", &counts_to_string);
  m.def("string_to_counts", &string_to_counts);
}
