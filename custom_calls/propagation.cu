// sums[j] = sum over the synapses from an active i onto j of round(2^S * values[i] * weight).
//
// Sums that fit into the cache are added to in memory, one atomic per synapse. Where they do not,
// such an atomic costs a round trip to memory; there blocks first sort tiles of synapses by slice
// of targets, then add up one slice at a time in shared memory. Sums are integers: any order does.
//
// The kernels of one call overlap: each is set up, and reads what was there before the call, while
// the one before it still runs; then it waits.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "launch.h"
#include "propagation.h"
#include "propagation_events.h"

namespace brainjax {
namespace {

constexpr int kThreads = 512;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kSumThreads = 1024;
// Synapses that a block sorts at a time: two blocks share a multiprocessor's memory.
constexpr int64_t kUnitTile = 1 << 14, kWeightedTile = 7680, kMinTile = 1 << 10;
constexpr int64_t kMaxSorted = 1 << 26;  // synapses of one call; beyond, they are added in memory
constexpr int64_t kMaxSortBlocks = 512;
constexpr int64_t kSlices = 1 << 8;  // of the targets, unless these many would be too large
constexpr int64_t kMaxSlices = 1 << 13;
constexpr int kMinSliceBits = 10, kMaxSliceBits = 14;

BRAINJAX_HOST_DEVICE constexpr int64_t MaxTile(bool weighted) {
  return weighted ? kWeightedTile : kUnitTile;
}

// Lets the next kernel of the call start. Before Hopper, it starts when this one has ended.
__device__ __forceinline__ void AdmitNextKernel() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// Waits until the kernel before this one has ended and its results can be read.
__device__ __forceinline__ void AwaitKernelBefore() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

// Scratch of one batch element, cut from a result buffer.
struct Scratch {
  int32_t* words;
  int64_t stride;  // words of one batch element
  // Where each part starts.
  int64_t totals, unlike, tile_offsets, targets, contributions, end;
  int64_t max_sorted;
  int slices, slice_bits;

  Scratch(int32_t* words, int64_t stride) : words(words), stride(stride) {}

  // The parts of a call. The synapses before each of `num_counted` neurons start at word 0.
  void Divide(int64_t num_counted, bool may_sort, bool weighted, int64_t max_synapses,
              int64_t num_post) {
    auto aligned = [](int64_t word) { return CeilDiv(word, 4) * 4; };
    const int64_t tile = MaxTile(weighted);
    const int64_t tiles = CeilDiv(std::min(max_synapses, kMaxSorted), tile);
    slice_bits = kMinSliceBits;
    while (slice_bits < kMaxSliceBits && num_post > kSlices << slice_bits) ++slice_bits;
    slices = static_cast<int>(CeilDiv(num_post, int64_t{1} << slice_bits));
    max_sorted = tiles * tile;
    totals = 2 * num_counted;
    unlike = totals + (num_counted > 0 ? 2 * kChunks : 0);
    tile_offsets = aligned(unlike + kMaxSortBlocks);
    targets = aligned(tile_offsets + CeilDiv((tiles + kMaxSortBlocks) * (slices + 1), 2));
    contributions = targets + aligned((max_sorted + tile) / 2);
    end = may_sort ? contributions + (weighted ? max_sorted + tile : 0) : unlike;
  }

