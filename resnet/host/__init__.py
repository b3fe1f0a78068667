"""The machine, and messages and command lines for the person at its shell.

Nothing here imports more than the standard library (but where an address is read), so that it can
speak where nothing is installed. ``quiet_start`` goes around whatever imports Keras.
"""

from resnet.host import addresses, command_lines, disk, machine, messages
from resnet.host.start import BACKENDS, choose_backend, quiet_start
from resnet.host.version import version
