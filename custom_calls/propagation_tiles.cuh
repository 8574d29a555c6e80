// How the synapses of a call are cut into tiles, and how a sorted tile is written.
#ifndef BRAINJAX_PROPAGATION_TILES_CUH_
#define BRAINJAX_PROPAGATION_TILES_CUH_

#include <cstdint>
#include <type_traits>

#include "propagation_call.cuh"

namespace brainjax {
namespace propagation {

// How the synapses of one batch element are cut into tiles. What is sorted has fewer than 2^31.
struct Tiling {
  uint32_t units;  // that are sorted at all
  uint32_t tile_units;
  uint32_t tiles;
  uint32_t tile_synapses;

  template <typename Events>
  __device__ static Tiling Of(const Events& events, const Call<typename Events::Weight>& call) {
    constexpr uint32_t kWidth = Events::kWidth;
    const uint32_t most = static_cast<uint32_t>(call.scratch.tile) / kWidth;
    if (events.units() * kWidth < call.sort_from) return {0, 1, 0, 0};
    const uint32_t units =
        static_cast<uint32_t>(min(events.units(), call.scratch.max_sorted / kWidth));
    // Every block has as many tiles as the others.
    const uint32_t turns = Up(units, call.sort_blocks * most);
    const uint32_t share = Up(units, call.sort_blocks * turns * kWarp) * kWarp;
    const uint32_t tile_units = max(share, static_cast<uint32_t>(kMinTile) / kWidth);
    return {units, tile_units, Up(units, tile_units), tile_units * kWidth};
  }

  // Whether there are units that are not sorted.
  template <typename Events>
  __device__ bool HasRest(const Events& events) const {
    return units < events.units();
  }

  static __device__ uint32_t Up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
};

// Moves a vector, to or from memory.
template <int kWidth, typename T>
__device__ __forceinline__ void CopyVector(const T* source, T* destination) {
  using Four = std::conditional_t<sizeof(T) == 4, int4, uint2>;
  using Word = std::conditional_t<kWidth == 4, Four, T>;
  static_assert(sizeof(Word) == kWidth * sizeof(T));
  *reinterpret_cast<Word*>(destination) = *reinterpret_cast<const Word*>(source);
}

// Copies so many elements, and those behind them up to a whole vector: a block does.
template <int kThreads, int kUnrolled, typename T>
__device__ __forceinline__ void CopyVectors(const T* source, uint32_t count, T* target) {
  constexpr uint32_t kVector = sizeof(uint4) / sizeof(T);
#pragma unroll kUnrolled
  for (uint32_t i = threadIdx.x * kVector; i < count; i += kThreads * kVector) {
    *reinterpret_cast<uint4*>(target + i) = *reinterpret_cast<const uint4*>(source + i);
  }
}

// Clears so many sums, and those behind them up to a whole vector: a block does.
template <int kThreads, int kUnrolled>
__device__ __forceinline__ void ClearVectors(int32_t* sums, uint32_t count) {
#pragma unroll kUnrolled
  for (uint32_t i = threadIdx.x; i < (count + 3) / 4; i += kThreads) {
    reinterpret_cast<int4*>(sums)[i] = make_int4(0, 0, 0, 0);
  }
}

__device__ __forceinline__ uint32_t Magnitude(int32_t contribution) {
  const auto bits = static_cast<uint32_t>(contribution);
  return contribution < 0 ? 0 - bits : bits;
}

// Bits for what the synapses of one spike may add, whatever their weights: those of all magnitudes
// are between the lowest and the highest of these.
template <typename W>
__device__ __forceinline__ uint32_t MagnitudesOf(float gain) {
  constexpr uint32_t kAny = 0xffffffffu;
  if constexpr (std::is_same_v<W, UnitWeight>) {
    return Magnitude(Contribution(gain, W{}));
  } else if constexpr (std::is_same_v<W, uint8_t>) {
    constexpr float kMost = 1 << 23;  // with any weight, less than 2^31
    const bool is_exact = rintf(gain) == gain && fabsf(gain) <= kMost;
    if (!is_exact) return kAny;
    // Rounding may end the largest product in more zeros than the gain has, but no product in less.
    return Magnitude(Contribution(gain, W{1})) | Magnitude(Contribution(gain, W{255}));
  } else {
    return kAny;
  }
}

// How the contributions of a tile are written. Where all of them, without the zeros that all end
// in, have 16 bits, that is all that is written of them: whole numbers are often that small, in
// whatever fixed point. Otherwise their low halves are, and their high halves apart.
class TileForm {
 public:
  // Of contributions whose magnitudes have these bits, taken together.
  __device__ static TileForm Of(uint32_t magnitudes) {
    const uint32_t zeros = magnitudes == 0 ? 0 : __ffs(magnitudes) - 1;
    return TileForm(magnitudes >> zeros < 1u << (kPlaceBits - 1) ? zeros : kHalves);
  }

