"""Host-side accumulators that merge."""
