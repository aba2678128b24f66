"""The commands of `launch.sh` other than training: sweep, submit, table, ledger, prepare, models."""
