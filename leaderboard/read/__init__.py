"""From result files to a board: `collect` sorts them into the tables of `board`.

`fields` is what is asked of one result, `names` how strangers' names are written, `published` the
figures that others published.
"""
