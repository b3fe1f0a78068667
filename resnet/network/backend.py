"""Keras with the same settings in every run. A user's ``keras.json`` sets only the backend.

Half-precision weights or another order of axes would change an experiment's results.
"""

import keras

__all__ = ["keras"]

keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")
