"""Encoders. `catalogue` names them (data: ``catalogue.toml``); `models` holds their architectures,
one file a family; `loading` makes a frozen encoder of a name, folder, hub id, file or object;
`pretraining` makes new ones; ``checkpoints/`` are the small ones that come with the package.
"""
