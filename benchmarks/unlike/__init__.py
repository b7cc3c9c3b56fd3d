"""How well the warning "unlike the training data" works."""
