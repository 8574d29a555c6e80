"""Operations: each with its contract, its definition in plain JAX, its kernels and its gradient."""

from brainjax.ops import active_set as active_set, backend as backend, rounding as rounding
from brainjax.ops.accumulation import (
    accumulate_rows as accumulate_rows,
    accumulate_rows_reference as accumulate_rows_reference,
)
from brainjax.ops.active_set import ActiveSet as ActiveSet
from brainjax.ops.backend import Backend as Backend
from brainjax.ops.potentiation import (
    potentiate as potentiate,
    potentiate_reference as potentiate_reference,
)
from brainjax.ops.selection import (
    select_winners as select_winners,
    select_winners_reference as select_winners_reference,
    soft_winners as soft_winners,
)
