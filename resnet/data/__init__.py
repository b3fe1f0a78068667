"""What a dataset is, and how images become one: by name, from a folder, from an archive.

Only ``archives`` and ``containers`` open what strangers packed: formats of images, and of archives.
"""

from resnet.data.datasets import NAMED, Dataset, Source, load
from resnet.data.splits import stratified
