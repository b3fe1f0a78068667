"""Keras with the same settings in every run: of a user's ``keras.json`` only the backend counts.

Half-precision weights or another order of axes would be another experiment under the same name.
"""

import keras

__all__ = ["keras"]

keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")
