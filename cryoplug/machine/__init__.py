"""The machine: devices, memory, threads, processes, signals."""
