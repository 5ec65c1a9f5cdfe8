"""Routes and rules as users write them: values and their syntax. Pure."""
