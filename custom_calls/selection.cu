// Indices of the `count` largest scores in ascending order; of equal scores the lowest index.
//
// Digit by digit (11, 11, 10 bits) a histogram of the keys that share the digits so far gives the
// next digit of the threshold: the count-th largest key. All keys above it win, and the first
// ones equal to it. Winner i goes to the place (keys above before i) + min(keys equal before i,
// ties), so that no order of the blocks changes a bit.
#include <cstdint>
#include <mutex>

#include "batch.h"
#include "launch.h"
#include "numbers.h"

namespace brainjax {
namespace {

constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int kMaxWarps = 32;
constexpr int kRounds = 3;
constexpr int kMaxDigits = 2048;
constexpr int kInFlight = 8;  // keys that a thread has asked for before it looks at the first

__host__ __device__ constexpr int DigitBits(int round) { return round < 2 ? 11 : 10; }
__host__ __device__ constexpr int DigitShift(int round) {
  return round == 0 ? 21 : round == 1 ? 10 : 0;
}

struct Problem {
  const float* scores;
  const int32_t* counts;
  int32_t* winners;
  uint32_t* scratch;
  BatchOffsets scores_at, counts_at;
  int64_t batch, n, capacity, scratch_size;

  __device__ const float* Scores(int64_t b) const { return scores + scores_at(b); }
  __device__ int32_t* Winners(int64_t b) const { return winners + b * capacity; }
  __device__ uint32_t Count(int64_t b) const {
    return ClampCount(counts[counts_at(b)], n < capacity ? n : capacity);
  }
};

struct Threshold {
  uint32_t key;   // the count-th largest key
  uint32_t ties;  // how many of the keys equal to it win, at least one
};

// Keys above the threshold and keys equal to it.
struct Counts {
  uint32_t above;
  uint32_t equal;

