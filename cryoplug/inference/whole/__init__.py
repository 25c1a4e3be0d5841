"""The road of GPUs: a whole micrograph on the device, copied there once and back once."""
