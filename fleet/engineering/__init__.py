"""Work sessions of engineers: a pure loop over recorded replies and calls, edits as functions of trees."""
