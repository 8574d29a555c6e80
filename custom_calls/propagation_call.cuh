// What the kernels of one call of propagate_spikes share: its scratch, and how they follow each
// other.
#ifndef BRAINJAX_PROPAGATION_CALL_CUH_
#define BRAINJAX_PROPAGATION_CALL_CUH_

#include <algorithm>
#include <cstdint>

#include "compressed_events.cuh"
#include "fan_out_events.cuh"
#include "launch.h"
#include "propagation.h"
#include "propagation_reached.cuh"

namespace brainjax {
namespace propagation {

constexpr int kThreads = 512;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kSumThreads = 1024, kSumBlocksPerMultiprocessor = 1;
// Synapses that a block sorts at a time: at most so many that two blocks share the memory of a
// multiprocessor that has much, and, of not too many slices, leave a third of it to the cache.
constexpr int64_t kUnitTile = 12800, kWeightedTile = 7680, kMinTile = 1 << 10;
// Shared memory that a kernel of the sort names itself, at most, and that each block takes besides.
constexpr int64_t kStaticBytes = 1 << 12, kReservedBytes = 1 << 10;
constexpr int64_t kMaxSorted = 1 << 26;  // synapses of one call; beyond, they are added in memory
constexpr int64_t kMaxSortBlocks = 512;
constexpr int64_t kSlices = 1 << 8;  // of the targets, unless these many would be too large
constexpr int64_t kMaxSlices = 1 << 13;
constexpr int kMinSliceBits = 10, kMaxSliceBits = 14;  // where scratch is for slices of 2^bits
constexpr int kPlaceBits = 16;                          // of a target's place in its slice
constexpr uint32_t kPlaceMask = (1u << kPlaceBits) - 1;
constexpr int64_t kSliceUnit = 4 * kWarp;               // slices are multiples of
static_assert(kUnitTile % (4 * kWarp) == 0 && kWeightedTile % (4 * kWarp) == 0, "whole vectors");
static_assert(kUnitTile < 1 << 16 && kWeightedTile < 1 << 16, "places in a tile have 16 bits");
static_assert(kMaxSortBlocks <= kThreads, "a thread reads what one block has found");

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

// Both, in the order that lets the next kernel rely on the one before this one: what that one left
// may be read without waiting.
__device__ __forceinline__ void AwaitAndAdmit() {
  AwaitKernelBefore();
  AdmitNextKernel();
}

// Targets cut into slices of equal size.
struct Slices {
  int count, shift;
  uint32_t size, factor;

  // As many as keep all of `blocks` blocks equally busy for some turns, where each has room for
  // `room` sums; where these would be more than `most`, so many.
  static Slices Of(int64_t num_post, int64_t most, int64_t blocks, int64_t room) {
    const int64_t turns = CeilDiv(num_post, blocks * (room / kSliceUnit * kSliceUnit));
    const int64_t wanted = std::min(most, blocks * turns);
    Slices slices;
    slices.size = static_cast<uint32_t>(CeilDiv(num_post, wanted * kSliceUnit) * kSliceUnit);
    slices.count = static_cast<int>(CeilDiv(num_post, int64_t{slices.size}));
    int bits = 0;
    while (slices.size >> (bits + 1) > 0) ++bits;
    // Above 2^(31 + bits) / size by at most 1: quotients are exact for targets below 2^30.
    slices.factor = static_cast<uint32_t>((uint64_t{1} << (31 + bits)) / slices.size + 1);
    slices.shift = bits - 1;
    return slices;
  }

  // The slice of a target and, in the last bits, its place there.
  __device__ __forceinline__ uint32_t Locate(uint32_t target) const {
    const uint32_t slice = __umulhi(target, factor) >> shift;
    return slice * ((1u << kPlaceBits) - size) + target;
  }
};

// Numbers that a sorted tile has beside its synapses: where each slice begins, and two more.
BRAINJAX_HOST_DEVICE constexpr int64_t NumOffsets(int64_t slices) { return slices + 2; }

// Scratch of one batch element, cut from a result buffer.
struct Scratch {
  int32_t* words;
  int64_t stride;  // words of one batch element
  // Where each part starts.
  int64_t firsts, totals, findings, tile_offsets, synapses, highs, end;
  // What there is room for: synapses, and beginnings of slices in tiles.
  int64_t max_sorted, max_offsets;
  int max_slices;
  // How the device sorts.
  Slices slices;
  int64_t tile;  // the most synapses that a block sorts at a time

  Scratch(int32_t* words, int64_t stride) : words(words), stride(stride) {}

  // The parts of a call. The numbers of synapses before each of `num_counted` neurons start at word
  // 0, and behind them their first synapses.
  void Divide(int64_t num_counted, bool may_sort, bool weighted, int64_t max_synapses,
              int64_t num_post) {
    auto aligned = [](int64_t word) { return CeilDiv(word, 4) * 4; };
    const int64_t most = MaxTile(weighted);
    const int64_t tiles = CeilDiv(std::min(max_synapses, kMaxSorted), most);
    int slice_bits = kMinSliceBits;
    while (slice_bits < kMaxSliceBits && num_post > kSlices << slice_bits) ++slice_bits;
    max_slices = static_cast<int>(CeilDiv(num_post, int64_t{1} << slice_bits));
    max_sorted = tiles * most;
    max_offsets = (tiles + kMaxSortBlocks) * NumOffsets(max_slices);
    firsts = 2 * num_counted;
    totals = CeilDiv(3 * num_counted, 2) * 2;
    findings = totals + (num_counted > 0 ? 2 * kChunks : 0);
    tile_offsets = aligned(findings + kMaxSortBlocks);
    synapses = aligned(tile_offsets + CeilDiv(max_offsets, 2));
    const int64_t words = max_sorted + most, halves = aligned(words / 2);
    highs = synapses + (weighted ? words : halves);
    end = may_sort ? highs + (weighted ? halves : 0) : findings;
  }

