"""FEAGI's burst engine: event-driven integrate-and-fire neurons, bit for bit or without accidents.

One option, `Config(strict_feagi=...)`, chooses the semantics. Strict reproduces the CPU engine of
feagi-core (crates 0.0.1-beta.18) bit for bit; the default keeps the model and drops what happens to
it by accident. Each part can be set on its own:

| behaviour | part of Config | strict | default |
|---|---|---|---|
| only candidates leak and count down, zero sums included | none | yes | yes |
| counts saturate at 65,535; the random number is `random_number` | none | yes | yes |
| other rules in bursts of so many candidates: see below | `batch_threshold` | 10,000 | None |
| no reset from so many neurons on: see below | `large_reset` | 1,000,000 | None |
| no area divides if none was given flags | `fast_path` | True | False |
| range of weights and strengths: see below | `weights` | "u8" | "f32" |
| a neuron without fire limit is blocked once in 65,535 fires | `unlimited_block` | True | False |
| leak outside [0, 1], excitability above 1 | `legacy_units` | "keep", warns | "error" |
| delays of more than one burst | `max_delay` | error | 1 to 255 |

`batch_threshold`: a potential that reaches the threshold is lost even if the neuron does not fire,
only a negative limit on the threshold has an effect, the full count of a neuron without fire limit
blocks it until something else clears it, and no snooze follows.
`large_reset`: potentials that do not accumulate are kept, but for those of neurons that fired.
`weights`: "u8" takes whole numbers up to 255; plasticity saturates there, and a potential-driven
strength is rounded, halves up, and saturates there. "f32" takes any, plasticity keeps to
`max_weight`, and a potential-driven strength is the potential itself, kept to [0, `max_strength`].

An area that is given no flags while others have some divides its contributions in either.

Memory neurons and their replay are not part of the model.

`populate` holds the parameters of neurons that are alike once; `Neurons.spread` gives each neuron
its own. With `Config(keeps_inputs=True)` the state tells what each neuron received.

What goes in and what comes out have coordinates. A `Layout` knows area and voxel of each neuron:

    layout = connectomes.layout(network)
    eye, arm = layout.block("eye"), layout.block("arm")
    drive = layout.drive(config, [("eye", [[0, 1, 0], [0, 2, 0]], 10.0)])  # by voxel, on the host
    print(burst.fired(state, layout, "arm").position)  # as a table, on the host

    def sense_and_act(carry, _):  # on the device, in a scan
        state, body = carry
        drive = layout.drive_frames(config, {"eye": camera(body)})  # [x, y, z]
        state = burst.step(config, params, state, drive)
        fires, potentials = burst.read(state, arm)  # [x, y, z, k]
        return (state, move(body, fires)), None

Where body and camera are the host's, a `HostLoop` advances the network burst by burst. `Sampler`
records who fired in `simulate`, `window` reads an area of the fire ledger, and
`brainjax.recording` writes whole runs to disk.
"""

from brainjax.burst.anatomy import (
    Area as Area,
    Config as Config,
    Mapping as Mapping,
)
from brainjax.burst.block import Block as Block
from brainjax.burst.drive import Drive as Drive
from brainjax.burst.dynamics import (
    Params as Params,
    State as State,
    init as init,
    step as step,
)
from brainjax.burst.host_loop import HostLoop as HostLoop
from brainjax.burst.layout import Layout as Layout
from brainjax.burst.ledger import frames as frames
from brainjax.burst.neurons import (
    Neurons as Neurons,
    graded_threshold as graded_threshold,
    populate as populate,
)
from brainjax.burst.readout import (
    Sample as Sample,
    Sampler as Sampler,
    Spikes as Spikes,
    fired as fired,
    fires as fires,
    read as read,
    spikes as spikes,
    window as window,
)
from brainjax.burst.synapses import (
    Synapses as Synapses,
    connect as connect,
    weights as weights,
)
from brainjax.ops.burst_dynamics import random_number as random_number
