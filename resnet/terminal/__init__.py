"""What a person types and sees: options, the living table, the plan, mistakes in a line."""

from resnet.terminal.console import (
    Command,
    Group,
    console,
    errors,
    flag,
    helped,
    run,
    say,
    stoppable,
)
from resnet.terminal.images import load_images
from resnet.terminal.init import init
from resnet.terminal.options import (
    Experiments,
    Options,
    Seeds,
    TrackingUri,
    parse_seeds,
    takes_options,
)
