"""Training files by their layout: one module for each family of them."""
