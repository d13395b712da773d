"""Cards that a run writes about itself."""
