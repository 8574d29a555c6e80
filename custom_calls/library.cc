// What the library says of itself when it is loaded.
#include "xla/ffi/api/c_api.h"

static_assert(XLA_FFI_API_MAJOR == BRAINJAX_FFI_API_MAJOR &&
                  XLA_FFI_API_MINOR == BRAINJAX_FFI_API_MINOR,
              "the compiler saw other FFI headers than CMake did");

// The FFI API that the kernels were compiled for. A runtime refuses newer ones than its own.
extern "C" int brainjax_ffi_api() { return 1000 * XLA_FFI_API_MAJOR + XLA_FFI_API_MINOR; }
