"""Side-by-side timings, one command each; see README.md beside this file."""
