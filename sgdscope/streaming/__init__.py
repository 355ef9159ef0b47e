"""An annex: examples that the host reads, and several processes that train together."""
