// How the kernels that sum what spikes send are started.
//
// Sums that fit into the cache are added to in memory, one atomic per synapse. Where they do not,
// such an atomic costs a round trip to memory; there blocks first sort tiles of synapses by slice
// of targets, then add up one slice at a time in shared memory. Sums are integers: any order does.
// What one launch can do for rows of one length is in propagation_together.cuh.
//
// The kernels of one call overlap: each is set up, and may read what was there before the call,
// while the one before it still runs; then it waits, and only then admits the next, but for the one
// that adds what was not sorted. A sort of rows of one length is the first of its call: it overlaps
// with what came before, and reads nothing until it has waited.
#ifndef BRAINJAX_PROPAGATION_LAUNCH_CUH_
#define BRAINJAX_PROPAGATION_LAUNCH_CUH_

#include <cstdint>
#include <optional>
#include <type_traits>

#include "propagation_call.cuh"
#include "propagation_scatter.cuh"
#include "propagation_sort.cuh"
#include "propagation_sum.cuh"

namespace brainjax {
namespace propagation {

// Starts the kernels of a call.
struct Launcher {
  const Device& device;
  cudaStream_t stream;

  // Blocks for each batch element, at most `most`, so that all together fill the machine once.
  dim3 Grid(int64_t most, int64_t batch) const {
    const int64_t blocks = int64_t{device.multiprocessors} * kBlocksPerMultiprocessor;
    const int64_t columns = std::clamp<int64_t>(std::min(most, blocks / batch), 1, kMaxSortBlocks);
    return dim3(static_cast<unsigned>(columns),
                static_cast<unsigned>(std::min(batch, kMaxGridYZ)));
  }

  dim3 SortGrid(int64_t batch) const { return Grid(kMaxSortBlocks, batch); }

