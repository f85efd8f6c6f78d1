"""What a person looks at, or another program reads.

A board becomes grids (`board`, `published`), and these become text (`render`, `terminal`);
`board_csv` and `export` are for programs; `comparison`, `layers` and `plots` show paired
differences; `report` is one HTML file with all of it.
"""
