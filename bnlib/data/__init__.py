"""The embedded digits; README.md tells where they come from."""
