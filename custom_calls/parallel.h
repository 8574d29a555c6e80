// Loops on XLA's thread pool, and vector code for the processor at hand.
#ifndef BRAINJAX_PARALLEL_H_
#define BRAINJAX_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "xla/ffi/api/ffi.h"

// Compiles a loop for several instruction sets; the loader picks one. Wider vectors change no
// bits: contraction is off and no sum is reordered.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define BRAINJAX_VECTORIZE \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BRAINJAX_VECTORIZE
#endif

namespace brainjax {

// Calls body(i) for every i in [0, count), on the pool's threads and on this one, or, where threads
// are not worth while, on this one in order.
//
// The caller may itself be a thread of the pool, so it never waits for work that has not started:
// it takes items until none are left, then waits for those that other threads are running. A task
// that starts later finds nothing to take and does not touch `body`.
template <typename Body>
void ParallelFor(xla::ffi::ThreadPool& pool, int64_t count, const Body& body,
                 bool worth_while = true) {
  struct Progress {
    std::atomic<int64_t> taken{0};
    std::atomic<int64_t> finished{0};
  };
  const int64_t helpers = worth_while ? std::min<int64_t>(pool.num_threads(), count) - 1 : 0;
  if (helpers < 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  auto progress = std::make_shared<Progress>();
  auto work = [progress, count, &body] {
    for (int64_t i; (i = progress->taken.fetch_add(1)) < count;) {
      body(i);
      progress->finished.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t h = 0; h < helpers; ++h) pool.Schedule([work] { work(); });
  work();
  while (progress->finished.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

}  // namespace brainjax

#endif  // BRAINJAX_PARALLEL_H_
