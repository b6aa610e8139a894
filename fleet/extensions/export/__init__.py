"""Trajectories as Parquet."""