  // Starts a kernel that may overlap with the one before it on the stream.
  template <typename... Parameters, typename... Arguments>
  cudaError_t StartOverlapping(void (*kernel)(Parameters...), dim3 grid, int threads,
                               int64_t shared_bytes, const Arguments&... arguments) const {
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    const bool can_overlap = device.architecture >= 9;
    return StartKernel(stream, {grid, threads, shared_bytes},
                       can_overlap ? std::optional(overlap) : std::nullopt, kernel, arguments...);
  }
};

// Synapses that a list of distinct neurons can reach.
template <typename Events>
int64_t MaxSynapses(const Call<typename Events::Weight>& call) {
  const auto& first = call.batch.first;
  return Events::kCounted ? first.num_synapses : first.capacity * first.fan_out;
}

// Shared memory that a block may ask for where `blocks` share a multiprocessor.
inline int64_t ShareOf(const Device& device, int64_t blocks) {
  return (device.shared_memory + kReservedBytes) / blocks - kReservedBytes - kStaticBytes;
}

// Blocks that add up slices at the same time.
inline int SumBlocks(const Device& device) {
  return device.multiprocessors * kSumBlocksPerMultiprocessor;
}

// Slices whose sums leave `taken` bytes of shared memory to who adds them up.
inline Slices SlicesOf(const Device& device, int64_t num_post, int64_t most, int64_t taken) {
  const int64_t bytes = ShareOf(device, kSumBlocksPerMultiprocessor) - taken;
  const int64_t room = bytes / static_cast<int64_t>(sizeof(int32_t)) - kWarp;
  // The spare words have places too.
  const int64_t places = (int64_t{1} << kPlaceBits) - kWarp;
  return Slices::Of(num_post, most, SumBlocks(device), std::min(room, places));
}

// Shared memory for the sums of a slice and the spare words behind them.
inline int64_t SliceBytes(const Slices& slices) {
  return (int64_t{slices.size} + kWarp) * static_cast<int64_t>(sizeof(int32_t));
}

// The most synapses that a block sorts at a time: whole warps of whole units.
template <bool kWeighted>
int64_t TileOf(const Device& device, int64_t slices) {
  constexpr int64_t kWhole = 4 * kWarp;
  const int64_t room = ShareOf(device, 1) - TileBuffers<kWeighted>::Bytes(0, slices);
  return std::clamp(room / TileBuffers<kWeighted>::kSynapseBytes / kWhole * kWhole, kMinTile,
                    MaxTile(kWeighted));
}

// Fits a call that sorts to the device. Who adds up slices takes `taken` bytes of shared memory
// besides.
template <typename Events>
void FitToDevice(const Launcher& launcher, int64_t taken, Call<typename Events::Weight>* call) {
  constexpr bool kWeighted = !std::is_same_v<typename Events::Weight, UnitWeight>;
  const Slices slices = SlicesOf(launcher.device, call->batch.first.num_post,
                                 call->scratch.max_slices, taken);
  call->sort_blocks = launcher.SortGrid(call->batch.size).x;
  call->scratch.FitSort(slices, TileOf<kWeighted>(launcher.device, slices.count),
                        call->sort_blocks);
}

template <typename Events>
cudaError_t StartSort(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  constexpr bool kWeighted = !std::is_same_v<typename Events::Weight, UnitWeight>;
  return launcher.StartOverlapping(
      SortKernel<Events>, launcher.SortGrid(call.batch.size), kThreads,
      TileBuffers<kWeighted>::Bytes(call.scratch.tile, call.scratch.slices.count), call);
}

// Adds in memory what is not sorted.
template <typename Events, typename Adder>
cudaError_t StartRest(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  return launcher.StartOverlapping(RestKernel<Events, Adder>,
                                   launcher.SortGrid(call.batch.size), kThreads, 0, call);
}

// Starts the kernel that scales sums to which something was added in memory.
template <typename Events>
cudaError_t StartScale(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  return launcher.StartOverlapping(ScaleKernel<typename Events::Weight>,
                                   launcher.SortGrid(call.batch.size), kThreads, 0, call);
}

// Starts the kernels that sort, add up and write sums, and add what was not sorted. The call is
// fitted to the device.
template <typename Events, bool kTold>
cudaError_t StartSorted(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  cudaError_t error = StartSort<Events>(launcher, call);
  if (error != cudaSuccess) return error;
  const Slices& slices = call.scratch.slices;
  const dim3 grid(static_cast<unsigned>(slices.count),
                  launcher.SortGrid(call.batch.size).y);
  error = launcher.StartOverlapping(SumKernel<Events, kTold>, grid, kSumThreads,
                                    SliceBytes(slices), call);
  if (error != cudaSuccess) return error;
  return StartRest<Events, std::conditional_t<kTold, MarkingAdder, SumAdder>>(launcher, call);
}

// Cuts the scratch of a call into its parts. Returns whether there is enough.
template <typename Events>
bool DivideScratch(Call<typename Events::Weight>* call) {
  using W = typename Events::Weight;
  const Propagation<W>& first = call->batch.first;
  const bool may_sort = call->sort_from > 0;
  call->scratch.Divide(Events::kCounted ? first.capacity : 0, may_sort,
                       !std::is_same_v<W, UnitWeight>, MaxSynapses<Events>(*call), first.num_post);
  return call->scratch.end <= call->scratch.stride &&
         (!may_sort || call->scratch.max_slices <= kMaxSlices);
}

// Blocks that clear the sums and count rows.
template <typename Events>
dim3 PreparingGrid(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  if (Events::kCounted) return launcher.Grid(kChunks, call.batch.size);
  const int64_t sums = call.batch.size * int64_t{call.batch.first.num_post};
  return launcher.Grid(CeilDiv(sums, 4 * kThreads), 1);
}

// The kernel that adds in memory.
template <typename Events, typename Adder, bool kSingle>
auto ScatterOf(const Call<typename Events::Weight>& call) {
  if constexpr (Events::kCounted) {
    return ScatterKernel<Events, Adder, kSingle>;
  } else {
    return call.batch.first.fan_out <= kHead
               ? ScatterHeadsKernel<typename Events::Weight, Adder, kSingle>
               : ScatterKernel<Events, Adder, false>;
  }
}

// Starts the kernel that adds all in memory, behind one that has cleared the sums.
template <typename Events, bool kTold>
cudaError_t StartScatter(const Launcher& launcher, const Call<typename Events::Weight>& call) {
  using Adder = std::conditional_t<kTold, TallyAdder, SumAdder>;
  const auto scatter = call.batch.size == 1 ? ScatterOf<Events, Adder, true>(call)
                                            : ScatterOf<Events, Adder, false>(call);
  const int64_t blocks = CeilDiv(MaxSynapses<Events>(call), kThreads);
  return launcher.StartOverlapping(scatter, launcher.Grid(blocks, call.batch.size), kThreads, 0,
                                   call);
}

// Starts the kernels that sum what arrives, behind one that prepares. With kTold, they tell who was
// reached too, and leave the sums unscaled.
template <typename Events, bool kTold>
cudaError_t StartSums(const Launcher& launcher, Call<typename Events::Weight> call) {
  const bool sorts = call.sort_from > 0;
  if (sorts) FitToDevice<Events>(launcher, 0, &call);
  const cudaError_t error = sorts ? StartSorted<Events, kTold>(launcher, call)
                                  : StartScatter<Events, kTold>(launcher, call);
  if (kTold || call.batch.unit == 0.0f || error != cudaSuccess) return error;
  return StartScale<Events>(launcher, call);
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_LAUNCH_CUH_
