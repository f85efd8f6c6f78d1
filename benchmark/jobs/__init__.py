"""A run as frozen jobs, what they cost, and who does them."""
