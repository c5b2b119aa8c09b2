// The table of contents of the native module. Arrays arrive as addresses and sizes: Python has
// checked shapes, dtypes and contiguity (vqtok/ops), and keeps the memory alive during the call.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/adaptive.h"
#include "cpu/beam.h"
#include "cpu/bits.h"
#include "cpu/codebook_cache.h"
#include "cpu/cosine.h"
#include "cpu/ema.h"
#include "cpu/isa.h"
#include "cpu/nearest.h"
#include "cpu/prior.h"
#include "cpu/residual.h"
#include "cuda/ema.h"
#include "cuda/nearest.h"

namespace py = pybind11;
using namespace vqtok;

namespace {

template <class T> T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

py::list isas() {
  int count = 0;
  const Isa* all = compiled_isas(&count);
  py::list names;
  for (int i = 0; i < count; ++i)
    if (all[i].supported()) names.append(all[i].name);
  return names;
}

py::tuple nearest_cpu(uintptr_t x, int x_dtype, int64_t rows, int64_t x_stride, uintptr_t codebook,
                      int codebook_dtype, int64_t size, int64_t codebook_stride, int64_t dim,
                      uintptr_t codes, int threads, const std::string& isa) {
  const Matrix rows_matrix{at<void>(x), static_cast<DType>(x_dtype), rows, dim, x_stride};
  const Matrix code_matrix{at<void>(codebook), static_cast<DType>(codebook_dtype), size, dim,
                           codebook_stride};
  int64_t bad_row = -1, bad_code = -1;
  {
    py::gil_scoped_release release;
    const NearestKernel& kernel = *choose_isa(isa.c_str()).nearest;
    const auto packed = packed_codebook(code_matrix, threads, *kernel.digest);
    bad_code = packed->first_bad_code;
    bad_row = nearest(*packed, rows_matrix, at<int64_t>(codes), threads, kernel);
  }
  return py::make_tuple(bad_row, bad_code);
}

py::tuple nearest_cosine_cpu(uintptr_t x, int x_dtype, int64_t rows, int64_t x_stride,
                             uintptr_t codebook, int codebook_dtype, int64_t size,
                             int64_t codebook_stride, int64_t dim, uintptr_t codes, int threads,
                             const std::string& isa) {
  const Matrix rows_matrix{at<void>(x), static_cast<DType>(x_dtype), rows, dim, x_stride};
  const Matrix code_matrix{at<void>(codebook), static_cast<DType>(codebook_dtype), size, dim,
                           codebook_stride};
  int64_t bad_row = -1, bad_code = -1;
  {
    py::gil_scoped_release release;
    const NearestKernel& kernel = *choose_isa(isa.c_str()).nearest;
    const auto units = packed_units(code_matrix, threads, *kernel.digest);
    bad_code = units->first_bad_code;
    bad_row = nearest_cosine(*units, rows_matrix, at<int64_t>(codes), threads, kernel);
  }
  return py::make_tuple(bad_row, bad_code);
}

py::tuple residual_cpu(uintptr_t x, int64_t rows, int64_t stride, int64_t dim,
                       const std::vector<uintptr_t>& codebooks, const std::vector<int64_t>& sizes,
                       uintptr_t codes, uintptr_t quantized, int threads, const std::string& isa) {
  const Matrix matrix{at<void>(x), DType::f32, rows, dim, stride};
  int64_t bad_row = -1, bad_codebook = -1, bad_code = -1;
  {
    py::gil_scoped_release release;
    const NearestKernel& kernel = *choose_isa(isa.c_str()).nearest;
    std::vector<std::shared_ptr<const PackedCodebook>> packed;
    std::vector<Codebook> levels;
    for (size_t q = 0; q < codebooks.size(); ++q) {
      const Matrix codebook{at<void>(codebooks[q]), DType::f32, sizes[q], dim, dim};
      packed.push_back(packed_codebook(codebook, threads, *kernel.digest));
      levels.push_back({packed.back().get(), at<float>(codebooks[q])});
      if (bad_code < 0 && packed.back()->first_bad_code >= 0) {
        bad_codebook = static_cast<int64_t>(q);
        bad_code = packed.back()->first_bad_code;
      }
    }
    bad_row = residual(levels, matrix, at<int64_t>(codes), at<float>(quantized), threads, kernel);
  }
  return py::make_tuple(bad_row, bad_codebook, bad_code);
}

py::tuple nearest_few_cpu(uintptr_t x, int x_dtype, int64_t rows, int64_t x_stride,
                          uintptr_t codebook, int codebook_dtype, int64_t size,
                          int64_t codebook_stride, int64_t dim, int64_t keep, uintptr_t codes,
                          uintptr_t distances, int threads, const std::string& isa) {
  const Matrix rows_matrix{at<void>(x), static_cast<DType>(x_dtype), rows, dim, x_stride};
  const Matrix code_matrix{at<void>(codebook), static_cast<DType>(codebook_dtype), size, dim,
                           codebook_stride};
  int64_t bad_row = -1, bad_code = -1;
  {
    py::gil_scoped_release release;
    const NearestKernel& kernel = *choose_isa(isa.c_str()).nearest;
    const auto packed = packed_codebook(code_matrix, threads, *kernel.digest);
    bad_code = packed->first_bad_code;
    bad_row = nearest_few(*packed, rows_matrix, keep, at<int64_t>(codes), at<float>(distances),
                          threads, kernel);
  }
  return py::make_tuple(bad_row, bad_code);
}

py::tuple beam_search_cpu(uintptr_t x, int x_dtype, int64_t rows, int64_t stride, int64_t dim,
                          const std::vector<std::tuple<uintptr_t, int, int64_t>>& codebooks,
                          int beam, uintptr_t codes, int threads, const std::string& isa) {
  const Matrix matrix{at<void>(x), static_cast<DType>(x_dtype), rows, dim, stride};
  int64_t bad_row = -1, bad_codebook = -1, bad_code = -1;
  {
    py::gil_scoped_release release;
    const NearestKernel& kernel = *choose_isa(isa.c_str()).nearest;
    std::vector<std::shared_ptr<const PackedCodebook>> packed;
    std::vector<const PackedCodebook*> levels;
    for (const auto& [values, dtype, size] : codebooks) {
      packed.push_back(packed_codebook(
          {at<void>(values), static_cast<DType>(dtype), size, dim, dim}, threads, *kernel.digest));
      if (bad_code < 0 && packed.back()->first_bad_code >= 0) {
        bad_codebook = static_cast<int64_t>(levels.size());
        bad_code = packed.back()->first_bad_code;
      }
      levels.push_back(packed.back().get());
    }
    bad_row = beam_search(levels, matrix, beam, at<int64_t>(codes), threads, kernel);
  }
  return py::make_tuple(bad_row, bad_codebook, bad_code);
}

int64_t pack_bits_cpu(uintptr_t codes, int bytes, bool is_signed, int64_t count, int bits,
                      uintptr_t packed, int threads) {
  py::gil_scoped_release release;
  return pack_bits(at<void>(codes), {bytes, is_signed}, count, bits, at<uint8_t>(packed), threads);
}

void unpack_bits_cpu(uintptr_t packed, int64_t count, int bits, uintptr_t codes, int threads) {
  py::gil_scoped_release release;
  unpack_bits(at<uint8_t>(packed), count, bits, at<int64_t>(codes), threads);
}

py::bytes to_bytes(const std::vector<uint8_t>& stream) {
  return py::bytes(reinterpret_cast<const char*>(stream.data()), stream.size());
}

// The bytes of an immutable object, which the caller holds.
const uint8_t* bytes_of(const py::bytes& data) {
  return reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(data.ptr()));
}

