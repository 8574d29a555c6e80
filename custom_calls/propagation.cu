// sums[j] = sum over the synapses from an active i onto j of round(2^S * values[i] * weight).
//
// Sums that fit into the cache are added to in memory, one atomic per synapse. Where they do not,
// such an atomic costs a round trip to memory; there blocks first sort tiles of synapses by slice
// of targets, then add up one slice at a time in shared memory. Sums are integers: any order does.
//
// The kernels of one call overlap: each is set up, and reads what was there before the call, while
// the one before it still runs; then it waits.
#include <cstdint>

#include "propagation_call.cuh"
#include "propagation_sort.cuh"

namespace brainjax {
namespace propagation {

// What has to be done before synapses are visited.
template <typename W>
__global__ void __launch_bounds__(kThreads)
    PrepareKernel(const __grid_constant__ Call<W> call, bool clear, bool count_rows) {
  AdmitNextKernel();
  if (clear) ClearSums(call.batch);
  if (count_rows) CountRows(call);
}

// Adds the synapses of a unit to the sums in memory.
template <typename Events>
struct Adder {
  int32_t* sums;

  __device__ void operator()(int64_t, const int32_t (&targets)[Events::kWidth],
                             const int32_t (&contributions)[Events::kWidth]) const {
#pragma unroll
    for (int v = 0; v < Events::kWidth; ++v) {
      if (targets[v] >= 0) atomicAdd(sums + targets[v], contributions[v]);
    }
  }
};

template <typename Events>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    ScatterKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  __shared__ typename Events::Shared shared;
  if constexpr (Events::kCounted) AwaitKernelBefore();
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const auto problem = call.batch.At(b);
    const Events events = MakeEvents<Events>(problem, call.scratch, b, &shared);
    events.ForGrid(0, [] { AwaitKernelBefore(); },
                   Adder<Events>{problem.sums});
    __syncthreads();  // `shared` is free again
  }
}

// Adds in memory what was not sorted: few synapses, those beyond the scratch, or graded ones
// without weights.
template <typename Events>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    RestKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  __shared__ typename Events::Shared shared;
  AwaitKernelBefore();
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const auto problem = call.batch.At(b);
    const Events events = MakeEvents<Events>(problem, call.scratch, b, &shared);
    const int64_t sorted = UsableUnits(Tiling::Of(events, call), call, b);
    if (sorted < events.units()) {
      events.ForGrid(sorted, [] {}, Adder<Events>{problem.sums});
    }
    __syncthreads();  // `shared` is free again
  }
}

int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0, value = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

