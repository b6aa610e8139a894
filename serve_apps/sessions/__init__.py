"""Work sessions of engineers over HTTP."""