  // What CountRows leaves.
  __device__ CountedRows Rows(int64_t b) const {
    return {Part<const uint64_t>(b, 0), Part<const uint32_t>(b, firsts),
            Part<const uint64_t>(b, totals)};
  }

  // Fits a sort by `blocks` blocks to what the device has room for. Small tiles have more
  // beginnings of slices; where there is no scratch for these, fewer synapses are sorted.
  void FitSort(const Slices& fitting, int64_t fitting_tile, int64_t blocks) {
    slices = fitting;
    tile = fitting_tile;
    max_sorted = std::min(max_sorted, (max_offsets / NumOffsets(slices.count) - blocks) * tile);
  }

  // Reckons in bytes: the compiler would add words to those of an element, at each access anew.
  template <typename T>
  __device__ T* Part(int64_t b, int64_t part) const {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(words) +
                                sizeof(int32_t) * (b * stride + part));
  }
};

template <typename W>
struct Call {
  PropagationBatch<W> batch;
  Scratch scratch;
  Marks marks;
  Tallies tallies;       // instead of the sums; null: none
  bool awaits_values;    // what the neurons send is written by the call itself
  int64_t sort_from;     // synapses; 0: never
  bool adds_rest_first;  // what is not sorted is added in memory before what is: by who reads both
  uint32_t sort_blocks;  // for each batch element

  // What is sorted is counted first, from the beginning of each row on.
  __device__ int64_t Head() const { return sort_from > 0 ? 0 : kHead; }
};

// Calls body(b, problem) for each problem of the batch: the blocks of a row of the grid do.
template <bool kSingle, typename W, typename Body>
__device__ __forceinline__ void ForEachElement(const Call<W>& call, const Body& body) {
  if constexpr (kSingle) {
    body(0, call.batch.First());
  } else {
    for (int64_t b = blockIdx.y; b < call.batch.size; b += gridDim.y) body(b, call.batch.At(b));
  }
}

// The same with the events of each problem for which all threads of a block find is_wanted(b).
template <typename Events, typename IsWanted, typename Body>
__device__ __forceinline__ void ForEachWanted(const Call<typename Events::Weight>& call,
                                              const IsWanted& is_wanted, const Body& body) {
  __shared__ typename Events::Shared shared;
  ForEachElement<false>(call, [&](int64_t b, const auto& problem) {
    if (!is_wanted(b)) return;
    const Events events(problem, call.scratch.Rows(b), &shared);
    body(b, problem, events);
    __syncthreads();  // `shared` is free again
  });
}

template <typename Events, typename Body>
__device__ __forceinline__ void ForEachProblem(const Call<typename Events::Weight>& call,
                                               const Body& body) {
  ForEachWanted<Events>(call, [](int64_t) { return true; }, body);
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

// Sets all sums or tallies to 0: all threads of the grid do.
template <typename W>
__device__ void ClearSums(const Call<W>& call) {
  const int64_t block = blockIdx.x + int64_t{blockIdx.y} * gridDim.x;
  const int64_t thread = block * kThreads + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * gridDim.y * kThreads;
  const bool has_tallies = call.tallies.first != nullptr;
  int32_t* const words = has_tallies ? reinterpret_cast<int32_t*>(call.tallies.first)
                                     : call.batch.first.sums;  // the start of a buffer
  const int64_t sums = call.batch.size * int64_t{call.batch.first.num_post};
  const int64_t count = has_tallies ? 2 * sums : sums, vectors = count / 4;
  int4* const first = reinterpret_cast<int4*>(words);
#pragma unroll 1  // more would be reckoned than written
  for (int64_t i = thread; i < vectors; i += threads) first[i] = make_int4(0, 0, 0, 0);
  if (thread < count % 4) words[4 * vectors + thread] = 0;
}

// Counts the synapses of a chunk of the list of active neurons, without the heads of rows, and
// notes the first one counted of each row: a block does. Returns how many there are.
template <typename W>
__device__ uint64_t CountChunk(const Propagation<W>& problem, int64_t head, int64_t first,
                               int64_t last, uint64_t* before, uint32_t* firsts) {
  uint64_t total = 0;
  for (int64_t start = first; start < last; start += kThreads) {
    const int64_t place = start + threadIdx.x;
    const Range tail = place < last ? Tail(problem.Row(place), head) : Range{0, 0};
    uint64_t preceding = 0, added = 0;
    if (__syncthreads_or(tail.length > 0)) {
      preceding = ExclusiveScan<kThreads, uint64_t>(tail.length, &added);
    }
    if (place < last) {
      before[place] = total + preceding;
      firsts[place] = static_cast<uint32_t>(tail.first);
    }
    total += added;
  }
  return total;
}

// Counts them chunk by chunk.
template <bool kSingle, typename W>
__device__ void CountRows(const Call<W>& call) {
  ForEachElement<kSingle>(call, [&](int64_t b, const Propagation<W>& problem) {
    uint64_t* before = call.scratch.template Part<uint64_t>(b, 0);
    uint32_t* firsts = call.scratch.template Part<uint32_t>(b, call.scratch.firsts);
    uint64_t* totals = call.scratch.template Part<uint64_t>(b, call.scratch.totals);
    const int64_t size = CompressedEvents<W>::ChunkSize(problem.count);
    for (int chunk = blockIdx.x; chunk < kChunks; chunk += gridDim.x) {
      const int64_t first = chunk * size, last = min(first + size, problem.count);
      const uint64_t total = CountChunk(problem, call.Head(), first, last, before, firsts);
      if (threadIdx.x == 0) totals[chunk] = total;
    }
  });
}

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_CALL_CUH_
