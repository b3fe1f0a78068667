"""Speed comparisons, and a test with random faults. README.md in this folder lists the commands."""
