"""Facts about the machine, a quiet start of Keras, and helpers for messages and command lines.

These modules import only the standard library when they are loaded, so that they can report a
missing package. Code that imports Keras runs inside ``quiet_start``.
"""

from resnet.host import addresses, command_lines, disk, machine, messages
from resnet.host.machine import version
from resnet.host.start import BACKENDS, choose_backend, quiet_start