  __device__ explicit TileForm(uint32_t code) : code_(code) {}

  static constexpr int kCodeBits = 6;
  __device__ uint32_t Code() const { return code_; }
  __device__ bool HasHighs() const { return code_ == kHalves; }

  // The low half, which is written, and the high half.
  __device__ uint32_t Written(int32_t contribution) const {
    return static_cast<uint32_t>(contribution >> (HasHighs() ? 0 : code_));
  }

  // What is added: of a synapse as it is written without a high half, and with one.
  __device__ int32_t Whole(uint32_t synapse) const {
    const auto low = static_cast<uint32_t>(static_cast<int32_t>(synapse) >> kPlaceBits);
    return static_cast<int32_t>(low << (code_ % 32));
  }
  __device__ static int32_t OfHalves(uint32_t synapse, uint32_t high) {
    return static_cast<int32_t>(high << kPlaceBits | synapse >> kPlaceBits);
  }

 private:
  static constexpr uint32_t kHalves = 32;  // no number of zeros

  uint32_t code_;
};

// Where the sorted tiles of one batch element are in memory.
template <bool kWeighted>
struct SortedTiles {
  // A target's place in its slice and, of synapses with weights, above it what its form says.
  using Synapse = std::conditional_t<kWeighted, uint32_t, uint16_t>;

  uint16_t* offsets;
  Synapse* synapses;
  uint16_t* highs;  // high halves of contributions, of tiles that have such
  Slices slices;

  __device__ SortedTiles(const Scratch& scratch, int64_t b)
      : offsets(scratch.Part<uint16_t>(b, scratch.tile_offsets)),
        synapses(scratch.Part<Synapse>(b, scratch.synapses)),
        highs(scratch.Part<uint16_t>(b, scratch.highs)),
        slices(scratch.slices) {}

  // Where the slices of a tile begin and the last one ends, and behind these the form of the tile.
  __device__ uint16_t* OffsetsOf(uint32_t tile) const {
    return offsets + tile * NumOffsets(slices.count);
  }
  __device__ uint16_t* FormOf(uint32_t tile) const { return OffsetsOf(tile) + slices.count + 1; }
};

// A tile in shared memory, as it was read and as it is sorted.
template <bool kWeighted>
struct TileBuffers {
  static constexpr int64_t kSynapseBytes = kWeighted ? 10 : 6;

  int32_t* targets;  // and their slices
  int32_t* contributions;
  uint16_t* sorted;      // with weights where each synapse was read, else its target
  uint32_t* magnitudes;  // a word: the bits of all of them
  uint32_t* cursors;     // of each slice: the next free place in the tile

  __device__ TileBuffers(void* memory, int64_t size)
      : targets(static_cast<int32_t*>(memory)),
        contributions(targets + size),
        sorted(reinterpret_cast<uint16_t*>(contributions + (kWeighted ? size : 0))),
        magnitudes(reinterpret_cast<uint32_t*>(sorted + size)),
        cursors(magnitudes + 1) {}

  static int64_t Bytes(int64_t size, int64_t slices) {
    return size * kSynapseBytes + (slices + 1) * sizeof(uint32_t);
  }
};

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_TILES_CUH_