int64_t size_of(const py::bytes& data) { return PyBytes_GET_SIZE(data.ptr()); }

py::list to_list(const std::vector<std::vector<uint8_t>>& streams) {
  py::list result;
  for (const auto& stream : streams) result.append(to_bytes(stream));
  return result;
}

py::list adaptive_encode_cpu(uintptr_t planes, int64_t rows, int64_t columns,
                             const std::vector<int64_t>& sizes, int threads) {
  std::vector<std::vector<uint8_t>> streams;
  {
    py::gil_scoped_release release;
    streams = encode_planes(static_cast<int>(sizes.size()), threads, [&](int q) {
      return adaptive_encode({at<uint32_t>(planes), q, rows, columns}, sizes[q]);
    });
  }
  return to_list(streams);
}

bool adaptive_decode_cpu(uintptr_t planes, int q, int64_t rows, int64_t columns, int64_t size,
                         const py::bytes& stream) {
  const uint8_t* bytes = bytes_of(stream);
  const int64_t count = size_of(stream);
  const Planes known{at<uint32_t>(planes), q, rows, columns};
  py::gil_scoped_release release;
  return adaptive_decode(known, size, bytes, count, at<uint32_t>(planes) + q * known.size());
}

using LayerAddress = std::tuple<uintptr_t, uintptr_t, int64_t, int64_t, int>;
using EmbeddingAddress = std::tuple<uintptr_t, int64_t, int64_t>;
using NetworkAddress = std::tuple<uintptr_t, int64_t, std::vector<LayerAddress>, LayerAddress,
                                  std::optional<LayerAddress>, uintptr_t>;

