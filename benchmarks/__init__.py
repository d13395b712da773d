"""Side-by-side measurements; every comparison in one run, as a ratio."""
