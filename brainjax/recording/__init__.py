"""Runs of the burst engine on disk: spikes as Parquet, quantities of every neuron as Zarr.

A recording is a folder:

    run.json                     what ran: config, seed, power, sizes, versions
    chunks/NUMBER.json           one for each chunk of bursts, written last: the chunk is there
    spikes/NUMBER.parquet        burst, neuron, area, x, y, z, potential; one row for each spike
    candidates/NUMBER.parquet    burst, neuron, input; if asked for
    potential, ...               Zarr arrays [bursts, neurons], as many as asked for

A program creates it once, records as often as it likes, and reads it back:

    recording.create(folder, config, params, state, layout, quantities=("potential",))
    state = recording.record(folder, config, params, state, drives, layout)
    table = recording.read(folder).spikes()

NUMBER is the first burst of the chunk. A killed process leaves all chunks before the one that it
was writing, and these can be read and continued; files appear under their name only when they are
whole.
"""

from brainjax.recording.reading import Recording as Recording, read as read
from brainjax.recording.recorder import create as create, record as record
