"""From a name, folder, hub id, file or object to a frozen encoder; see `load.load_upstream`."""