  template <typename T>
  __device__ T* Part(int64_t b, int64_t part) const {
    return reinterpret_cast<T*>(words + b * stride + part);
  }
};

template <typename W>
struct Call {
  PropagationBatch<W> batch;
  Scratch scratch;
  int64_t sort_from;    // synapses; 0: never
  uint32_t sort_blocks;  // for each batch element
};

template <typename Events>
__device__ Events MakeEvents(const Propagation<typename Events::Weight>& problem,
                             const Scratch& scratch, int64_t b,
                             typename Events::Shared* shared) {
  return Events(problem, scratch.Part<const uint64_t>(b, 0),
                scratch.Part<const uint64_t>(b, scratch.totals), shared);
}

// Sum of one number per thread over the threads before this one; `total` over all.
template <int kBlock, typename T>
__device__ T ExclusiveScan(T mine, T* total) {
  __shared__ T warps[kBlock / kWarp];
  T end = mine;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const T before = __shfl_up_sync(kAllLanes, end, distance);
    if (Lane() >= distance) end += before;
  }
  const int warp = threadIdx.x / kWarp;
  if (Lane() == kWarp - 1) warps[warp] = end;
  __syncthreads();
  T before_warp = 0;
  *total = 0;
#pragma unroll
  for (int w = 0; w < kBlock / kWarp; ++w) {
    if (w < warp) before_warp += warps[w];
    *total += warps[w];
  }
  __syncthreads();  // `warps` is free again
  return before_warp + end - mine;
}

// Sets all sums to 0: all threads of the grid do.
template <typename W>
__device__ void ClearSums(const PropagationBatch<W>& batch) {
  const int64_t block = blockIdx.x + int64_t{blockIdx.y} * gridDim.x;
  const int64_t thread = block * kThreads + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * gridDim.y * kThreads;
  const int64_t count = batch.size * int64_t{batch.first.num_post}, vectors = count / 4;
  int4* const sums = reinterpret_cast<int4*>(batch.first.sums);  // the start of a buffer
  for (int64_t i = thread; i < vectors; i += threads) sums[i] = make_int4(0, 0, 0, 0);
  if (thread < count % 4) batch.first.sums[4 * vectors + thread] = 0;
}

// Counts the synapses of the active neurons, chunk by chunk of their list.
template <typename W>
__device__ void CountRows(const Call<W>& call) {
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const Propagation<W> problem = call.batch.At(b);
    uint64_t* before = call.scratch.template Part<uint64_t>(b, 0);
    uint64_t* totals = call.scratch.template Part<uint64_t>(b, call.scratch.totals);
    const int64_t size = CompressedEvents<W>::ChunkSize(problem.count);
    for (int chunk = blockIdx.x; chunk < kChunks; chunk += gridDim.x) {
      const int64_t first = chunk * size, last = min(first + size, problem.count);
      uint64_t total = 0;
      for (int64_t start = first; start < last; start += kThreads) {
        const int64_t place = start + threadIdx.x;
        uint64_t added;
        const uint64_t length = place < last ? problem.Row(place).length : 0;
        const uint64_t preceding = ExclusiveScan<kThreads>(length, &added);
        if (place < last) before[place] = total + preceding;
        total += added;
      }
      if (threadIdx.x == 0) totals[chunk] = total;
    }
  }
}

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

// How the synapses of one batch element are cut into tiles. What is sorted has fewer than 2^31.
struct Tiling {
  uint32_t units;  // that are sorted at all
  uint32_t tile_units;
  uint32_t tiles;
  uint32_t tile_synapses;

  template <typename Events>
  __device__ static Tiling Of(const Events& events, const Call<typename Events::Weight>& call) {
    constexpr bool kWeighted = !std::is_same_v<typename Events::Weight, UnitWeight>;
    constexpr uint32_t kWidth = Events::kWidth, kMost = MaxTile(kWeighted) / kWidth;
    if (events.units() * kWidth < call.sort_from) return {0, 1, 0, 0};
    const uint32_t units =
        static_cast<uint32_t>(min(events.units(), call.scratch.max_sorted / kWidth));
    // Every block has as many tiles as the others.
    const uint32_t turns = Up(units, call.sort_blocks * kMost);
    const uint32_t share = Up(units, call.sort_blocks * turns * kWarp) * kWarp;
    const uint32_t tile_units = max(share, static_cast<uint32_t>(kMinTile) / kWidth);
    return {units, tile_units, Up(units, tile_units), tile_units * kWidth};
  }

