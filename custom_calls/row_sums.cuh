// Sums of listed rows of a weight matrix over a strip of columns, by one block of threads, in the
// order of accumulation.h.
//
// The threads of the block form kGroups groups; group g owns the lanes g, g + kGroups,
// g + 2 kGroups ... of the strip, hence the terms g, g + kGroups ...: the first halvings happen
// inside a thread, the others through shared memory.
#ifndef BRAINJAX_ROW_SUMS_CUH_
#define BRAINJAX_ROW_SUMS_CUH_

#include <cstdint>
#include <cstring>

#include "accumulation.h"
#include "launch.h"
#include "numbers.h"

namespace brainjax {

// Rows of a matrix [num_pre, num_post] and the activities of their neurons. What is listed may
// have been written by the same kernel, before a barrier: no read goes through a read-only cache.
template <typename W>
struct ListedRows {
  const W* weights;
  int64_t num_pre, num_post;
  const int32_t* rows;   // [capacity]; those outside the matrix are skipped
  const float* values;   // [capacity], or null: all 1
  const int32_t* count;  // entries in use, anything below 0 or above the capacity included
  int64_t capacity;
};

// How a block divides a strip: kGroups groups of threads, each thread kWidth columns wide.
// kAligned: rows start at multiples of 16 bytes, so that one load brings a thread's columns; then
// strips must start there too. kInFlight: rows that a thread has asked for before it adds the
// first.
template <typename Weight, int kBlockThreads, int kGroupCount, bool kIsAligned, int kRows = 8>
struct StripLayout {
  using W = Weight;
  static constexpr bool kAligned = kIsAligned;
  static constexpr int kThreads = kBlockThreads;
  static constexpr int kGroups = kGroupCount;
  static constexpr int kGroupThreads = kThreads / kGroups;
  static constexpr int kThreadLanes = kLanes / kGroups;
  static constexpr int kWidth = kAligned ? 16 / sizeof(W) : 4;
  static constexpr int kColumns = kGroupThreads * kWidth;
  static constexpr int kInFlight = kRows;
  static constexpr uint32_t kRound = kGroups * kInFlight;  // terms that the block asks for at once
  static constexpr uint32_t kChunk = 1024;  // terms staged in shared memory at a time
  static_assert(kInFlight % kThreadLanes == 0 && kChunk % kRound == 0);

  // Column v of thread t: contiguous where one load brings all, else neighbours for neighbours.
  static __device__ int Column(int t, int v) {
    return kAligned ? t * kWidth + v : t + v * kGroupThreads;
  }
};

// One term of the sum. Row -1: nothing to read, a term of +0, which changes no bit.
struct Term {
  int32_t row;
  float value;
};

// What a block needs of shared memory.
template <typename L>
struct StripWorkspace {
  Term terms[L::kChunk];
  float sums[L::kGroups][L::kColumns];
};

// Terms that are added for `terms` listed ones.
template <typename L>
__device__ uint32_t RoundUp(uint32_t terms) {
  return (terms + L::kRound - 1) / L::kRound * L::kRound;
}

// Copies the terms from `first` on into shared memory, those from `count` on as nothing, up to a
// multiple of kRound. Asks for all of the list at once, without waiting for the count.
template <typename L>
__device__ void StageTerms(const ListedRows<typename L::W>& listed, uint32_t count, uint32_t first,
                           Term* terms) {
  constexpr int kPerThread = (L::kChunk + L::kThreads - 1) / L::kThreads;
  const uint32_t left = static_cast<uint32_t>(listed.capacity) - first;
  Term mine[kPerThread];
#pragma unroll
  for (int u = 0; u < kPerThread; ++u) {
    const uint32_t i = threadIdx.x + u * L::kThreads;
    mine[u] = {-1, 1.0f};
    if (i >= left || i >= L::kChunk) continue;
    mine[u].row = listed.rows[first + i];
    if (listed.values != nullptr) mine[u].value = listed.values[first + i];
  }
  const uint32_t size = RoundUp<L>(left < L::kChunk ? left : L::kChunk);
#pragma unroll
  for (int u = 0; u < kPerThread; ++u) {
    const uint32_t i = threadIdx.x + u * L::kThreads;
    if (i >= size) continue;
    const bool exists = first + i < count && mine[u].row >= 0 && mine[u].row < listed.num_pre;
    terms[i] = exists ? mine[u] : Term{-1, 0.0f};
  }
}

// The weights of one row in the columns of one thread.
template <typename L>
struct Piece {
  alignas(16) typename L::W weights[L::kWidth];

  // `left`: columns from row[0] to the end of the strip.
  __device__ void Load(const typename L::W* row, bool exists, int left) {
    if constexpr (L::kAligned) {
      uint4 bits = make_uint4(0, 0, 0, 0);
      if (exists && left > 0) bits = __ldcg(reinterpret_cast<const uint4*>(row));
      memcpy(weights, &bits, sizeof(bits));
    } else {
#pragma unroll
      for (int v = 0; v < L::kWidth; ++v) {
        weights[v] = 0;
        if (exists && L::Column(0, v) < left) weights[v] = __ldcg(row + L::Column(0, v));
      }
    }
  }
};

// The sums of one thread: its lanes by its columns.
template <typename L>
struct ThreadSums {
  float sums[L::kThreadLanes][L::kWidth] = {};

