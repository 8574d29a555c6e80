"""Assembly calculus (NEMO): areas whose k most excited neurons fire, with Hebbian plasticity."""

from brainjax.assemblies.anatomy import (
    Area as Area,
    Config as Config,
    Drive as Drive,
    Fiber as Fiber,
    Input as Input,
    Stimulus as Stimulus,
)
from brainjax.assemblies.dynamics import (
    Params as Params,
    State as State,
    init as init,
    step as step,
)
