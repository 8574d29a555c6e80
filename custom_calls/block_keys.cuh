// Keys that one block holds in shared memory.
#ifndef BRAINJAX_BLOCK_KEYS_CUH_
#define BRAINJAX_BLOCK_KEYS_CUH_

#include <cstdint>

namespace brainjax {

// The places of a block are vectors of kLength neighbours, as many for each thread. They are dealt
// to the threads in turn when they are written, so that reads of memory coalesce. Where there is no
// key, 0 is written.
template <int kBlockThreads, int kVectorLength>
struct BlockKeys {
  static constexpr int kThreads = kBlockThreads;
  static constexpr int kLength = kVectorLength;
  static constexpr int kOfAllThreads = kThreads * kLength;  // places of a vector for each thread

  uint32_t* keys;
  int64_t first;         // index of the key at place 0
  int begin, end;        // places where there are keys
  int per_thread;        // vectors
  uint32_t largest = 0;  // of the keys that this thread has written

  __host__ __device__ static int Places(int64_t vectors) {
    return static_cast<int>((vectors + kThreads - 1) / kThreads) * kOfAllThreads;
  }

  __device__ BlockKeys(uint32_t* keys, int64_t first, int begin, int end, int vectors)
      : keys(keys),
        first(first),
        begin(begin),
        end(end),
        per_thread((vectors + kThreads - 1) / kThreads) {}

  __device__ int Places() const { return per_thread * kOfAllThreads; }
  __device__ bool Exists(int place) const { return begin <= place && place < end; }
  // Where vector i of those that this thread writes begins.
  __device__ int Place(int i) const {
    return (i * kThreads + static_cast<int>(threadIdx.x)) * kLength;
  }

  template <typename Use>
  __device__ void ForEach(Use use) const {
    for (int place = threadIdx.x; place < Places(); place += kThreads) use(keys[place]);
  }

  // Neighbours that a thread looks after in order: those of thread t begin at place t times this.
  __device__ int Neighbours() const { return per_thread * kLength; }

  // Which keys of this thread's neighbours first ... first + 31, as far as there are so many, are
  // above the bound, a bit each. Lanes start at different ones where they would read from the same
  // banks of memory.
  __device__ uint32_t MaskAbove(uint32_t bound, int first) const {
    constexpr int kWord = kLength < 4 ? 1 : 4;  // keys that are read at once
    constexpr int kBanks = 32 / kWord;
    const int words = Neighbours() / kWord, number = min(Neighbours() - first, 32);
    const int together = min(words & -words, kBanks);  // lanes that meet, if all start at the first
    const uint32_t* const mine = keys + threadIdx.x * Neighbours() + first;
    int i = static_cast<int>(threadIdx.x) % kBanks * together / kBanks * kWord;
    uint32_t mask = 0;
#pragma unroll 2
    for (int step = 0; step < number; step += kWord) {
      uint32_t bits;
      if constexpr (kWord == 1) {
        bits = mine[i] > bound;
      } else {
        const uint4 four = *reinterpret_cast<const uint4*>(mine + i);
        bits = (four.x > bound ? 1 : 0) | (four.y > bound ? 2 : 0) | (four.z > bound ? 4 : 0) |
               (four.w > bound ? 8 : 0);
      }
      mask |= bits << i;
      i = i + kWord == number ? 0 : i + kWord;
    }
    return mask;
  }
};

// Keys [0, n) of a list in shared memory, which has room for all places of the block. The whole
// block calls it after a barrier, and waits.
template <int kThreads>
__device__ BlockKeys<kThreads, 1> KeysOfList(uint32_t* list, int n) {
  BlockKeys<kThreads, 1> block(list, 0, 0, n, n);
  for (int place = threadIdx.x; place < block.Places(); place += kThreads) {
    if (place >= n) list[place] = 0;
    block.largest = max(block.largest, list[place]);
  }
  __syncthreads();
  return block;
}

}  // namespace brainjax

#endif  // BRAINJAX_BLOCK_KEYS_CUH_
