"""What a person types and sees: options, progress, the plan, one-line error messages."""

from resnet.terminal.console import console, run, say, stoppable
from resnet.terminal.images import load_images
from resnet.terminal.init import init
from resnet.terminal.options import Experiments, Options, TrackingUri, flag, value