PriorLayer layer_at(const LayerAddress& layer) {
  const auto& [weights, bias, out, in, shift] = layer;
  return {at<int8_t>(weights), at<int32_t>(bias), out, in, shift};
}

// Copies all that it is given.
std::unique_ptr<Prior> make_prior(const std::vector<EmbeddingAddress>& embeddings,
                                  const std::vector<NetworkAddress>& networks) {
  auto prior = std::make_unique<Prior>();
  for (const auto& [values, size, width] : embeddings) {
    const uint8_t* first = at<uint8_t>(values);
    prior->embeddings.push_back({{first, first + (size + 1) * width}, size, width});
  }
  for (const auto& [context, slots, hidden, output, groups, order] : networks) {
    std::vector<PriorSlot> places;
    for (int64_t s = 0; s < slots; ++s) {
      const int32_t* slot = at<int32_t>(context) + s * 3;
      places.push_back({slot[0], slot[1], slot[2]});
    }
    std::vector<PriorLayer> layers;
    for (const LayerAddress& layer : hidden) layers.push_back(layer_at(layer));
    PriorLayer group_layer{};
    if (groups) group_layer = layer_at(*groups);
    prior->networks.emplace_back(std::move(places), prior->embeddings.data(), layers,
                                 layer_at(output), groups ? &group_layer : nullptr,
                                 at<int32_t>(order));
  }
  return prior;
}

py::list prior_encode_cpu(const Prior& prior, uintptr_t planes, int64_t count, int64_t rows,
                          int64_t columns, bool mixed, int threads, const std::string& isa) {
  std::vector<std::vector<uint8_t>> streams;
  {
    py::gil_scoped_release release;
    const PriorKernel& kernel = *choose_isa(isa.c_str()).prior;
    streams = encode_planes(static_cast<int>(count), threads, [&](int q) {
      return prior.networks[q].encode({at<uint32_t>(planes), q, rows, columns}, kernel, mixed);
    });
  }
  return to_list(streams);
}

bool prior_decode_cpu(const Prior& prior, uintptr_t planes, int q, int64_t rows, int64_t columns,
                      const py::bytes& stream, bool mixed, const std::string& isa) {
  const uint8_t* bytes = bytes_of(stream);
  const int64_t count = size_of(stream);
  const Planes known{at<uint32_t>(planes), q, rows, columns};
  py::gil_scoped_release release;
  return prior.networks[q].decode(known, bytes, count, *choose_isa(isa.c_str()).prior, mixed,
                                  at<uint32_t>(planes) + q * known.size());
}

void prior_choose_cpu(const Prior& prior, uintptr_t planes, int q, int64_t rows, int64_t columns,
                      uintptr_t targets, uintptr_t embeddings, int64_t dim, int32_t weight,
                      int weight_shift, int32_t limit, int64_t first_row, uintptr_t next,
                      int64_t next_size, const std::string& isa) {
  py::gil_scoped_release release;
  const Planes known{at<uint32_t>(planes), q, rows, columns};
  const Wanted wanted{at<int16_t>(targets), at<int16_t>(embeddings), dim, weight, weight_shift,
                      limit, first_row, at<int16_t>(next), next_size};
  prior.networks[q].choose(known, wanted, *choose_isa(isa.c_str()).prior,
                           at<uint32_t>(planes) + q * known.size());
}

void prior_weights_cpu(const Prior& prior, uintptr_t planes, int q, int64_t rows, int64_t columns,
                       uintptr_t weights, const std::string& isa) {
  py::gil_scoped_release release;
  prior.networks[q].weights({at<uint32_t>(planes), q, rows, columns},
                            *choose_isa(isa.c_str()).prior, at<uint32_t>(weights));
}

int64_t ema_update_cpu(uintptr_t x, int dtype, int64_t rows, int64_t dim, int64_t stride,
                       uintptr_t codes, int64_t size, uintptr_t counts, uintptr_t sums, int threads,
                       const std::string& isa) {
  py::gil_scoped_release release;
  const Matrix matrix{at<void>(x), static_cast<DType>(dtype), rows, dim, stride};
  return ema_update(matrix, at<int64_t>(codes), size, at<int64_t>(counts), at<void>(sums), threads,
                    *choose_isa(isa.c_str()).ema);
}

