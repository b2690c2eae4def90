"""Programs that measure Penstock, and its peers in the same run. Each prints one line of JSON; `make bench` runs them all."""
