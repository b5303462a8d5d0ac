"""Keras files without TensorFlow or Keras.

keras_file     .keras, .weights.h5 and .h5 → torch's convention
keras_config   the config's layers and their graph
hdf5           HDF5 read by a child process; hdf5_child is that program
"""
