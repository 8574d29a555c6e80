// Tiles of a row that stays in global memory: each is the work of a warp.
#ifndef BRAINJAX_SELECTION_TILES_CUH_
#define BRAINJAX_SELECTION_TILES_CUH_

#include <cstdint>

#include "selection_resident.cuh"

namespace brainjax {

constexpr int kTileVectors = 640;    // 10 KB, the work of a warp; ten million floats give each one
constexpr int kWarpCandidates = 64;  // that a warp keeps before it makes room for them

// A key above the bound, and its index in the row.
struct TileCandidate {
  uint32_t key, index;
};

// The tiles of one block.
struct TileRange {
  int64_t begin, end;
};

// A row cut into tiles.
template <typename T>
struct Tiles {
  static constexpr int kKeys = kTileVectors * kPerVector<T>;
  Row<T> row;

  __device__ int64_t Number() const { return CeilDiv(row.Vectors(), kTileVectors); }
  __device__ int64_t Of(int64_t i) const { return (i + row.shift) / kKeys; }
  __device__ int64_t First(int64_t tile) const { return row.First(tile * kTileVectors); }
  __device__ int64_t FirstOf(TileRange range) const { return max(First(range.begin), int64_t{0}); }
  __device__ int64_t EndOf(TileRange range) const {
    return max(min(First(range.end), row.n), FirstOf(range));
  }
  __device__ bool Exists(int64_t i) const { return row.Exists(i); }
  __device__ bool IsWhole(int64_t tile) const {
    return First(tile) >= 0 && First(tile + 1) <= row.n;
  }

  // Calls use(i, vector) in ascending order of the first index i. The whole warp calls it.
  template <bool kWhole, typename Use>
  __device__ __forceinline__ void ForEachVector(int64_t tile, Use use) const {
    constexpr int kLoads = kWhole ? kInFlight : 1;  // little code where there is little to do
    int64_t i = First(tile) + threadIdx.x % 32 * kPerVector<T>;
#pragma unroll 1
    for (int v = 0; v < kTileVectors; v += 32 * kLoads) {
      uint4 loaded[kLoads];
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        const int64_t at = i + 32 * u * kPerVector<T>;
        loaded[u] = kWhole ? __ldcs(reinterpret_cast<const uint4*>(row.scores + at))
                           : row.LoadAt(at);
      }
#pragma unroll
      for (int u = 0; u < kLoads; ++u, i += 32 * kPerVector<T>) use(i, loaded[u]);
    }
  }
};

// The counts of a tile in one word: 16 bits hold the number of its keys.
__device__ inline uint32_t Pack(Counts counts) { return counts.above << 16 | counts.equal; }
__device__ inline Counts Unpack(uint32_t packed) { return {packed >> 16, packed & 0xffffu}; }

// Appends the keys of a vector above the bound to a list, in order. The whole warp calls it.
template <typename T, typename Append>
__device__ __forceinline__ void AppendVector(const Tiles<T>& tiles, int64_t i, const uint4& vector,
                                             uint32_t bound, uint32_t* size, Append append) {
  uint32_t hits = 0;
#pragma unroll
  for (int j = 0; j < kPerVector<T>; ++j) {
    hits |= static_cast<uint32_t>(KeyOf<T>(vector, j) > bound && tiles.Exists(i + j)) << j;
  }
  uint32_t of_warp;
  uint32_t place = *size + WarpExclusiveSum(__popc(hits), &of_warp);
  *size += of_warp;
#pragma unroll
  for (int j = 0; j < kPerVector<T>; ++j) {
    if (!(hits >> j & 1)) continue;
    append(place++, TileCandidate{KeyOf<T>(vector, j), static_cast<uint32_t>(i + j)});
  }
}

template <bool kWhole, typename T>
__device__ Counts CountTile(const Tiles<T>& tiles, int64_t tile, uint32_t bound) {
  Counts counts{0, 0};
  tiles.template ForEachVector<kWhole>(tile, [&](int64_t i, const uint4& vector) {
#pragma unroll
    for (int j = 0; j < kPerVector<T>; ++j) {
      const uint32_t key = KeyOf<T>(vector, j);
      const bool exists = kWhole || tiles.Exists(i + j);
      counts.above += key > bound && exists;
      counts.equal += key == bound && exists;
    }
  });
  return {__reduce_add_sync(kAllLanes, counts.above), __reduce_add_sync(kAllLanes, counts.equal)};
}