  static __device__ uint32_t Up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
};

// Where the sorted tiles of one batch element are in memory.
struct SortedTiles {
  uint16_t* offsets;  // of slice s in tile t: at t * (slices + 1) + s
  uint16_t* targets;  // within their slices
  int32_t* contributions;
  int slices, slice_bits;

  __device__ SortedTiles(const Scratch& scratch, int64_t b)
      : offsets(scratch.Part<uint16_t>(b, scratch.tile_offsets)),
        targets(scratch.Part<uint16_t>(b, scratch.targets)),
        contributions(scratch.Part<int32_t>(b, scratch.contributions)),
        slices(scratch.slices),
        slice_bits(scratch.slice_bits) {}
};

// A tile in shared memory, as it was read and as it is sorted.
template <bool kWeighted>
struct TileBuffers {
  static constexpr int64_t kSize = MaxTile(kWeighted), kWeights = kWeighted ? kSize : 4;

  int32_t read_targets[kSize];
  int32_t read_contributions[kWeights];
  int32_t contributions[kWeights];
  uint16_t targets[kSize];
  uint32_t cursors[1];  // of each slice: the next free place in the tile

  static int64_t Bytes(int64_t slices) { return sizeof(TileBuffers) + slices * sizeof(uint32_t); }
};

// Copies whole vectors; what is behind the last element is not read.
template <typename T>
__device__ void CopyOut(const T* source, uint32_t count, T* destination) {
  const uint32_t vectors = (count * sizeof(T) + 15) / 16;
  for (uint32_t i = threadIdx.x; i < vectors; i += kThreads) {
    reinterpret_cast<int4*>(destination)[i] = reinterpret_cast<const int4*>(source)[i];
  }
}

// Replaces the number of synapses in each slice by that in the slices before it.
__device__ uint32_t AddUpSlices(uint32_t* cursors, int slices, uint16_t* offsets) {
  const int mine = (slices + kThreads - 1) / kThreads;
  const int first = min(static_cast<int>(threadIdx.x) * mine, slices);
  const int last = min(first + mine, slices);
  uint32_t count = 0, total;
  for (int s = first; s < last; ++s) count += cursors[s];
  uint32_t place = ExclusiveScan<kThreads>(count, &total);
  for (int s = first; s < last; ++s) {
    const uint32_t here = cursors[s];
    cursors[s] = place;
    offsets[s] = static_cast<uint16_t>(place);
    place += here;
  }
  if (threadIdx.x == 0) offsets[slices] = static_cast<uint16_t>(total);
  return total;
}

// Moves a vector to or from shared memory.
template <int kWidth>
__device__ void CopyVector(const int32_t* source, int32_t* destination) {
  if constexpr (kWidth == 4) {
    *reinterpret_cast<int4*>(destination) = *reinterpret_cast<const int4*>(source);
  } else {
    *destination = *source;
  }
}

