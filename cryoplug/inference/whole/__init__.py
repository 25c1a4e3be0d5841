"""The road for GPUs: a whole micrograph on the device, copied there once and back once."""
