"""Connectomes: networks of neurons in areas, and the files that hold them."""

from brainjax.connectomes.brain import (
    layout as layout,
    resume as resume,
    to_burst as to_burst,
)
from brainjax.connectomes.files import (
    decode as decode,
    encode as encode,
    read as read,
    write as write,
)
from brainjax.connectomes.network import (
    NO_LIMIT as NO_LIMIT,
    UNLIMITED as UNLIMITED,
    Area as Area,
    ConnectomeError as ConnectomeError,
    Network as Network,
    Neurons as Neurons,
    Origin as Origin,
    PlasticMapping as PlasticMapping,
    Synapses as Synapses,
    neurons as neurons,
    synapses as synapses,
)
from brainjax.connectomes.rows import (
    from_compressed_rows as from_compressed_rows,
    group_by_source as group_by_source,
    to_compressed_rows as to_compressed_rows,
)
from brainjax.connectomes.tables import (
    read_edges as read_edges,
    read_npz as read_npz,
    write_edges as write_edges,
    write_npz as write_npz,
)
