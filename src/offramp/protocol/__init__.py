"""The Open Inference Protocol: servers that speak it, and those who ask them."""
