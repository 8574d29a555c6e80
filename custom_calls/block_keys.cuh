// Keys that one block holds in shared memory, each thread looking after some neighbours.
#ifndef BRAINJAX_BLOCK_KEYS_CUH_
#define BRAINJAX_BLOCK_KEYS_CUH_

#include <cstdint>

namespace brainjax {

constexpr uint32_t kAllLanes = 0xffffffffu;

struct Threshold {
  uint32_t key;   // the count-th largest key
  uint32_t ties;  // how many of the keys equal to it win, at least one
};

// Keys above the threshold and keys equal to it.
struct Counts {
  uint32_t above;
  uint32_t equal;
};

// Consecutive keys, both ends included, cut into bins of equal width.
template <int kBins>
struct Interval {
  uint32_t low, high;

  __device__ int Shift() const {
    constexpr int kBits = 31 - __builtin_clz(kBins);
    return max(32 - __clz(high - low) - kBits, 0);
  }
  __device__ bool Contains(uint32_t key) const { return low <= key && key <= high; }
  __device__ uint32_t BinOf(uint32_t key) const { return (key - low) >> Shift(); }
  __device__ Interval Bin(uint32_t bin) const {
    const uint32_t first = low + (bin << Shift()), last = first + ((1u << Shift()) - 1);
    return {first, last < first || last > high ? high : last};
  }
};

// The neighbouring keys that a thread looks after. Most threads have one candidate or none, so
// each remembers its largest key and the next one, and seldom looks at its keys again.
template <int kThreads>
class OwnKeys {
 public:
  const uint32_t* keys;
  int n, width, begin, end;
  uint32_t largest = 0, second = 0;
  int at = 0;  // the place of the largest, the first one of equals

  __device__ OwnKeys(const uint32_t* keys, int n) : OwnKeys(keys, n, kUnread) {
    ForEach([&](int i, uint32_t key) {
      const bool larger = key > largest;
      second = larger ? largest : max(second, key);
      at = larger ? i : at;
      largest = larger ? key : largest;
    });
    if (at < begin) at = begin;  // all are 0
  }

  // Keys that are all of interest.
  __device__ static OwnKeys List(const uint32_t* keys, int n) {
    OwnKeys own(keys, n, kUnread);
    own.largest = own.second = ~0u;
    return own;
  }

  __device__ bool exist() const { return begin < end; }
  __device__ int NumGroups() const { return (n + width - 1) / width; }

  // Calls use(i, key) in ascending order.
  template <typename Use>
  __device__ __forceinline__ void ForEach(Use use) const {
    int i = begin;
#pragma unroll 1
    for (; i + 4 <= end; i += 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(keys + i);
      use(i, four.x), use(i + 1, four.y), use(i + 2, four.z), use(i + 3, four.w);
    }
#pragma unroll 1
    for (; i < end; ++i) use(i, keys[i]);
  }

  // How many keys are in the interval; `mask` tells ForEachIn of the first ones. The whole warp
  // calls these two.
  __device__ uint32_t CountIn(Interval<kThreads> interval, uint32_t* mask) const {
    *mask = Mask(0, interval);
    uint32_t count = __popc(*mask);
    for (int first = kMask; first < width; first += kMask) count += __popc(Mask(first, interval));
    return count;
  }

  // Calls use(i) in ascending order.
  template <typename Use>
  __device__ __forceinline__ void ForEachIn(Interval<kThreads> interval, uint32_t mask,
                                            Use use) const {
#pragma unroll 1
    for (int first = 0; first < width; first += kMask) {
      if (first > 0) mask = Mask(first, interval);
#pragma unroll 1
      for (uint32_t left = mask; left != 0; left &= left - 1) use(begin + first + __ffs(left) - 1);
    }
  }

 private:
  static constexpr int kMask = 32;   // keys that one mask tells of
  static constexpr int kInTurn = 6;  // lanes that are helped one by one

  static constexpr struct Unread {
  } kUnread{};

  // An odd number of 16-byte words a thread: neighbours do not meet in one bank.
  __device__ OwnKeys(const uint32_t* keys, int n, Unread)
      : keys(keys), n(n), width(4 * ((n + 4 * kThreads - 1) / (4 * kThreads) | 1)) {
    begin = min(static_cast<int>(threadIdx.x) * width, n);
    end = min(begin + width, n);
  }

  // Bit j says whether key begin + first + j is in the interval.
  __device__ uint32_t Mask(int first, Interval<kThreads> interval) const {
    const uint32_t several = __ballot_sync(kAllLanes, second >= interval.low);
    if (interval.high < ~0u || __popc(several) > kInTurn) {
      return largest >= interval.low ? MaskAlone(begin + first, interval) : 0;
    }
    const int place = at - begin - first;
    const bool found = begin < end && largest >= interval.low && 0 <= place && place < kMask;
    uint32_t mask = found ? 1u << place : 0;
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (uint32_t left = several; left != 0; left &= left - 1) {
      const int helped = __ffs(left) - 1;  // all lanes look at its keys
      const int i = (static_cast<int>(threadIdx.x) - lane + helped) * width + first + lane;
      const bool owned = first + lane < width && i < n;
      const uint32_t of_helped = __ballot_sync(kAllLanes, owned && keys[i] >= interval.low);
      if (lane == helped) mask = of_helped;
    }
    return mask;
  }

  __device__ uint32_t MaskAlone(int first, Interval<kThreads> interval) const {
    const int last = min(first + kMask, end);
    uint32_t mask = 0;
    int i = first;
#pragma unroll 1
    for (; i + 4 <= last; i += 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(keys + i);
      const uint32_t bits =
          (interval.Contains(four.x) ? 1 : 0) | (interval.Contains(four.y) ? 2 : 0) |
          (interval.Contains(four.z) ? 4 : 0) | (interval.Contains(four.w) ? 8 : 0);
      mask |= bits << (i - first);
    }
#pragma unroll 1
    for (; i < last; ++i) mask |= static_cast<uint32_t>(interval.Contains(keys[i])) << (i - first);
    return mask;
  }
};

__device__ __forceinline__ uint32_t WarpInclusiveSum(uint32_t value) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t left = __shfl_up_sync(kAllLanes, value, distance);
    if (threadIdx.x % 32 >= distance) value += left;
  }
  return value;
}

// The sum over the lanes in front of this one; `total` is that over the warp.
__device__ __forceinline__ uint32_t WarpExclusiveSum(uint32_t value, uint32_t* total) {
  if (__any_sync(kAllLanes, value > 2)) {
    const uint32_t through_here = WarpInclusiveSum(value);
    *total = __shfl_sync(kAllLanes, through_here, 31);
    return through_here - value;
  }
  const uint32_t in_front = (1u << threadIdx.x % 32) - 1;
  const uint32_t some = __ballot_sync(kAllLanes, value > 0);
  const uint32_t two = __ballot_sync(kAllLanes, value > 1);
  *total = __popc(some) + __popc(two);
  return __popc(some & in_front) + __popc(two & in_front);
}

}  // namespace brainjax

#endif  // BRAINJAX_BLOCK_KEYS_CUH_
