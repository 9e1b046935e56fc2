"""A model outside of training: as one ONNX file, which runs without torch."""
