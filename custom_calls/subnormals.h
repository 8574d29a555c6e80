// XLA's threads on a CPU take numbers too small to be normal for 0. What a kernel is to do with
// them as GPUs and the engines that it follows do, it does while one of these lives.
#ifndef BRAINJAX_SUBNORMALS_H_
#define BRAINJAX_SUBNORMALS_H_

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace brainjax {

class KeepSubnormals {
 public:
  KeepSubnormals() : before_(Read()) { Write(before_ & ~kFlushes); }
  ~KeepSubnormals() { Write(before_); }
  KeepSubnormals(const KeepSubnormals&) = delete;
  KeepSubnormals& operator=(const KeepSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kFlushes = 0x8040;  // results to zero, operands as zero
  static uint64_t Read() { return _mm_getcsr(); }
  static void Write(uint64_t control) { _mm_setcsr(static_cast<unsigned>(control)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlushes = uint64_t{1} << 24;
  static uint64_t Read() {
    uint64_t control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    return control;
  }
  static void Write(uint64_t control) { asm volatile("msr fpcr, %0" : : "r"(control)); }
#else  // nothing is known that would flush them
  static constexpr uint64_t kFlushes = 0;
  static uint64_t Read() { return 0; }
  static void Write(uint64_t) {}
#endif

  uint64_t before_;
};

}  // namespace brainjax

#endif  // BRAINJAX_SUBNORMALS_H_
