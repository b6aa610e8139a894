"""What is made of the log for people and trainers: reports, and trajectories of stories."""