#if defined(VQTOK_WITH_CUDA)
constexpr bool kWithCuda = true;

void nearest_on_cuda(uintptr_t x, int x_dtype, int64_t rows, int64_t x_stride, uintptr_t codebook,
                     int codebook_dtype, int64_t size, int64_t codebook_stride, int64_t dim,
                     uintptr_t codes, uintptr_t workspace, int device, uintptr_t stream) {
  const Matrix rows_matrix{at<void>(x), static_cast<DType>(x_dtype), rows, dim, x_stride};
  const Matrix code_matrix{at<void>(codebook), static_cast<DType>(codebook_dtype), size, dim,
                           codebook_stride};
  const char* error = nullptr;
  {
    py::gil_scoped_release release;
    error = nearest_cuda(device, at<void>(stream), rows_matrix, code_matrix, at<int64_t>(codes),
                         at<void>(workspace));
  }
  if (error) throw std::runtime_error(std::string("CUDA: ") + error);
}

void ema_update_on_cuda(uintptr_t x, int dtype, int64_t rows, int64_t dim, int64_t stride,
                        uintptr_t codes, int64_t size, uintptr_t counts, uintptr_t sums,
                        uintptr_t workspace, int device, uintptr_t stream) {
  const Matrix matrix{at<void>(x), static_cast<DType>(dtype), rows, dim, stride};
  const char* error = nullptr;
  {
    py::gil_scoped_release release;
    error = ema_update_cuda(device, at<void>(stream), matrix, at<int64_t>(codes), size,
                            at<int64_t>(counts), at<void>(sums), at<void>(workspace));
  }
  if (error) throw std::runtime_error(std::string("CUDA: ") + error);
}
#else
constexpr bool kWithCuda = false;
#endif

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels of vqtok; use vqtok.ops.";
  m.def("isas", &isas, "The instruction sets that this CPU can run, weakest first.");
  m.def("force_method", [](int method) { force_method(static_cast<Method>(method)); },
        py::arg("method"), "For tests and benchmarks: all lookups use native.METHODS[method].");
  m.def("nearest_cpu", &nearest_cpu, py::arg("x"), py::arg("x_dtype"), py::arg("rows"),
        py::arg("x_stride"), py::arg("codebook"), py::arg("codebook_dtype"), py::arg("size"),
        py::arg("codebook_stride"), py::arg("dim"), py::arg("codes"), py::arg("threads"),
        py::arg("isa"), "Returns (first row with NaN or Inf or -1, first such code or -1).");
  m.def("nearest_cosine_cpu", &nearest_cosine_cpu, py::arg("x"), py::arg("x_dtype"),
        py::arg("rows"), py::arg("x_stride"), py::arg("codebook"), py::arg("codebook_dtype"),
        py::arg("size"), py::arg("codebook_stride"), py::arg("dim"), py::arg("codes"),
        py::arg("threads"), py::arg("isa"), "As nearest_cpu, by angle.");
  m.def("residual_cpu", &residual_cpu, py::arg("x"), py::arg("rows"), py::arg("stride"),
        py::arg("dim"), py::arg("codebooks"), py::arg("sizes"), py::arg("codes"),
        py::arg("quantized"), py::arg("threads"), py::arg("isa"),
        "Everything in float32. Returns (first row with NaN or Inf or -1, first codebook that holds "
        "such a code or -1, that code or -1).");
  m.def("nearest_few_cpu", &nearest_few_cpu, py::arg("x"), py::arg("x_dtype"), py::arg("rows"),
        py::arg("x_stride"), py::arg("codebook"), py::arg("codebook_dtype"), py::arg("size"),
        py::arg("codebook_stride"), py::arg("dim"), py::arg("keep"), py::arg("codes"),
        py::arg("distances"), py::arg("threads"), py::arg("isa"), "Returns as nearest_cpu.");
  m.def("beam_search_cpu", &beam_search_cpu, py::arg("x"), py::arg("x_dtype"), py::arg("rows"),
        py::arg("stride"), py::arg("dim"), py::arg("codebooks"), py::arg("beam"), py::arg("codes"),
        py::arg("threads"), py::arg("isa"), "Returns as residual_cpu.");
  m.def("pack_bits_cpu", &pack_bits_cpu, py::arg("codes"), py::arg("bytes"), py::arg("is_signed"),
        py::arg("count"), py::arg("bits"), py::arg("packed"), py::arg("threads"),
        "Returns the position of the first code that does not fit, or -1.");
  m.def("unpack_bits_cpu", &unpack_bits_cpu, py::arg("packed"), py::arg("count"), py::arg("bits"),
        py::arg("codes"), py::arg("threads"));
  m.def("adaptive_encode_cpu", &adaptive_encode_cpu, py::arg("planes"), py::arg("rows"),
        py::arg("columns"), py::arg("sizes"), py::arg("threads"), "A stream for each plane.");
  m.def("adaptive_decode_cpu", &adaptive_decode_cpu, py::arg("planes"), py::arg("q"),
        py::arg("rows"), py::arg("columns"), py::arg("size"), py::arg("stream"),
        "Fills plane q; False if bytes of the stream were left over.");
  py::class_<Prior>(m, "Prior", "A learned prior over codes; see vqtok.ops.prior.")
      .def(py::init(&make_prior), py::arg("embeddings"), py::arg("networks"));
  m.def("prior_encode_cpu", &prior_encode_cpu, py::arg("prior"), py::arg("planes"),
        py::arg("count"), py::arg("rows"), py::arg("columns"), py::arg("mixed"),
        py::arg("threads"), py::arg("isa"), "A stream for each plane.");
  m.def("prior_decode_cpu", &prior_decode_cpu, py::arg("prior"), py::arg("planes"), py::arg("q"),
        py::arg("rows"), py::arg("columns"), py::arg("stream"), py::arg("mixed"), py::arg("isa"),
        "Fills plane q; False if bytes of the stream were left over.");
  m.def("prior_choose_cpu", &prior_choose_cpu, py::arg("prior"), py::arg("planes"), py::arg("q"),
        py::arg("rows"), py::arg("columns"), py::arg("targets"), py::arg("embeddings"),
        py::arg("dim"), py::arg("weight"), py::arg("weight_shift"), py::arg("limit"),
        py::arg("first_row"), py::arg("next"), py::arg("next_size"),
        py::arg("isa"), "Fills plane q with the codes that are worth most; see csrc/cpu/prior.h.");
  m.def("prior_weights_cpu", &prior_weights_cpu, py::arg("prior"), py::arg("planes"), py::arg("q"),
        py::arg("rows"), py::arg("columns"), py::arg("weights"), py::arg("isa"),
        "Four weights for each position of plane q.");
  m.def("ema_update_cpu", &ema_update_cpu, py::arg("x"), py::arg("dtype"), py::arg("rows"),
        py::arg("dim"), py::arg("stride"), py::arg("codes"), py::arg("size"), py::arg("counts"),
        py::arg("sums"), py::arg("threads"), py::arg("isa"),
        "Returns the first row whose code is outside the codebook, or -1.");
  m.attr("with_cuda") = kWithCuda;
