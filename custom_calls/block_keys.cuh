// Keys that one block holds in shared memory.
#ifndef BRAINJAX_BLOCK_KEYS_CUH_
#define BRAINJAX_BLOCK_KEYS_CUH_

#include <cstdint>

namespace brainjax {

// The places of a block are vectors of kLength neighbours. A warp has a whole number of times 32
// vectors in a row and deals them to its lanes in turn, so that reads coalesce. Where there is no
// key, 0 is written.
template <int kBlockThreads, int kVectorLength>
struct BlockKeys {
  static constexpr int kThreads = kBlockThreads;
  static constexpr int kLength = kVectorLength;

  uint32_t* keys;
  int64_t first;         // index of the key at place 0
  int begin, end;        // places where there are keys
  int per_lane;          // vectors, the same number in each lane
  uint32_t largest = 0;  // of the keys of this thread

  __host__ __device__ static int Places(int64_t vectors) {
    constexpr int kOfAllLanes = kThreads * kLength;
    return static_cast<int>((vectors + kThreads - 1) / kThreads) * kOfAllLanes;
  }

  __device__ BlockKeys(uint32_t* keys, int64_t first, int begin, int end, int vectors)
      : keys(keys),
        first(first),
        begin(begin),
        end(end),
        per_lane((vectors + kThreads - 1) / kThreads) {}

  __device__ int Places() const { return per_lane * kThreads * kLength; }
  __device__ bool Exists(int place) const { return begin <= place && place < end; }
  // Where key i of a lane of this warp is.
  __device__ int Place(int lane, int i) const {
    const int vector = (static_cast<int>(threadIdx.x) / 32 * per_lane + i / kLength) * 32 + lane;
    return vector * kLength + i % kLength;
  }

  template <typename Use>
  __device__ void ForEach(Use use) const {
    for (int place = threadIdx.x; place < Places(); place += kThreads) use(keys[place]);
  }

  // Which of this thread's keys first ... first + 31 are above the bound, a bit each.
  __device__ uint32_t MaskAbove(uint32_t bound, int first) const {
    constexpr int kWord = kLength < 4 ? 1 : 4;  // keys that are read at once
    uint32_t mask = 0;
    if (largest <= bound) return mask;
    const int number = min(per_lane * kLength - first, 32);
#pragma unroll 2
    for (int i = 0; i < number; i += kWord) {
      const uint32_t* const word = keys + Place(threadIdx.x % 32, first + i);
      uint32_t bits;
      if constexpr (kWord == 1) {
        bits = *word > bound;
      } else {
        const uint4 four = *reinterpret_cast<const uint4*>(word);
        bits = (four.x > bound ? 1 : 0) | (four.y > bound ? 2 : 0) | (four.z > bound ? 4 : 0) |
               (four.w > bound ? 8 : 0);
      }
      mask |= bits << i;
    }
    return mask;
  }
};

// Keys [0, n) of a list in shared memory, which has room for all places of the block. The whole
// block calls it after a barrier, and waits.
template <int kThreads>
__device__ BlockKeys<kThreads, 1> KeysOfList(uint32_t* list, int n) {
  BlockKeys<kThreads, 1> block(list, 0, 0, n, n);
  for (int i = 0; i < block.per_lane; ++i) {
    const int place = block.Place(threadIdx.x % 32, i);
    if (place >= n) list[place] = 0;
    block.largest = max(block.largest, list[place]);
  }
  __syncthreads();
  return block;
}

}  // namespace brainjax

#endif  // BRAINJAX_BLOCK_KEYS_CUH_