// Sorts `units` units from `first` on by slice of targets into tile `tile`. Returns whether a
// contribution is not `common`; that is asked where there are no weights.
template <typename Events, bool kWeighted>
__device__ bool SortTile(const Events& events, int64_t first, uint32_t units, uint32_t tile,
                         uint32_t tile_synapses, int32_t common, TileBuffers<kWeighted>* buffers,
                         const SortedTiles& tiles) {
  constexpr int kWidth = Events::kWidth;
  bool unlike = false;
  for (int i = threadIdx.x; i < tiles.slices; i += kThreads) buffers->cursors[i] = 0;
  __syncthreads();
  events.ForBlock(first, first + units,
                  [&](int64_t unit, const int32_t(&targets)[kWidth],
                      const int32_t(&contributions)[kWidth]) {
                    const int place = static_cast<int>(unit - first) * kWidth;
                    CopyVector<kWidth>(targets, buffers->read_targets + place);
                    if constexpr (kWeighted) {
                      CopyVector<kWidth>(contributions, buffers->read_contributions + place);
                    }
#pragma unroll
                    for (int v = 0; v < kWidth; ++v) {
                      if (targets[v] < 0) continue;
                      atomicAdd(buffers->cursors + (targets[v] >> tiles.slice_bits), 1u);
                      if constexpr (!kWeighted) unlike |= contributions[v] != common;
                    }
                  });
  __syncthreads();
  const uint32_t count = AddUpSlices(buffers->cursors, tiles.slices,
                                     tiles.offsets + tile * (int64_t{tiles.slices} + 1));
  __syncthreads();
  const int32_t mask = (1 << tiles.slice_bits) - 1;
#pragma unroll(4 / kWidth)
  for (uint32_t unit = threadIdx.x; unit < units; unit += kThreads) {
    alignas(16) int32_t targets[kWidth], contributions[kWidth];
    CopyVector<kWidth>(buffers->read_targets + unit * kWidth, targets);
    if constexpr (kWeighted) {
      CopyVector<kWidth>(buffers->read_contributions + unit * kWidth, contributions);
    }
#pragma unroll
    for (int v = 0; v < kWidth; ++v) {
      if (targets[v] < 0) continue;
      const uint32_t place =
          atomicAdd(buffers->cursors + (targets[v] >> tiles.slice_bits), 1u);
      buffers->targets[place] = static_cast<uint16_t>(targets[v] & mask);
      if constexpr (kWeighted) buffers->contributions[place] = contributions[v];
    }
  }
  __syncthreads();
  const int64_t start = int64_t{tile} * tile_synapses;
  CopyOut(buffers->targets, count, tiles.targets + start);
  if constexpr (kWeighted) CopyOut(buffers->contributions, count, tiles.contributions + start);
  __syncthreads();  // the buffers are free again
  return unlike;
}

template <typename Events>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    SortKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  using W = typename Events::Weight;
  constexpr bool kWeighted = !std::is_same_v<W, UnitWeight>;
  extern __shared__ int4 memory[];
  __shared__ typename Events::Shared shared;
  AdmitNextKernel();
  AwaitKernelBefore();
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const auto problem = call.batch.At(b);
    const Events events = MakeEvents<Events>(problem, call.scratch, b, &shared);
    const Tiling tiling = Tiling::Of(events, call);
    const SortedTiles tiles(call.scratch, b);
    auto* buffers = reinterpret_cast<TileBuffers<kWeighted>*>(memory);
    int32_t common = 0;
    if constexpr (!kWeighted) {
      if (tiling.units > 0) common = Contribution(problem.Gain(0), W{});
    }
    bool unlike = false;
    for (uint32_t tile = blockIdx.x; tile < tiling.tiles; tile += gridDim.x) {
      const uint32_t first = tile * tiling.tile_units;
      unlike |= SortTile(events, first, min(tiling.tile_units, tiling.units - first), tile,
                         tiling.tile_synapses, common, buffers, tiles);
    }
    if constexpr (!kWeighted) {
      unlike = __syncthreads_or(unlike);
      if (threadIdx.x == 0) {
        call.scratch.template Part<int32_t>(b, call.scratch.unlike)[blockIdx.x] = unlike;
      }
    }
    __syncthreads();  // `shared` is free again
  }
}

// How many units the tiles hold that can be used: all or, where contributions without weights
// differ, none. Asked by all threads of a block after the sort.
template <typename W>
__device__ uint32_t UsableUnits(const Tiling& tiling, const Call<W>& call, int64_t b) {
  if constexpr (std::is_same_v<W, UnitWeight>) {
    const int32_t* flags = call.scratch.template Part<const int32_t>(b, call.scratch.unlike);
    if (__syncthreads_or(threadIdx.x < call.sort_blocks && flags[threadIdx.x])) return 0;
  }
  return tiling.units;
}

