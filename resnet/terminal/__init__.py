"""The command line's options and error messages, and its displays of plans and progress."""

from resnet.terminal.console import console, load_images, run, say, stoppable
from resnet.terminal.init import init
from resnet.terminal.options import Experiments, Options, TrackingUri, flag, value
