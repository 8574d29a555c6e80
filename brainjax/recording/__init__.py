"""Runs of the burst engine on disk: spikes as Parquet, quantities of every neuron as Zarr.

A recording is a folder:

    run.json                     what ran: config, seed, power, sizes, versions
    neurons.parquet              neuron, area, x, y, z; one row for each neuron
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
whole. What it left of the chunk that it was writing goes when the recording is continued.

A recording holds no state. To go on after the process has ended, save the state that `record`
returns with `brainjax.checkpoint`, and continue from it. A checkpoint from the middle of a chunk is
of no use: with `rewind`, the burst of the state must be the last one of a recorded chunk.
"""

from brainjax.recording.creation import create as create
from brainjax.recording.reading import Recording as Recording, read as read
from brainjax.recording.recorder import record as record
