"""From a folder of result files to tables of runs that may stand side by side (`collect`)."""
