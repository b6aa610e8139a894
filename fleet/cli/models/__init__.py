"""Commands on models, budgets and the council's benchmark."""
