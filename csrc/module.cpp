// The Python face of the native core. Arrays are checked in Python, by the callers in src/linocut/data and
// src/linocut/metrics; here they are only taken as they are. Every kernel runs without the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "counting.hpp"
#include "kernels/bind_isa.hpp"
#include "rle.hpp"
#include "runs.hpp"

namespace nb = nanobind;

namespace {

// Raised by one whenever a function's arguments or meaning change; src/linocut/native.py holds the same number.
constexpr int kInterface = 3;

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

// A flat map of any integer type.
using Map = nb::ndarray<nb::ro, Line, nb::c_contig, nb::device::cpu>;

linocut::Labels labels_of(const Map& map) {
  return {map.data(), static_cast<unsigned>(map.itemsize()),
          map.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Int)};
}

std::tuple<Output<std::int64_t, Table>, std::size_t> count_classes(Map prediction, Map target, unsigned classes,
                                                                   std::vector<std::uint64_t> ignored) {
  const std::size_t cells = std::size_t{classes} * classes;
  std::unique_ptr<std::int64_t[]> table;
  std::size_t outside;
  {
    nb::gil_scoped_release release;
    table.reset(new std::int64_t[cells]());
    outside = linocut::count_classes(labels_of(prediction), labels_of(target), target.shape(0), classes, ignored,
                                     table.get());
  }
  return {give<std::int64_t, Table>(std::move(table), {classes, classes}), outside};
}

Output<std::int64_t, Table> count_pairs(Map prediction, Map target) {
  std::unique_ptr<std::int64_t[]> columns;
  std::size_t n;
  {
    nb::gil_scoped_release release;
    const auto pairs = linocut::count_pairs(labels_of(prediction), labels_of(target), target.shape(0));
    n = pairs.size();
    columns.reset(new std::int64_t[3 * n]);
    for (std::size_t i = 0; i < n; ++i) {
      columns[i] = pairs[i].target;
      columns[n + i] = pairs[i].prediction;
      columns[2 * n + i] = pairs[i].count;
    }
  }
  return give<std::int64_t, Table>(std::move(columns), {3, n});
}

Output<std::int64_t, Line> shared_pixels(Input<std::int64_t, Line> bounds_a, Input<std::int64_t, Line> offsets_a,
                                         Input<std::int64_t, Line> bounds_b, Input<std::int64_t, Line> offsets_b,
                                         Input<std::int64_t, Line> rows, Input<std::int64_t, Line> columns) {
  std::unique_ptr<std::int64_t[]> shared;
  {
    nb::gil_scoped_release release;
    shared.reset(new std::int64_t[rows.shape(0)]);
    linocut::shared_pixels(bounds_a.data(), offsets_a.data(), bounds_b.data(), offsets_b.data(), rows.data(),
                           columns.data(), rows.shape(0), shared.get());
  }
  return give<std::int64_t, Line>(std::move(shared), {rows.shape(0)});
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Kernels of Linocut. Use the functions of linocut.data and linocut.metrics, which check what they are given.";
  m.attr("interface") = kInterface;
  linocut::bind_isa(m);
  m.def("mask_to_counts", &mask_to_counts);
  m.def("counts_to_mask", &counts_to_mask);
  m.def("counts_to_string", &counts_to_string);
  m.def("string_to_counts", &string_to_counts);
  m.def("count_classes", &count_classes);
  m.def("count_pairs", &count_pairs);
  m.def("shared_pixels", &shared_pixels);
}
