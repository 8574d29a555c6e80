"""Make the folder of a recording."""

import operator
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex

import jax
import numpy as np

from brainjax import burst, checkpoint, metrics
from brainjax.connectomes.tables import arrow
from brainjax.recording import folder as folders, tables
from brainjax.recording.grids import Grid
from brainjax.recording.network import check_network, power_of
from brainjax.recording.quantities import QUANTITIES, Observer, check_names
from brainjax.validation import require


def create(
    folder: str | Path,
    config: burst.Config,
    params: burst.Params,
    state: burst.State,
    layout: burst.Layout,
    *,
    quantities: Sequence[str] = (),
    candidates: bool | np.bool_ = False,
    chunk_bursts: SupportsIndex = 100,
    note: str = "",
) -> None:
    """Make a recording without bursts, for `record` to go on with.

    Args:
        folder: of the recording; must not exist. It appears whole or not at all.
        config: of the network.
        params: of the network; its power and the number of its synapses are noted.
        state: the start, of one network; its key and the number of its bursts are noted.
        layout: of its neurons; area and voxel of each are kept.
        quantities: of every neuron after every burst: "potential", "countdown", "fire_count",
            "input", "fires", "is_candidate". The last two take a bit. "input" and "is_candidate"
            need `Config(keeps_inputs=True)`.
        candidates: whether to write who received anything, and how much, as a table. Needs it too.
        chunk_bursts: bursts of a chunk; changes no number that is recorded.
        note: about the run, kept as it is.

    Raises:
        FileExistsError: the folder is there.
        ImportError: the package pyarrow is missing.
        TypeError: chunk_bursts is no whole number.
        ValueError: an argument is out of range, or does not belong to the config.

    Cost: writes the layout; copies the neurons' areas and the plastic synapses' origins to the
        host.
    """
    arrow()
    folder, quantities = Path(folder), tuple(quantities)
    chunk_length = operator.index(chunk_bursts)
    require(chunk_length >= 1, "chunk_bursts", "at least 1", chunk_length)
    check_names(quantities)
    check_network(config, params, state, layout)
    # Refuses what the state does not keep.
    jax.eval_shape(Observer(quantities, 1, 1 if candidates else None), state)
    if folder.exists():
        raise FileExistsError(f"folder of the recording must not exist; got {folder}")
    facts = {
        "format": folders.FORMAT,
        "config": checkpoint.describe(config),
        "areas": list(layout.areas),
        "quantities": list(quantities),
        "candidates": bool(candidates),
        "chunk_bursts": chunk_length,
        "first_burst": int(state.burst) + 1,
        "neurons": config.num_neurons,
        "synapses": _count_synapses(params.synapses),
        "power": power_of(params),
        "key": np.asarray(jax.random.key_data(state.key)).tolist(),
        "note": note,
        "environment": metrics.environment(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        unfinished = Path(scratch) / folder.name
        _lay_out(unfinished, facts, layout)
        os.rename(unfinished, folder)


def _lay_out(folder, facts, layout):
    """Make the folder of a recording without bursts."""
    folders.write_json(folder / folders.FACTS, facts)
    tables.write_neurons(folder / folders.NEURONS, layout)
    for name in facts["quantities"]:
        quantity = QUANTITIES[name]
        columns = quantity.columns(facts["neurons"])
        Grid.create(folder / name, quantity.dtype, columns, facts["chunk_bursts"])


def _count_synapses(synapses):
    plastic = synapses.plastic
    made = 0 if plastic is None else int((np.asarray(plastic.origin) >= 0).sum())
    return int(synapses.fixed.indices.size) + made
