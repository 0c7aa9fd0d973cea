"""The machine: files that appear whole, threads, locks, memory, interruption, progress."""