#if defined(VQTOK_WITH_CUDA)
  m.attr("no_bad_index") = kNoneBad;
  m.def("nearest_cuda_workspace", &nearest_cuda_workspace, py::arg("rows"), py::arg("size"),
        py::arg("dim"),
        "Bytes of device memory for nearest_cuda. It starts with two int64: the first code and the "
        "first row with NaN or Inf, or no_bad_index.");
  m.def("nearest_cuda", &nearest_on_cuda, py::arg("x"), py::arg("x_dtype"), py::arg("rows"),
        py::arg("x_stride"), py::arg("codebook"), py::arg("codebook_dtype"), py::arg("size"),
        py::arg("codebook_stride"), py::arg("dim"), py::arg("codes"), py::arg("workspace"),
        py::arg("device"), py::arg("stream"), "Queues the lookup on a stream.");
  m.def("ema_cuda_workspace", &ema_cuda_workspace, py::arg("rows"), py::arg("size"),
        "Bytes of device memory for ema_update_cuda. It starts with an int64: the first row whose "
        "code is outside the codebook, or no_bad_index.");
  m.def("ema_update_cuda", &ema_update_on_cuda, py::arg("x"), py::arg("dtype"), py::arg("rows"),
        py::arg("dim"), py::arg("stride"), py::arg("codes"), py::arg("size"), py::arg("counts"),
        py::arg("sums"), py::arg("workspace"), py::arg("device"), py::arg("stream"),
        "Queues the update on a stream.");
#endif
}
