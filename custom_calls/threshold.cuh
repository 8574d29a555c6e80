// The count-th largest of values that the threads of a block have, by histograms; and of listed
// ones, by bisection where each thread has one of them.
#ifndef BRAINJAX_THRESHOLD_CUH_
#define BRAINJAX_THRESHOLD_CUH_

#include <cstdint>

#include "bisection.cuh"

namespace brainjax {

// Consecutive keys, cut into bins of equal width.
template <int kBins>
struct Bins {
  Interval keys;

  __device__ int Shift() const {
    constexpr int kBits = 31 - __builtin_clz(kBins);
    return max(32 - __clz(keys.high - keys.low) - kBits, 0);
  }
  __device__ bool Contain(uint32_t key) const { return keys.low <= key && key <= keys.high; }
  __device__ uint32_t Of(uint32_t key) const { return (key - keys.low) >> Shift(); }
  __device__ Interval operator[](uint32_t bin) const {
    const uint32_t first = keys.low + (bin << Shift()), last = first + ((1u << Shift()) - 1);
    return {first, last < first || last > keys.high ? keys.high : last};
  }
};

// The bin that holds the threshold, its members, and the keys in the bins above.
struct Choice {
  uint32_t bin, members, above;
};

template <int kThreads>
struct Histogram {
  uint32_t bins[kThreads];
  Choice choice;
};

// The bin of the `remaining`-th largest counted key; clears the bins. Waits before it reads them.
template <int kThreads>
__device__ Choice ChooseBin(uint32_t remaining, WarpWords<kThreads>& warps,
                            Histogram<kThreads>& histogram) {
  const uint32_t bin = kThreads - 1 - threadIdx.x;
  __syncthreads();
  const uint32_t members = histogram.bins[bin];
  histogram.bins[bin] = 0;
  const uint32_t above = warps.ExclusiveSum(0, members);
  if (above < remaining && remaining <= above + members) histogram.choice = {bin, members, above};
  __syncthreads();
  return histogram.choice;
}

// Values of a thread; 0 stands for none.
template <int kNumber>
struct Values {
  uint32_t of_thread[kNumber];
};

// So many values a thread are common: the code for them is shared, and warm when it is met again.
template <int kThreads>
constexpr int kFewValues = kThreads < 1024 ? 5 : 8;

// Values [0, n), value i being load(i), dealt to the threads in turn.
template <int kNumber, int kThreads, typename Load>
__device__ __forceinline__ Values<kNumber> LoadValues(uint32_t n, Load load) {
  Values<kNumber> values;
#pragma unroll
  for (int i = 0; i < kNumber; ++i) {
    const uint32_t place = threadIdx.x + i * kThreads;
    values.of_thread[i] = place < n ? load(place) : 0;
  }
  return values;
}

// The threshold of values that the threads have; leaves the bins at 0. The spaces were not in use
// since the last barrier; the block waits.
template <int kNumber, int kThreads>
__device__ __forceinline__ Threshold FindByBins(const Values<kNumber>& values, Wanted wanted,
                                                WarpWords<kThreads>& warps,
                                                Histogram<kThreads>& histogram) {
  uint32_t below_least = ~0u, largest = 0;
#pragma unroll
  for (const uint32_t value : values.of_thread) {
    below_least = min(below_least, value - 1);  // of 0, no limit
    largest = max(largest, value);
  }
  histogram.bins[threadIdx.x] = 0;
  uint32_t threads;
  Interval range = warps.Extremes(below_least, largest, &threads);
  range.low = threads < wanted.count ? 0 : range.low + 1;  // maybe there are not so many values
  if constexpr (kNumber == 1) {
    // Most values may be equal to the smallest.
    const uint32_t reach = __syncthreads_count(values.of_thread[0] > range.low);
    if (reach < wanted.count) return {range.low, wanted.count - reach};
  }
  const uint32_t enough = range.high > wanted.exact_up_to ? wanted.enough : 0;
  uint32_t above = 0;  // values beyond range.high
  while (range.low < range.high) {
    const Bins<kThreads> bins{range};
#pragma unroll
    for (const uint32_t value : values.of_thread) {
      if (bins.Contain(value)) atomicAdd(&histogram.bins[bins.Of(value)], 1);
    }
    const Choice choice = ChooseBin(wanted.count - above, warps, histogram);
    range = bins[choice.bin];
    above += choice.above;
    if (range.low > 0 && above + choice.members <= enough) {
      // No barrier: what is still read, the choice, is next written behind two of them.
      return {range.low - 1, 0};
    }
  }
  __syncthreads();
  return {range.low, wanted.count - above};
}

template <int kThreads>
__device__ __noinline__ Threshold FindAmongFew(Values<kFewValues<kThreads>> values, Wanted wanted,
                                               WarpWords<kThreads>& warps,
                                               Histogram<kThreads>& histogram) {
  return FindByBins(values, wanted, warps, histogram);
}

// The same of values [0, n), value i being load(i), at most kNumber for each thread.
template <int kNumber, int kThreads, typename Load>
__device__ __noinline__ Threshold FindAmongMany(uint32_t n, Load load, Wanted wanted,
                                                WarpWords<kThreads>& warps,
                                                Histogram<kThreads>& histogram) {
  return FindByBins(LoadValues<kNumber, kThreads>(n, load), wanted, warps, histogram);
}

// The threshold of `n` <= kMost values, value i being load(i), of which at least one is wanted. The
// spaces were not in use since the last barrier; the block waits.
template <int kMost, int kThreads, typename Load>
__device__ Threshold FindThreshold(uint32_t n, Load load, Wanted wanted,
                                   WarpWords<kThreads>& warps, Histogram<kThreads>& histogram) {
  constexpr int kNumber = (kMost + kThreads - 1) / kThreads, kFew = kFewValues<kThreads>;
  if (kNumber == 1 || n <= kThreads) return BisectInBlock(n, load, wanted, warps);
  if (kNumber <= kFew || n <= kFew * kThreads) {
    return FindAmongFew(LoadValues<kFew, kThreads>(n, load), wanted, warps, histogram);
  }
  return FindAmongMany<kNumber>(n, load, wanted, warps, histogram);
}

}  // namespace brainjax

#endif  // BRAINJAX_THRESHOLD_CUH_
