"""From a name, folder, hub id, file or object to a frozen encoder; `load.load_upstream` is the way in."""
