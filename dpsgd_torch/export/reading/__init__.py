"""ONNX operators → float layers: a file for each family, one function for each operator."""
