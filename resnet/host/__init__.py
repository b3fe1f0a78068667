"""The machine, and the person at its shell: what it can do, and commands that work as they stand.

Nothing here imports more than the standard library (but where an address is read), so that it can
speak where nothing is installed. ``quiet_start`` goes around whatever imports Keras.
"""

from resnet.host import addresses, disk, machine, shell
from resnet.host.start import BACKENDS, choose_backend, quiet_start
from resnet.host.version import version