  __device__ Counts operator+(Counts other) const {
    return {above + other.above, equal + other.equal};
  }
};

__device__ Counts WarpSum(Counts counts) {
  return {__reduce_add_sync(kAllLanes, counts.above), __reduce_add_sync(kAllLanes, counts.equal)};
}

// The sum over the threads before this one; `total` is that over all threads of the block.
__device__ uint32_t BlockExclusiveSum(uint32_t value, uint32_t* total) {
  __shared__ uint32_t warp_sums[kMaxWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  uint32_t inclusive = value;
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t left = __shfl_up_sync(kAllLanes, inclusive, distance);
    if (lane >= distance) inclusive += left;
  }
  __syncthreads();  // the sums of the last call have been read
  if (lane == 31) warp_sums[warp] = inclusive;
  __syncthreads();
  const uint32_t sum = lane < warps ? warp_sums[lane] : 0;
  *total = __reduce_add_sync(kAllLanes, sum);
  return __reduce_add_sync(kAllLanes, lane < warp ? sum : 0) + inclusive - value;
}

// Where a key comes from.
struct KeysOfScores {
  const float* scores;
  __device__ uint32_t operator()(int64_t i) const { return Key(__ldg(scores + i)); }
};

struct KeysInSharedMemory {
  const uint32_t* keys;
  __device__ uint32_t operator()(int64_t i) const { return keys[i]; }
};

// Calls use(i, exists, key) for all i in [begin, end), in `threads` neighbouring threads and in
// ascending order. All threads make the same calls; beyond the end the key does not exist.
template <typename Keys, typename Use>
__device__ __forceinline__ void ForEachKey(Keys keys, int64_t begin, int64_t end, int thread,
                                           int threads, Use use) {
  for (int64_t i = begin + thread; i - thread < end; i += kInFlight * threads) {
    uint32_t key[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      key[u] = i + u * threads < end ? keys(i + u * threads) : 0;
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) use(i + u * threads, i + u * threads < end, key[u]);
  }
}

// ---- The threshold, one digit a round ----

// Counts the digits of this round in the keys of [begin, end) that have the digits `prefix` so
// far. The whole block calls it.
template <typename Keys>
__device__ void AddToHistogram(Keys keys, int64_t begin, int64_t end, int round, uint32_t prefix,
                               uint32_t* histogram) {
  const int shift = DigitShift(round), bits = DigitBits(round);
  ForEachKey(keys, begin, end, threadIdx.x, blockDim.x, [&](int64_t, bool exists, uint32_t key) {
    const bool counted = exists && (uint64_t{key} >> (shift + bits)) == prefix;
    const uint32_t digit = (key >> shift) & ((1u << bits) - 1);
    // Brains are full of exact zeros: a warp of equal digits adds them at once.
    int all_equal;
    __match_all_sync(kAllLanes, counted ? digit : kMaxDigits, &all_equal);
    if (!counted) return;
    if (!all_equal) {
      atomicAdd(histogram + digit, 1);
    } else if (threadIdx.x % 32 == 0) {
      atomicAdd(histogram + digit, 32);
    }
  });
}

struct Digit {
  uint32_t value;
  uint32_t remaining;  // of the winners, those that have this digit or lie deeper
};

// The digit of the `remaining`-th largest counted key. The whole block calls it.
__device__ Digit ChooseDigit(const uint32_t* histogram, int round, uint32_t remaining) {
  __shared__ Digit chosen;
  const int digits = 1 << DigitBits(round);
  const int width = digits / blockDim.x;  // digits of one thread, from the largest digit down
  const int largest = digits - 1 - threadIdx.x * width;
  uint32_t sum = 0;
  for (int d = 0; d < width; ++d) sum += histogram[largest - d];
  uint32_t total;
  uint32_t above = BlockExclusiveSum(sum, &total);
  if (above < remaining && remaining <= above + sum) {  // one thread of the block
    int digit = largest;
    for (; above + histogram[digit] < remaining; --digit) above += histogram[digit];
    chosen = {static_cast<uint32_t>(digit), remaining - above};
  }
  __syncthreads();
  return chosen;
}

__device__ void Clear(uint32_t* words, int size) {
  for (int i = threadIdx.x; i < size; i += blockDim.x) words[i] = 0;
}

// ---- The winners, in order ----

// The whole warp calls these two.
template <typename Keys>
__device__ Counts CountKeys(Keys keys, int64_t begin, int64_t end, uint32_t threshold) {
  Counts counts{0, 0};
  ForEachKey(keys, begin, end, threadIdx.x % 32, 32, [&](int64_t, bool exists, uint32_t key) {
    counts.above += exists && key > threshold;
    counts.equal += exists && key == threshold;
  });
  return WarpSum(counts);
}

// `before`: of all keys in front of `begin`.
template <typename Keys>
__device__ void WriteKeys(Keys keys, int64_t begin, int64_t end, Threshold threshold,
                          Counts before, uint32_t count, int32_t* winners) {
  const uint32_t lanes_before = (1u << (threadIdx.x % 32)) - 1;
  ForEachKey(keys, begin, end, threadIdx.x % 32, 32, [&](int64_t i, bool exists, uint32_t key) {
    const uint32_t above = __ballot_sync(kAllLanes, exists && key > threshold.key);
    const uint32_t equal = __ballot_sync(kAllLanes, exists && key == threshold.key);
    const Counts here = before + Counts{static_cast<uint32_t>(__popc(above & lanes_before)),
                                        static_cast<uint32_t>(__popc(equal & lanes_before))};
    const bool wins = key > threshold.key || (key == threshold.key && here.equal < threshold.ties);
    const uint32_t place = here.above + min(here.equal, threshold.ties);
    if (exists && wins && place < count) winners[place] = static_cast<int32_t>(i);
    before = before + Counts{static_cast<uint32_t>(__popc(above)),
                             static_cast<uint32_t>(__popc(equal))};
  });
}

// The part of [begin, end) that belongs to a warp of the block.
struct Segment {
  int64_t begin, end;
};

__device__ Segment SegmentOfWarp(int64_t begin, int64_t end) {
  const int64_t size = CeilDiv(end - begin, blockDim.x) * 32;
  const int64_t first = begin + threadIdx.x / 32 * size;
  return {first < end ? first : end, first + size < end ? first + size : end};
}

// Writes the winners of [begin, end). The whole block calls it, and waits before the next call.
template <typename Keys>
__device__ void WriteWinners(Keys keys, int64_t begin, int64_t end, Threshold threshold,
                             Counts before, uint32_t count, int32_t* winners) {
  __shared__ Counts of_warps[kMaxWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Segment segment = SegmentOfWarp(begin, end);
  const Counts mine = CountKeys(keys, segment.begin, segment.end, threshold.key);
  if (lane == 0) of_warps[warp] = mine;
  __syncthreads();
  const Counts of_lane = lane < warp ? of_warps[lane] : Counts{0, 0};
  WriteKeys(keys, segment.begin, segment.end, threshold, before + WarpSum(of_lane), count,
            winners);
}

// ---- Small rows: one block each, the keys in shared memory ----

constexpr int64_t kMaxSharedKeys = 48 * 1024;
constexpr int64_t kFewKeys = 4096;  // up to here more threads would only wait for each other
constexpr int kSmallBlock = 256;
constexpr int kLargeBlock = 1024;

__device__ Threshold FindThreshold(KeysInSharedMemory keys, int64_t n, uint32_t count) {
  __shared__ uint32_t histogram[kMaxDigits];
  uint32_t prefix = 0, remaining = count;
  for (int round = 0; round < kRounds; ++round) {
    __syncthreads();  // the histogram has been read, the keys are written
    Clear(histogram, kMaxDigits);
    __syncthreads();
    AddToHistogram(keys, 0, n, round, prefix, histogram);
    __syncthreads();
    const Digit digit = ChooseDigit(histogram, round, remaining);
    prefix = prefix << DigitBits(round) | digit.value;
    remaining = digit.remaining;
  }
  return {prefix, remaining};
}

__global__ void __launch_bounds__(kLargeBlock)
    SelectInOneBlock(const __grid_constant__ Problem problem) {
  extern __shared__ uint32_t shared_keys[];
  for (int64_t b = blockIdx.x; b < problem.batch; b += gridDim.x) {
    const uint32_t count = problem.Count(b);
    int32_t* winners = problem.Winners(b);
    if (count > 0) {
      ForEachKey(KeysOfScores{problem.Scores(b)}, 0, problem.n, threadIdx.x, blockDim.x,
                 [&](int64_t i, bool exists, uint32_t key) {
                   if (exists) shared_keys[i] = key;
                 });
      const KeysInSharedMemory keys{shared_keys};
      const Threshold threshold = FindThreshold(keys, problem.n, count);
      WriteWinners(keys, 0, problem.n, threshold, Counts{0, 0}, count, winners);
    }
    for (int64_t i = int64_t{count} + threadIdx.x; i < problem.capacity; i += blockDim.x) {
      winners[i] = static_cast<int32_t>(problem.n);
    }
    __syncthreads();  // shared memory is free again
  }
}

// ---- Large rows: many blocks, what they must tell each other in scratch memory ----

constexpr int64_t kTile = 4096;  // keys of one block
constexpr int kTileThreads = 256;
constexpr int kHistogramThreads = 512;
constexpr int64_t kHistogramKeys = 4096;     // fewer keys a block are not worth its histogram
constexpr int64_t kMaxHistogramBlocks = 528;  // four a multiprocessor; more would only add bins
constexpr int64_t kHistogramWords = 2 * kMaxDigits;
constexpr int64_t kStateWords = 8;

// The scratch of one row. It holds anything when the first kernel starts.
struct Scratch {
  uint32_t* histograms;  // of the rounds 0 and 1; round 2 uses the first one again
  uint32_t* prefix;      // the threshold's digits so far
  uint32_t* remaining;   // of the winners, those that have these digits
  uint32_t* tickets;     // one a kernel: how many blocks have finished
  uint32_t* above;       // one a tile: keys above the threshold in the tile, then before the tile
  uint32_t* equal;       // the same for keys equal to it

  __device__ Scratch(const Problem& problem, int64_t b) {
    histograms = problem.scratch + b * problem.scratch_size;
    prefix = histograms + kHistogramWords;
    remaining = prefix + 1;
    tickets = prefix + 2;
    above = prefix + kStateWords;
    equal = above + CeilDiv(problem.n, kTile);
  }

  __device__ uint32_t* Histogram(int round) const { return histograms + round % 2 * kMaxDigits; }
};

int64_t ScratchWords(int64_t n) { return kHistogramWords + kStateWords + 2 * CeilDiv(n, kTile); }

// True in the block that finishes last: it sees what all others have written.
__device__ bool IsLastBlock(uint32_t* ticket) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(ticket, 1) == gridDim.x - 1;
  __syncthreads();
  __threadfence();
  return is_last;
}

__global__ void __launch_bounds__(kLargeBlock)
    ClearScratch(const __grid_constant__ Problem problem) {
  for (int64_t b = blockIdx.x; b < problem.batch; b += gridDim.x) {
    Clear(Scratch(problem, b).histograms, kHistogramWords + kStateWords);
  }
}

// One digit of the threshold: the last block chooses it.
template <int kRound>
__global__ void __launch_bounds__(kHistogramThreads)
    FindDigit(const __grid_constant__ Problem problem) {
  constexpr int kDigits = 1 << DigitBits(kRound);
  __shared__ uint32_t histogram[kDigits];
  for (int64_t b = blockIdx.y; b < problem.batch; b += gridDim.y) {
    const uint32_t count = problem.Count(b);
    if (count == 0) continue;
    const Scratch scratch(problem, b);
    const uint32_t prefix = *scratch.prefix;
    const uint32_t remaining = kRound == 0 ? count : *scratch.remaining;
    Clear(histogram, kDigits);
    __syncthreads();
    const int64_t size = CeilDiv(problem.n, gridDim.x);
    const int64_t begin = blockIdx.x * size;
    AddToHistogram(KeysOfScores{problem.Scores(b)}, begin,
                   begin + size < problem.n ? begin + size : problem.n, kRound, prefix, histogram);
    __syncthreads();
    uint32_t* all = scratch.Histogram(kRound);
    for (int d = threadIdx.x; d < kDigits; d += kHistogramThreads) {
      if (histogram[d] > 0) atomicAdd(all + d, histogram[d]);
    }
    if (!IsLastBlock(scratch.tickets + kRound)) continue;
    for (int d = threadIdx.x; d < kDigits; d += kHistogramThreads) histogram[d] = __ldcg(all + d);
    __syncthreads();
    const Digit digit = ChooseDigit(histogram, kRound, remaining);
    if (threadIdx.x == 0) {
      *scratch.prefix = prefix << DigitBits(kRound) | digit.value;
      *scratch.remaining = digit.remaining;
    }
    if (kRound == 0) Clear(all, kMaxDigits);  // for round 2
  }
}

__device__ Segment TileOfBlock(const Problem& problem) {
  const int64_t begin = blockIdx.x * kTile;
  return {begin, begin + kTile < problem.n ? begin + kTile : problem.n};
}

// Replaces the counts of the tiles by those of all tiles before. The whole block calls it.
__device__ void SumTiles(uint32_t* counts, int64_t tiles) {
  uint32_t before = 0;
  for (int64_t first = 0; first < tiles; first += blockDim.x) {
    const int64_t tile = first + threadIdx.x;
    uint32_t total;
    const uint32_t here = BlockExclusiveSum(tile < tiles ? __ldcg(counts + tile) : 0, &total);
    if (tile < tiles) counts[tile] = before + here;
    before += total;
  }
}

// Counts the winners of each tile; the last block sums up.
__global__ void __launch_bounds__(kTileThreads)
    CountTiles(const __grid_constant__ Problem problem) {
  for (int64_t b = blockIdx.y; b < problem.batch; b += gridDim.y) {
    if (problem.Count(b) == 0) continue;
    const Scratch scratch(problem, b);
    const Segment tile = TileOfBlock(problem);
    const Segment segment = SegmentOfWarp(tile.begin, tile.end);
    const Counts of_warp = CountKeys(KeysOfScores{problem.Scores(b)}, segment.begin, segment.end,
                                     *scratch.prefix);
    uint32_t above, equal;
    BlockExclusiveSum(threadIdx.x % 32 == 0 ? of_warp.above : 0, &above);
    BlockExclusiveSum(threadIdx.x % 32 == 0 ? of_warp.equal : 0, &equal);
    if (threadIdx.x == 0) {
      scratch.above[blockIdx.x] = above;
      scratch.equal[blockIdx.x] = equal;
    }
    if (!IsLastBlock(scratch.tickets + kRounds)) continue;
    SumTiles(scratch.above, gridDim.x);
    SumTiles(scratch.equal, gridDim.x);
  }
}

__global__ void __launch_bounds__(kTileThreads)
    WriteTiles(const __grid_constant__ Problem problem) {
  for (int64_t b = blockIdx.y; b < problem.batch; b += gridDim.y) {
    const uint32_t count = problem.Count(b);
    int32_t* winners = problem.Winners(b);
    if (count > 0) {
      const Scratch scratch(problem, b);
      const Threshold threshold{*scratch.prefix, *scratch.remaining};
      const Counts before{scratch.above[blockIdx.x], scratch.equal[blockIdx.x]};
      const Segment tile = TileOfBlock(problem);
      WriteWinners(KeysOfScores{problem.Scores(b)}, tile.begin, tile.end, threshold, before, count,
                   winners);
    }
    const int64_t threads = int64_t{gridDim.x} * kTileThreads;
    for (int64_t i = int64_t{blockIdx.x} * kTileThreads + threadIdx.x + count;
         i < problem.capacity; i += threads) {
      winners[i] = static_cast<int32_t>(problem.n);
    }
    __syncthreads();  // shared memory is free again
  }
}

// ---- Host ----

// The largest n that one block takes on this device, found out once per device.
cudaError_t FindSharedKeys(int64_t* keys) {
  struct Device {
    std::once_flag once;
    cudaError_t error;
    int64_t keys = 0;
  };
  constexpr int kMaxDevices = 64;
  static Device devices[kMaxDevices];
  int id = 0;
  const cudaError_t error = cudaGetDevice(&id);
  if (error != cudaSuccess) return error;
  if (id >= kMaxDevices) return cudaErrorInvalidDevice;
  Device& device = devices[id];
  std::call_once(device.once, [&] {
    int bytes = 0;
    cudaFuncAttributes kernel;
    device.error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, id);
    if (device.error != cudaSuccess) return;
    device.error = cudaFuncGetAttributes(&kernel, SelectInOneBlock);
    if (device.error != cudaSuccess) return;
    const int64_t fitting = (bytes - static_cast<int64_t>(kernel.sharedSizeBytes)) / 4;
    device.keys = fitting < kMaxSharedKeys ? fitting : kMaxSharedKeys;
    device.error =
        cudaFuncSetAttribute(SelectInOneBlock, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(device.keys * sizeof(uint32_t)));
  });
  *keys = device.keys;
  return device.error;
}

unsigned Grid(int64_t blocks, int64_t largest) {
  return static_cast<unsigned>(blocks < largest ? blocks : largest);
}

cudaError_t SelectSmall(cudaStream_t stream, const Problem& problem) {
  const int threads = problem.n <= kFewKeys ? kSmallBlock : kLargeBlock;
  const size_t bytes = problem.n * sizeof(uint32_t);
  SelectInOneBlock<<<Grid(problem.batch, kMaxGridX), threads, bytes, stream>>>(problem);
  return cudaGetLastError();
}

cudaError_t SelectLarge(cudaStream_t stream, const Problem& problem) {
  const unsigned rows = Grid(problem.batch, kMaxGridYZ);
  const dim3 histograms(Grid(CeilDiv(problem.n, kHistogramKeys), kMaxHistogramBlocks), rows);
  const dim3 tiles(static_cast<unsigned>(CeilDiv(problem.n, kTile)), rows);
  ClearScratch<<<Grid(problem.batch, kMaxGridX), kLargeBlock, 0, stream>>>(problem);
  FindDigit<0><<<histograms, kHistogramThreads, 0, stream>>>(problem);
  FindDigit<1><<<histograms, kHistogramThreads, 0, stream>>>(problem);
  FindDigit<2><<<histograms, kHistogramThreads, 0, stream>>>(problem);
  CountTiles<<<tiles, kTileThreads, 0, stream>>>(problem);
  WriteTiles<<<tiles, kTileThreads, 0, stream>>>(problem);
  return cudaGetLastError();
}

ffi::Error Handler(cudaStream_t stream, ffi::Buffer<ffi::F32> scores,
                   ffi::Buffer<ffi::S32> counts, ffi::ResultBuffer<ffi::S32> winners,
                   ffi::ResultBuffer<ffi::U32> scratch) {
  BatchOffsets scores_at, counts_at;
  const Dimensions result = winners->dimensions();
  if (!MapBatch(scores.dimensions(), 1, result, 1, &scores_at) ||
      !MapBatch(counts.dimensions(), 0, result, 1, &counts_at) ||
      BatchSize(scratch->dimensions(), 1) != BatchSize(result, 1)) {
    return ffi::Error::InvalidArgument("select_winners: batch dimensions do not fit");
  }
  const Problem problem{scores.typed_data(),
                        counts.typed_data(),
                        winners->typed_data(),
                        scratch->typed_data(),
                        scores_at,
                        counts_at,
                        BatchSize(result, 1),
                        scores.dimensions().back(),
                        result.back(),
                        scratch->dimensions().back()};
  if (problem.batch == 0 || problem.capacity == 0) return ffi::Error::Success();
  int64_t shared_keys = 0;
  const cudaError_t error = FindSharedKeys(&shared_keys);
  if (error != cudaSuccess) return StatusOf("select_winners", error);
  if (problem.n <= shared_keys) return StatusOf("select_winners", SelectSmall(stream, problem));
  if (problem.scratch_size < ScratchWords(problem.n)) {
    return ffi::Error::InvalidArgument("select_winners: too little scratch memory");
  }
  return StatusOf("select_winners", SelectLarge(stream, problem));
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxSelectWinners, brainjax::Handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()    // scores
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // count
                                  .Ret<xla::ffi::Buffer<xla::ffi::S32>>()    // winners
                                  .Ret<xla::ffi::Buffer<xla::ffi::U32>>(),   // scratch
                              {xla::ffi::Traits::kCmdBufferCompatible});
