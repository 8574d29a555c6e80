"""How the CUDA kernels of propagate_spikes sum, and what scratch they need.

Synapses onto so few neurons that the cache holds their sums are added in memory; many of these, of
rows of one length, are summed in one launch; those onto more neurons are sorted by target first.
"""

from brainjax.ops.active_set import ActiveSet
from brainjax.ops.sparse_rows import CompressedRows, FixedFanOut, SparseRows

# So many synapses onto so many neurons are sorted before they are summed.
SORT_FROM_POST, SORT_FROM_SYNAPSES = 1 << 21, 1_300_000
# Onto fewer, so many are summed in one launch.
TOGETHER_FROM_POST, TOGETHER_FROM_SYNAPSES = 1 << 18, 1 << 18
# Scratch of a sort: see the constants of the same names in propagation_call.cuh.
_CHUNKS, _MAX_SORT_BLOCKS, _MAX_SORTED = 256, 512, 1 << 26
_UNIT_TILE, _WEIGHTED_TILE = 12800, 7680
_SLICES, _MAX_SLICES, _MIN_SLICE, _MAX_SLICE = 256, 8192, 1 << 10, 1 << 14
_TOGETHER_WORDS = 1 << 19  # of one launch, beside two for each neuron


def most_synapses(synapses: SparseRows, active: ActiveSet) -> int:
    """Return how many a list of distinct neurons can reach."""
    if isinstance(synapses, CompressedRows):
        return synapses.indices.shape[0]
    return active.indices.shape[0] * synapses.indices.shape[1]


def sort_from(synapses: SparseRows, active: ActiveSet, num_post: int) -> int:
    """Return how many synapses are sorted by target, at least; 0 for never."""
    few = most_synapses(synapses, active) < SORT_FROM_SYNAPSES or num_post < SORT_FROM_POST
    return 0 if few or num_post > _MAX_SLICE * _MAX_SLICES else SORT_FROM_SYNAPSES


def runs_together(synapses: SparseRows, active: ActiveSet, num_post: int) -> bool:
    """Tell whether a single problem is summed in one launch."""
    many = most_synapses(synapses, active) >= TOGETHER_FROM_SYNAPSES
    fixed = isinstance(synapses, FixedFanOut)
    return fixed and many and TOGETHER_FROM_POST <= num_post < SORT_FROM_POST


def scratch_words(
    synapses: SparseRows, active: ActiveSet, num_post: int, may_sort: bool, together: bool = False
) -> int:
    """Return the size of the scratch, in words of 4 bytes."""
    words = 2 * num_post + _TOGETHER_WORDS if together else 0
    if isinstance(synapses, CompressedRows):
        # Of each entry the synapses before its own, and the first of these.
        words += 3 * active.indices.shape[0] + 2 * _CHUNKS
    if may_sort:
        weighted = synapses.weights is not None
        tile = _WEIGHTED_TILE if weighted else _UNIT_TILE
        tiles = -(-min(most_synapses(synapses, active), _MAX_SORTED) // tile)
        slice_size = _MIN_SLICE
        while slice_size < _MAX_SLICE and num_post > _SLICES * slice_size:
            slice_size *= 2
        offsets = (tiles + _MAX_SORT_BLOCKS) * (-(-num_post // slice_size) + 2)
        words += _MAX_SORT_BLOCKS + -(-offsets // 2) + (tiles + 1) * tile // 2
        words += weighted * (tiles + 1) * tile
    return words + 16 - words % 4  # each part starts at a multiple of 16 bytes