  // Adds the staged terms of this thread's group: `count` of them, a multiple of kInFlight and
  // not 0. A piece that has been added makes place for the next one at once. Calls meanwhile()
  // when the first pieces are on their way.
  template <typename Meanwhile>
  __device__ void Add(const Term* terms, uint32_t count, const typename L::W* strip,
                      uint32_t num_post, int left, const Meanwhile& meanwhile) {
    Piece<L> pieces[L::kInFlight];
    auto load = [&](uint32_t i, Piece<L>* piece) {
      const int32_t row = terms[i * L::kGroups].row;
      piece->Load(strip + uint64_t{static_cast<uint32_t>(row)} * num_post, row >= 0, left);
    };
#pragma unroll
    for (uint32_t u = 0; u < L::kInFlight; ++u) load(u, &pieces[u]);
    meanwhile();
    for (uint32_t i = L::kInFlight; i < count; i += L::kInFlight) {
#pragma unroll
      for (uint32_t u = 0; u < L::kInFlight; ++u) {
        AddPiece(pieces[u], terms[(i - L::kInFlight + u) * L::kGroups].value,
                 sums[u % L::kThreadLanes]);
        load(i + u, &pieces[u]);
      }
    }
#pragma unroll
    for (uint32_t u = 0; u < L::kInFlight; ++u) {
      AddPiece(pieces[u], terms[(count - L::kInFlight + u) * L::kGroups].value,
               sums[u % L::kThreadLanes]);
    }
  }

  static __device__ void AddPiece(const Piece<L>& piece, float value, float* lane) {
#pragma unroll
    for (int v = 0; v < L::kWidth; ++v) {
      lane[v] = __fadd_rn(lane[v], __fmul_rn(value, ToFloat(piece.weights[v])));
    }
  }

  // Writes the sums of the first lane; `row` is that of this thread's group.
  __device__ void Store(int thread, float* row) const {
#pragma unroll
    for (int v = 0; v < L::kWidth; ++v) row[L::Column(thread, v)] = sums[0][v];
  }

  // Lanes g + 16 join g, and so on down to the last two of this thread.
  __device__ void MeetInThread() {
#pragma unroll
    for (int half = L::kThreadLanes / 2; half > 0; half /= 2) {
#pragma unroll
      for (int p = 0; p < half; ++p) {
#pragma unroll
        for (int v = 0; v < L::kWidth; ++v) {
          sums[p][v] = __fadd_rn(sums[p][v], sums[p + half][v]);
        }
      }
    }
  }
};

// The remaining halvings of one column: the sum of the groups p, p + kStep, p + 2 kStep ...
template <typename L, int kStep = 1>
__device__ float MeetGroups(const float (*sums)[L::kColumns], int column, int p = 0) {
  if constexpr (kStep == L::kGroups) {
    return sums[p][column];
  } else {
    return __fadd_rn(MeetGroups<L, 2 * kStep>(sums, column, p),
                     MeetGroups<L, 2 * kStep>(sums, column, p + kStep));
  }
}

// The sums of lanes g, g + kGroups ... of this thread's group g, in its columns of one strip.
// `staged`: the workspace holds the terms already.
template <typename L>
__device__ ThreadSums<L> SumLanes(const ListedRows<typename L::W>& listed, uint32_t count,
                                  bool staged, int64_t column, int64_t end, Term* terms) {
  const int group = threadIdx.x / L::kGroupThreads;
  const int left_columns = static_cast<int>(end - column < L::kColumns ? end - column
                                                                       : L::kColumns);
  ThreadSums<L> mine;
  uint32_t first = 0;
  do {
    if (!staged) {
      __syncthreads();  // the terms before have been read
      StageTerms<L>(listed, count, first, terms);
      __syncthreads();
    }
    if (count == 0) break;
    const uint32_t left = count - first;
    mine.Add(terms + group, RoundUp<L>(left < L::kChunk ? left : L::kChunk) / L::kGroups,
             listed.weights + column, static_cast<uint32_t>(listed.num_post), left_columns, [] {});
    first += L::kChunk;
  } while (first < count);
  mine.MeetInThread();
  return mine;
}

// Calls use(column, sum) once for every column in [start, end), from some thread of the block. All
// threads of the block come here, L::kThreads of them, one-dimensional. On return the workspace is
// still being read: it may be passed to another call as it is, but serves something else only
// after a barrier. The strip may have any width; a multiple of L::kColumns leaves no thread idle.
template <typename L, typename Use>
__device__ void SumColumns(const ListedRows<typename L::W>& listed, int64_t start, int64_t end,
                           StripWorkspace<L>& workspace, const Use& use) {
  const int group = threadIdx.x / L::kGroupThreads;
  const int thread = threadIdx.x % L::kGroupThreads;
  const uint32_t count = ClampCount(*listed.count, listed.capacity);
  for (int64_t strip = start; strip < end; strip += L::kColumns) {
    const bool staged = strip != start && count <= L::kChunk;
    const int64_t column = strip + L::Column(thread, 0);
    const ThreadSums<L> mine = SumLanes<L>(listed, count, staged, column, end, workspace.terms);
    if (staged) __syncthreads();  // the sums before have been read
    mine.Store(thread, workspace.sums[group]);
    __syncthreads();
    const int64_t left = end - strip;
    for (int c = threadIdx.x; c < L::kColumns && c < left; c += L::kThreads) {
      use(strip + c, MeetGroups<L>(workspace.sums, c));
    }
  }
}

}  // namespace brainjax

#endif  // BRAINJAX_ROW_SUMS_CUH_
