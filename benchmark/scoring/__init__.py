"""From answers to a score: records, a statistic of them with its interval, and the result file.

`outcome.build_result` is the way in; `results` writes and reads the files.
"""
