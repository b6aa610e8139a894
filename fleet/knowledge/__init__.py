"""Repository knowledge: what files hold, which of them a task is about, and where in them."""