// Counts the keys of a tile and lists those above the bound, as far as there is room.
template <bool kWhole, typename T>
__device__ Counts CollectTile(const Tiles<T>& tiles, int64_t tile, uint32_t bound,
                              TileCandidate* listed) {
  Counts counts{0, 0};
  tiles.template ForEachVector<kWhole>(tile, [&](int64_t i, const uint4& vector) {
    uint32_t largest = 0;
#pragma unroll
    for (int j = 0; j < kPerVector<T>; ++j) {
      const uint32_t key = KeyOf<T>(vector, j);
      largest = max(largest, key);
      counts.equal += key == bound && (kWhole || tiles.Exists(i + j));
    }
    if (!__any_sync(kAllLanes, largest > bound)) return;
    AppendVector(tiles, i, vector, bound, &counts.above,
                 [&](uint32_t place, TileCandidate candidate) {
                   if (place < kWarpCandidates) listed[place] = candidate;
                 });
  });
  return {counts.above, __reduce_add_sync(kAllLanes, counts.equal)};
}

// Copies the candidates of a tile to the pool, if there is room for all of them.
template <typename T>
__device__ void StoreCandidates(const Tiles<T>& tiles, int64_t tile, uint32_t bound, uint32_t above,
                                const TileCandidate* listed, uint32_t first, uint32_t room,
                                TileCandidate* pool) {
  if (first + above > room) return;
  if (above <= kWarpCandidates) {
    for (uint32_t i = threadIdx.x % 32; i < above; i += 32) pool[first + i] = listed[i];
    return;
  }
  uint32_t size = 0;
  tiles.template ForEachVector<false>(tile, [&](int64_t i, const uint4& vector) {
    AppendVector(tiles, i, vector, bound, &size,
                 [&](uint32_t place, TileCandidate candidate) { pool[first + place] = candidate; });
  });
}

// Writes the winners of a tile, which is read again. The whole warp calls it.
template <typename T>
__device__ void WriteTile(const Tiles<T>& tiles, int64_t tile, Threshold threshold, Counts before,
                          int32_t* winners) {
  tiles.template ForEachVector<false>(tile, [&](int64_t i, const uint4& vector) {
    uint32_t above = 0, equal = 0;
#pragma unroll
    for (int j = 0; j < kPerVector<T>; ++j) {
      const uint32_t key = KeyOf<T>(vector, j);
      above += key > threshold.key && tiles.Exists(i + j);
      equal += key == threshold.key && tiles.Exists(i + j);
    }
    const uint32_t through_here = WarpInclusiveSum(above << 16 | equal);
    Counts at{before.above + (through_here >> 16) - above,
              before.equal + (through_here & 0xffffu) - equal};
#pragma unroll
    for (int j = 0; j < kPerVector<T>; ++j) {
      const uint32_t key = KeyOf<T>(vector, j);
      if (!tiles.Exists(i + j) || key < threshold.key) continue;
      const bool is_above = key > threshold.key;
      if (is_above || at.equal < threshold.ties) {
        winners[at.above + min(at.equal, threshold.ties)] = static_cast<int32_t>(i + j);
      }
      (is_above ? at.above : at.equal) += 1;
    }
    const uint32_t all = __shfl_sync(kAllLanes, through_here, 31);
    before = {before.above + (all >> 16), before.equal + (all & 0xffffu)};
  });
}

// The keys of a block's tiles, read from memory each time.
template <int kThreads, typename T>
struct KeysInMemory {
  Tiles<T> tiles;
  TileRange range;

  template <typename Use>
  __device__ void ForEach(Use use) const {
    for (int64_t t = range.begin + threadIdx.x / 32; t < range.end; t += kThreads / 32) {
      tiles.template ForEachVector<false>(t, [&](int64_t i, const uint4& vector) {
#pragma unroll
        for (int j = 0; j < kPerVector<T>; ++j) {
          if (tiles.Exists(i + j)) use(KeyOf<T>(vector, j));
        }
      });
    }
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_SELECTION_TILES_CUH_
