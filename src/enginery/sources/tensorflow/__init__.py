"""TensorFlow and Keras as a source: one side drives a process, the other runs the framework in it."""
