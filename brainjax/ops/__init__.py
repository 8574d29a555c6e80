"""Operations: each with its contract, its definition in plain JAX, its kernels and its gradient."""

from brainjax.ops import (
    active_set as active_set,
    backend as backend,
    fire_queue as fire_queue,
    rounding as rounding,
)
from brainjax.ops.accumulation import (
    accumulate_rows as accumulate_rows,
    accumulate_rows_reference as accumulate_rows_reference,
)
from brainjax.ops.active_set import ActiveSet as ActiveSet
from brainjax.ops.assembly_core import (
    assembly_core as assembly_core,
    assembly_core_reference as assembly_core_reference,
)
from brainjax.ops.backend import Backend as Backend
from brainjax.ops.burst_core import (
    Burst as Burst,
    burst_core as burst_core,
    burst_core_reference as burst_core_reference,
)
from brainjax.ops.burst_neurons import (
    Arrivals as Arrivals,
    BurstRules as BurstRules,
    Membranes as Membranes,
    Neurons as Neurons,
)
from brainjax.ops.host_list import (
    HostList as HostList,
    Place as Place,
    read_host_list as read_host_list,
    write_host_list as write_host_list,
)
from brainjax.ops.potentiation import (
    potentiate as potentiate,
    potentiate_reference as potentiate_reference,
)
from brainjax.ops.propagation import (
    propagate_integers as propagate_integers,
    propagate_spikes as propagate_spikes,
    propagate_spikes_reference as propagate_spikes_reference,
)
from brainjax.ops.selection import (
    select_winners as select_winners,
    select_winners_reference as select_winners_reference,
    soft_winners as soft_winners,
)
from brainjax.ops.sparse_rows import (
    CompressedRows as CompressedRows,
    FixedFanOut as FixedFanOut,
    choose_fraction_bits as choose_fraction_bits,
    compressed_rows as compressed_rows,
    fixed_fan_out as fixed_fan_out,
)
