"""Which implementation of an operation runs: the kernel of the platform, or the reference."""

import ctypes
import dataclasses
import functools
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

Backend = Literal["auto", "reference", "kernel"]

_FOLDER = Path(__file__).parent
_LIBRARIES = {"cpu": "libbrainjax_cpu.so", "cuda": "libbrainjax_cuda.so"}
_log = logging.getLogger("brainjax")


@dataclasses.dataclass(frozen=True)
class Library:
    """The kernels of one platform, or the reason why there are none."""

    platform: str
    handle: ctypes.CDLL | None
    reason: str | None  # why `handle` is None
    compiler: str | None


def dispatch(
    backend: Backend,
    handler: str,
    *operands: Any,
    reference: Callable,
    kernel: Callable,
    unsupported: str | None = None,
) -> Any:
    """Call `reference` or `kernel` on the operands.

    "auto" takes the kernel on each platform that has one and the reference elsewhere, when the
    program is lowered; "kernel" never falls back: it is what tests and benchmarks ask for.

    Args:
        backend: "auto", "reference" or "kernel".
        handler: the symbol of the kernel in the compiled libraries.
        operands: arrays, the same for both implementations.
        reference: the definition, in plain JAX.
        kernel: the call of `target(handler)`.
        unsupported: why no kernel can take these operands, if none can.

    Raises:
        ValueError: `backend` is not one of the three names.
        RuntimeError: "kernel" was asked for and none can run.
    """
    check(backend)
    if backend == "reference":
        return reference(*operands)
    platforms = () if unsupported else platforms_with(handler)
    if backend == "kernel":
        if not platforms:
            raise RuntimeError(f"no compiled {handler}: {unsupported or explain()}")
        return jax.lax.platform_dependent(*operands, **dict.fromkeys(platforms, kernel))
    if not platforms:
        return reference(*operands)
    return jax.lax.platform_dependent(
        *operands, default=reference, **dict.fromkeys(platforms, kernel)
    )


def batched_in_full(kernel: Callable) -> Callable:
    """Let vmap call a kernel that updates operands in place: every operand gets the batch axis.

    An alias forbids the size-1 axis that vmap would give to unbatched operands. Small ones cost
    nothing; unbatched weights are copied, since every batch element changes its own. The kernel
    takes any number of leading axes.
    """
    return _batched(kernel, lambda operands: [True] * len(operands))


def batched_in_place(kernel: Callable) -> Callable:
    """Let vmap call a kernel that updates its first operand, a tree, in place.

    That one gets the batch axis, as in `batched_in_full`. What is unbatched of the others gets an
    axis of size 1: it is not copied, and all batch elements read it.
    """
    return _batched(kernel, lambda operands: [True] + [False] * (len(operands) - 1))


def _batched(kernel, in_full):
    call = jax.custom_batching.custom_vmap(kernel)

    @call.def_vmap
    def _call_batch(axis_size, in_batched, *operands):
        def spread(size, operand, is_batched):
            return operand if is_batched else jnp.broadcast_to(operand, (size, *operand.shape))

        sizes = [axis_size if full else 1 for full in in_full(operands)]
        results = call(
            *(
                jax.tree.map(functools.partial(spread, size), operand, is_batched)
                for size, operand, is_batched in zip(sizes, operands, in_batched)
            )
        )
        return results, jax.tree.map(lambda _: True, results)

    return call


def check(backend: str) -> None:
    """Raise ValueError unless `backend` is one of the three names."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}; got {backend!r}")


def target(handler: str) -> str:
    """Name under which `handler` is registered with XLA; its version changes with its results."""
    return f"brainjax.{handler}.v1"


@functools.cache
def platforms_with(handler: str) -> tuple[str, ...]:
    """Register `handler` on every platform whose library has it, and name those platforms."""
    found = []
    for library in libraries():
        if library.handle is not None and hasattr(library.handle, handler):
            capsule = jax.ffi.pycapsule(getattr(library.handle, handler))
            # "cuda" in lower case is accepted and then not found by some versions.
            platform = "CUDA" if library.platform == "cuda" else library.platform
            jax.ffi.register_ffi_target(target(handler), capsule, platform=platform)
            found.append(library.platform)
    if "cpu" not in found:
        _log.warning("%s runs as plain XLA on the CPU: %s", handler, explain())
    return tuple(found)


@functools.cache
def libraries() -> tuple[Library, ...]:
    """Load the compiled libraries that this installation has."""
    return tuple(_load(platform, filename) for platform, filename in _LIBRARIES.items())


def explain() -> str:
    """One line: which kernels are built, and why one is missing."""
    return "; ".join(
        f"{library.platform}: {library.reason or f'kernels built by {library.compiler}'}"
        for library in libraries()
    )


def default_platform() -> str:
    """The platform of the default device, by the name that the libraries use."""
    return library_platform(jax.default_backend())


def library_platform(platform: str) -> str:
    """The name that the libraries use for a platform of JAX's."""
    return {"gpu": "cuda"}.get(platform, platform)


def running(backend: Backend = "auto") -> str:
    """What runs on the default device: "kernel", or "reference" and the reason."""
    if backend == "reference":
        return "reference (asked for)"
    platform = default_platform()
    for library in libraries():
        if library.platform == platform:
            return "kernel" if library.reason is None else f"reference ({library.reason})"
    return f"reference (no kernels exist for {platform})"


def _load(platform: str, filename: str) -> Library:
    built = _build_info().get(platform, {})
    compiler = built.get("compiler")
    path = _FOLDER / filename
    if not path.exists():
        reason = built.get("reason") or f"{filename} is not installed; run `pip install .`"
        return Library(platform, None, f"not built: {reason}", compiler)
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        return Library(platform, None, f"{filename} does not load: {error}", compiler)
    compiled, supported = handle.brainjax_ffi_api(), _runtime_ffi_api()
    if compiled > supported:
        # Registering it would take the whole XLA backend down.
        reason = (
            f"{filename} needs FFI API {_dotted(compiled)}, the installed jaxlib offers "
            f"{_dotted(supported)}; reinstall brainjax with this jaxlib"
        )
        return Library(platform, None, reason, compiler)
    return Library(platform, handle, None, compiler)


def _build_info() -> dict:
    path = _FOLDER / "build_info.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _runtime_ffi_api() -> int:
    """The FFI API of the installed jaxlib, as 1000 * major + minor."""
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text()
    found = re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR)\s+(\d+)", header)
    version = {part: int(number) for part, number in found}
    return 1000 * version["MAJOR"] + version["MINOR"]


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000}"
