"""What is typed after ``superb``: a file for each group of commands; `superb.cli` has them all."""