// Adds the synapses of one slice in tiles [first, last), at most 32, to its sums: one warp does.
template <bool kWeighted>
__device__ void AddTiles(int slice, uint32_t first, uint32_t last, uint32_t tile_synapses,
                         const SortedTiles& tiles, int32_t* sums) {
  const uint32_t tile = first + Lane();
  uint32_t begin = 0, end = 0;
  if (tile < last) {
    const uint16_t* offsets = tiles.offsets + tile * (int64_t{tiles.slices} + 1) + slice;
    begin = offsets[0];
    end = offsets[1];
  }
  const WarpRanges ranges(end - begin);
  const uint32_t shift = tile * tile_synapses + begin - ranges.begin;
  for (uint32_t x = Lane(); x - Lane() < ranges.total; x += kWarp * kInFlight) {
    uint16_t targets[kInFlight];
    int32_t contributions[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const uint32_t element = x + u * kWarp;
      const uint32_t place = __shfl_sync(kAllLanes, shift, ranges.Owner(element)) + element;
      contributions[u] = 0;
      targets[u] = 0;
      if (element < ranges.total) {
        targets[u] = tiles.targets[place];
        contributions[u] = kWeighted ? tiles.contributions[place] : 1;
      }
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (x + u * kWarp < ranges.total) atomicAdd(sums + targets[u], contributions[u]);
    }
  }
}

// Adds up one slice in shared memory and writes it, times `factor`.
template <typename W>
__device__ void SumSlice(const Propagation<W>& problem, int slice, uint32_t num_tiles,
                         uint32_t tile_synapses, const SortedTiles& tiles, uint32_t factor,
                         int32_t* sums) {
  constexpr uint32_t kWarps = kSumThreads / kWarp;
  const uint32_t first = static_cast<uint32_t>(slice) << tiles.slice_bits;
  const uint32_t size = min(1u << tiles.slice_bits, problem.num_post - first);
  for (uint32_t i = threadIdx.x; i < size; i += kSumThreads) sums[i] = 0;
  __syncthreads();
  // Whole turns of equal size for all warps.
  const uint32_t turns = Tiling::Up(max(num_tiles, 1u), kWarps * kWarp);
  const uint32_t window = Tiling::Up(num_tiles, kWarps * turns);
  for (uint32_t t = threadIdx.x / kWarp * window; t < num_tiles; t += kWarps * window) {
    AddTiles<!std::is_same_v<W, UnitWeight>>(slice, t, min(t + window, num_tiles), tile_synapses,
                                             tiles, sums);
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < size; i += kSumThreads) {
    problem.sums[first + i] = static_cast<int32_t>(factor * static_cast<uint32_t>(sums[i]));
  }
  __syncthreads();  // shared memory is free again
}

template <typename Events>
__global__ void __launch_bounds__(kSumThreads, 2)
    SumKernel(const __grid_constant__ Call<typename Events::Weight> call) {
  using W = typename Events::Weight;
  extern __shared__ int4 memory[];
  __shared__ typename Events::Shared shared;
  AdmitNextKernel();
  AwaitKernelBefore();
  for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) {
    const auto problem = call.batch.At(b);
    const Events events = MakeEvents<Events>(problem, call.scratch, b, &shared);
    const Tiling tiling = Tiling::Of(events, call);
    const uint32_t num_tiles = UsableUnits(tiling, call, b) > 0 ? tiling.tiles : 0;
    uint32_t factor = 1;
    if constexpr (std::is_same_v<W, UnitWeight>) {
      if (num_tiles > 0) factor = static_cast<uint32_t>(Contribution(problem.Gain(0), W{}));
    }
    const SortedTiles tiles(call.scratch, b);
    for (int slice = blockIdx.x; slice < tiles.slices; slice += gridDim.x) {
      SumSlice(problem, slice, num_tiles, tiling.tile_synapses, tiles, factor,
               reinterpret_cast<int32_t*>(memory));
    }
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

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxPropagateSpikes, brainjax::Handler,
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
