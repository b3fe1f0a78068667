"""Speed comparisons and a test of random faults; README.md in this folder has the commands."""
