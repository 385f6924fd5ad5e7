"""From a trained model to a bundle that is proved equal to it: ONNX, parity, reference."""
