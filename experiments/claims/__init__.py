"""Figures of the sweeps in `configs/claims`: what a paper claims, as measured here."""