// Starts a kernel that may overlap with the one before it on the stream.
template <typename... Parameters, typename... Arguments>
cudaError_t LaunchOverlapping(cudaStream_t stream, void (*kernel)(Parameters...), dim3 grid,
                              int threads, int64_t shared_bytes, const Arguments&... arguments) {
  constexpr int64_t kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = DeviceAttribute(cudaDevAttrComputeCapabilityMajor) >= 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// Blocks for each batch element, at most `most`, so that all together fill the machine once.
dim3 GridOf(int64_t most, int64_t batch) {
  const int64_t blocks = int64_t{DeviceAttribute(cudaDevAttrMultiProcessorCount)} *
                         kBlocksPerMultiprocessor;
  const int64_t columns = std::clamp<int64_t>(std::min(most, blocks / batch), 1, kMaxSortBlocks);
  return dim3(static_cast<unsigned>(columns), static_cast<unsigned>(std::min(batch, kMaxGridYZ)));
}

template <typename Events>
cudaError_t LaunchSort(cudaStream_t stream, Call<typename Events::Weight> call) {
  constexpr bool kWeighted = !std::is_same_v<typename Events::Weight, UnitWeight>;
  const dim3 grid = GridOf(kMaxSortBlocks, call.batch.size);
  call.sort_blocks = grid.x;
  cudaError_t error =
      LaunchOverlapping(stream, SortKernel<Events>, grid, kThreads,
                        TileBuffers<kWeighted>::Bytes(call.scratch.slices), call);
  if (error != cudaSuccess) return error;
  const dim3 slices(static_cast<unsigned>(call.scratch.slices), grid.y);
  error = LaunchOverlapping(stream, SumKernel<Events>, slices, kSumThreads,
                            sizeof(int32_t) << call.scratch.slice_bits, call);
  if (error != cudaSuccess) return error;
  return LaunchOverlapping(stream, RestKernel<Events>, grid, kThreads, 0, call);
}

template <typename Events>
ffi::Error Propagate(cudaStream_t stream, Call<typename Events::Weight> call) {
  using W = typename Events::Weight;
  const Propagation<W>& first = call.batch.first;
  const bool may_sort = call.sort_from > 0;
  const int64_t max_synapses =
      Events::kCounted ? first.num_synapses : first.capacity * first.fan_out;
  call.scratch.Divide(Events::kCounted ? first.capacity : 0, may_sort,
                      !std::is_same_v<W, UnitWeight>, max_synapses, first.num_post);
  if (call.scratch.end > call.scratch.stride || (may_sort && call.scratch.slices > kMaxSlices)) {
    return ffi::Error::InvalidArgument("propagate_spikes: too little scratch");
  }
  if (Events::kCounted || !may_sort) {
    const int64_t vectors = CeilDiv(call.batch.size * int64_t{first.num_post}, 4 * kThreads);
    const dim3 grid = Events::kCounted ? GridOf(kChunks, call.batch.size) : GridOf(vectors, 1);
    PrepareKernel<W><<<grid, kThreads, 0, stream>>>(call, !may_sort, Events::kCounted);
    if (cudaError_t error = cudaGetLastError()) return StatusOf("propagate_spikes", error);
  }
  if (may_sort) return StatusOf("propagate_spikes", LaunchSort<Events>(stream, call));
  const dim3 grid = GridOf(CeilDiv(max_synapses, Events::kWidth * kThreads), call.batch.size);
  return StatusOf("propagate_spikes",
                  LaunchOverlapping(stream, ScatterKernel<Events>, grid, kThreads, 0, call));
}

// Whether every row starts at a multiple of 16 bytes, or of four weights.
template <typename W>
bool HasAlignedRows(const Propagation<W>& problem) {
  return problem.fan_out % 4 == 0 && reinterpret_cast<uintptr_t>(problem.indices) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(problem.weights) % (4 * sizeof(W)) == 0;
}

ffi::Error Handler(cudaStream_t stream, ffi::Buffer<ffi::S32> indptr,
                   ffi::Buffer<ffi::S32> indices, ffi::AnyBuffer weights,
                   ffi::Buffer<ffi::S32> active, ffi::Buffer<ffi::F32> values,
                   ffi::Buffer<ffi::S32> counts, bool fixed_fan_out, int64_t fraction_bits,
                   int64_t sort_from, ffi::ResultBuffer<ffi::S32> sums,
                   ffi::ResultBuffer<ffi::S32> scratch) {
  PropagationOperands operands{indptr, indices, weights,       active,
                               values, counts,  fixed_fan_out, fraction_bits};
  return operands.With(sums, [&](const auto& batch) {
    using W = std::remove_const_t<std::remove_pointer_t<decltype(batch.first.weights)>>;
    if (batch.size == 0 || batch.first.num_post == 0) return ffi::Error::Success();
    const Call<W> call{batch, Scratch(scratch->typed_data(), scratch->dimensions().back()),
                       sort_from, 0};
    if (!fixed_fan_out) return Propagate<CompressedEvents<W>>(stream, call);
    return HasAlignedRows(batch.first)
               ? Propagate<FanOutEvents<W, 4>>(stream, call)
               : Propagate<FanOutEvents<W, 1>>(stream, call);
  });
}

}  // namespace propagation
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxPropagateSpikes, brainjax::propagation::Handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()   // indptr
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()   // indices
                                  .Arg<xla::ffi::AnyBuffer>()               // weights
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()   // active neurons
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()   // values
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()   // count
                                  .Attr<bool>("fixed_fan_out")
                                  .Attr<int64_t>("fraction_bits")
                                  .Attr<int64_t>("sort_from")
                                  .Ret<xla::ffi::Buffer<xla::ffi::S32>>()   // sums
                                  .Ret<xla::ffi::Buffer<xla::ffi::S32>>(),  // scratch
                              {xla::ffi::Traits::kCmdBufferCompatible});
