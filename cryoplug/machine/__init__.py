"""What the machine gives us: devices, memory, threads, signals."""
