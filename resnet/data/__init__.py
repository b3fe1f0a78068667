"""What a dataset is, and how images become one: by name, from a folder, from an archive.

Only ``archives`` opens what strangers packed; it alone knows formats of archives and images.
"""

from resnet.data.datasets import NAMED, Dataset, Source, load
